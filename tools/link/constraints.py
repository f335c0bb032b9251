"""Which tracklets cannot be the same individual, from the times at which they were seen."""

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ember_reid.config.messages import flatten, show
from ember_reid.tools.link.tracklets import Tracklet, parse_seconds

COLUMNS = ("from", "to", "min_seconds", "max_seconds")


@dataclass(frozen=True)
class TravelTimes:
    """Seconds from leaving a camera to appearing in another: (from, to) -> (minimum, maximum)."""

    limits: dict[tuple[str, str], tuple[float, float]]


class Constraints:
    """Pairs of tracklets that cannot be linked.

    Two tracklets of one camera that overlap in time are different individuals. So are two
    tracklets whose travel time is outside the limits: of the one that starts first, in camera
    `from`, the last time, to the first time of the other one, in camera `to`. Tracklets without
    times are not restricted.

    Args:
        tracklets: N tracklets.
        travel: limits of the travel times; pairs of cameras that are not listed have none.
    """

    def __init__(self, tracklets: Sequence[Tracklet], travel: TravelTimes) -> None:
        cameras = sorted({tracklet.camid for tracklet in tracklets})
        index = {camera: position for position, camera in enumerate(cameras)}
        # Missing times become NaN. Comparisons with NaN are false.
        self._cameras = np.array([index[tracklet.camid] for tracklet in tracklets], np.int64)
        self._first = np.array([tracklet.first for tracklet in tracklets], np.float64)
        self._last = np.array([tracklet.last for tracklet in tracklets], np.float64)
        # [from, to]
        self._minimum = np.full((len(cameras), len(cameras)), -np.inf)
        self._maximum = np.full((len(cameras), len(cameras)), np.inf)
        for (start, end), (low, high) in travel.limits.items():
            if start in index and end in index:
                self._minimum[index[start], index[end]] = low
                self._maximum[index[start], index[end]] = high

    def conflict(self, left: Sequence[int], right: Sequence[int]) -> bool:
        """Whether any tracklet of `left` cannot be linked with any of `right`."""
        rows, columns = np.asarray(left)[:, None], np.asarray(right)[None]
        return bool(
            self._overlap(rows, columns).any()
            or self._outside_limits(rows, columns).any()
            or self._outside_limits(columns, rows).any()
        )

    def _overlap(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether tracklets of the same camera overlap in time."""
        return (
            (self._cameras[one] == self._cameras[other])
            & (self._first[one] <= self._last[other])
            & (self._first[other] <= self._last[one])
        )

    def _outside_limits(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """Whether the travel from `earlier` to `later` is too short or too long."""
        seconds = self._first[later] - self._last[earlier]
        cameras = self._cameras[earlier], self._cameras[later]
        return (self._first[earlier] <= self._first[later]) & (
            (seconds < self._minimum[cameras]) | (seconds > self._maximum[cameras])
        )


def read_travel_times(path: Path, cameras: Collection[str]) -> TravelTimes:
    """Read a CSV file with the columns from, to, min_seconds, max_seconds.

    An empty cell is no limit.

    Args:
        path: the file.
        cameras: the cameras that may be named.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path}, line 1: no column {', '.join(missing)}")
            for line in reader:
                place = f"{path}, line {reader.line_num}"
                start, end, low, high = ((line[name] or "").strip() for name in COLUMNS)
                for camera in (start, end):
                    check_camera(camera, cameras, place)
                limit = (
                    parse_seconds(low, f"{place}: min_seconds", empty=-math.inf),
                    parse_seconds(high, f"{place}: max_seconds", empty=math.inf),
                )
                if limit[0] > limit[1]:
                    raise ValueError(f"{place}: min_seconds {low} is above max_seconds {high}")
                if limits.setdefault((start, end), limit) != limit:
                    raise ValueError(f"{place}: a second line from {start} to {end}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error})") from None
    return TravelTimes(limits)


def check_camera(camera: str, cameras: Collection[str], place: str) -> None:
    """Raise ValueError if a camera is not among the known ones."""
    if camera not in cameras:
        known = ", ".join(sorted(cameras))
        raise ValueError(
            f"{place} names the camera {show(camera)}; the tracklets have {flatten(known)}"
        )
