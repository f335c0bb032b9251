"""Tracklets from a list of crops: all rows with the same camera and the same track."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ember_reid.config.messages import flatten, show

REQUIRED = ("path", "camid", "track")
# Names of tracks by tools.crops: the source (a video or folder), and the track in it.
SOURCE = re.compile(r"(source\d{3})/")


@dataclass(frozen=True)
class CropList:
    """A CSV list of crops.

    Attributes:
        path: the file.
        columns: the columns, in order.
        rows: one dictionary of texts per crop.
        lines: the line of each row, for messages.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]


@dataclass(frozen=True)
class Tracklet:
    """One individual in one camera, without interruption.

    Attributes:
        camid, track: labels.
        rows: positions of its crops in the list, in order of time.
        first, last: times of the first and the last crop in seconds; None if they are not known.
    """

    camid: str
    track: str
    rows: tuple[int, ...]
    first: float | None = None
    last: float | None = None

    @property
    def source(self) -> str:
        """The video or folder that tools.crops cut it from; "" for lists of other programs."""
        found = SOURCE.match(self.track)
        return found[1] if found else ""


def read_crops(path: Path) -> CropList:
    """Read a CSV list with the columns path, camid and track.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    rows, lines = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in REQUIRED if name not in columns]
            if missing:
                raise ValueError(
                    f"{path}, line 1: no column {', '.join(missing)}; found: "
                    f"{flatten(', '.join(columns)) or 'nothing'}"
                )
            for line in reader:
                if None in line or None in line.values():
                    raise ValueError(
                        f"{path}, line {reader.line_num}: it must have {len(columns)} cells"
                    )
                rows.append({name: value.strip() for name, value in line.items()})
                lines.append(reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8 ({error})") from None
    return CropList(path, tuple(columns), rows, lines)


def group_tracklets(crops: CropList, *, use_times: bool = True) -> list[Tracklet]:
    """The tracklets in order of their first rows; rows without a track are in none.

    A tracklet has times if all of its rows have one.

    Raises:
        ValueError: there is no tracklet, or a time is not a number.
    """
    positions: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for position, row in enumerate(crops.rows):
        if row["track"]:
            positions[row["camid"], row["track"]].append(position)
    if not positions:
        raise ValueError(f"{crops.path} has no tracklets: the column track is empty in every row")
    return [
        _create(crops, camid, track, members, use_times)
        for (camid, track), members in positions.items()
    ]


def _create(
    crops: CropList, camid: str, track: str, members: list[int], use_times: bool
) -> Tracklet:
    times: dict[int, float] = {}
    for position in members if use_times else ():
        text = crops.rows[position].get("time", "")
        place = f"{crops.path}, line {crops.lines[position]}: time"
        times[position] = parse_seconds(text, place, empty=math.nan)
    if not times or any(map(math.isnan, times.values())):
        return Tracklet(camid, track, tuple(members))
    ordered = sorted(members, key=times.__getitem__)
    return Tracklet(camid, track, tuple(ordered), times[ordered[0]], times[ordered[-1]])


def parse_seconds(text: str, place: str, *, empty: float | None = None) -> float:
    """A finite number of seconds; `empty` if there is no text and an empty text is allowed.

    Raises:
        ValueError: the text is not a number; the message begins with `place`.
    """
    if not text and empty is not None:
        return empty
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place} is {show(text)}, it must be a number of seconds")
    return value


def shift_times(tracklets: Sequence[Tracklet], offsets: Mapping[str, float]) -> list[Tracklet]:
    """Add the offset of the camera and that of the source to the times of each tracklet.

    Raises:
        ValueError: a camera has several sources, whose times cannot be compared without offsets.
    """
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for tracklet in tracklets:
        if tracklet.first is not None:
            sources[tracklet.camid].add(tracklet.source)
    for camid, names in sources.items():
        unknown = sorted(names - set(offsets))
        if len(unknown) > 1:
            raise ValueError(
                f"camera {show(camid)} has {len(names)} sources, whose times all start at 0: give "
                f"--offset {unknown[1] or unknown[0]} SECONDS, or --no-times"
            )
    return [_shift(tracklet, offsets) for tracklet in tracklets]


def _shift(tracklet: Tracklet, offsets: Mapping[str, float]) -> Tracklet:
    if tracklet.first is None or tracklet.last is None:
        return tracklet
    seconds = offsets.get(tracklet.camid, 0.0) + offsets.get(tracklet.source, 0.0)
    return Tracklet(
        tracklet.camid,
        tracklet.track,
        tracklet.rows,
        tracklet.first + seconds,
        tracklet.last + seconds,
    )


def spread(positions: Sequence[int], count: int) -> list[int]:
    """At most `count` of the positions, evenly spread: the middles of equal parts; 0: all."""
    if not count or len(positions) <= count:
        return list(positions)
    return [positions[(2 * part + 1) * len(positions) // (2 * count)] for part in range(count)]
