r"""Cut crops out of videos or frames along tracks, and write a CSV list to train on.

    python -m tools.crops --source cam1 cam1.mp4 cam1.txt --source cam2 cam2.mp4 cam2.txt \
        --ids shared --out crops
    python -m tools.crops --source yard photos tracks.csv --out crops --per-track 8 --min-height 8
    ember-reid train quickstart/people data=csv:crops/crops.csv

FRAMES is a video or a folder of images. TRACKS are in the format of MOTChallenge, YOLO, COCO, CVAT,
Label Studio or CSV. OUT/crops.csv has the columns path, pid, camid, split, track, frame (from 0),
time (seconds), left, top, width and height. An interrupted command continues when it is called
again, and writes the same files.
"""

import argparse
import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ember_reid.tools.common.cli import Command, check_at_least, echo
from ember_reid.tools.crops.boxes import clean_label, read_json, read_text
from ember_reid.tools.crops.frames import FrameSource, open_frames
from ember_reid.tools.crops.readers import FORMATS, read_annotations
from ember_reid.tools.crops.selection import Candidate, Filters, Numbering, describe, select
from ember_reid.tools.crops.split import NO_IDENTITY, split_crops
from ember_reid.tools.crops.writer import (
    OTHER_PLAN,
    Crop,
    Journal,
    format_rows,
    write_crops,
    write_file,
)

LIST = "crops.csv"
# Folder of the journals of unfinished work, and file that describes finished work.
WORK, SUMMARY = "unfinished", "crops.json"
COLUMNS = ("path", "pid", "camid", "split", *(f.name for f in fields(Crop) if f.name != "path"))


@dataclass(frozen=True)
class Source:
    """Frames of a camera and their tracks."""

    number: int
    camera: str
    frames: Path
    tracks: Path

    @property
    def prefix(self) -> str:
        return f"source{self.number:03d}"


@dataclass(frozen=True)
class Work:
    """A source with everything that is needed to cut it."""

    source: Source
    frames: FrameSource
    parts: list[list[Candidate]]
    dropped: Counter[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = Filters()
    parser.add_argument(
        "--source",
        nargs=3,
        action="append",
        required=True,
        metavar=("CAMERA", "FRAMES", "TRACKS"),
        help="name of the camera, a video or folder of images, and tracks; several are possible",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--format", default="auto", choices=("auto", *FORMATS), help="of TRACKS (default auto)"
    )
    parser.add_argument(
        "--ids",
        choices=("shared", "separate"),
        help="whether equal track labels in several sources are the same individual",
    )
    parser.add_argument(
        "--identities",
        type=Path,
        metavar="FILE",
        help="CSV with the columns camera, track and pid: the individual of each track",
    )
    parser.add_argument("--labels", nargs="+", default=(), help="classes of objects (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use every N-th frame")
    for name, text in (
        ("per_track", "at most this many crops per track, the sharpest of equal parts; 0: all"),
        ("min_width", "smallest width in pixels"),
        ("min_height", "smallest height in pixels"),
    ):
        add_number(parser, name, int, getattr(defaults, name), text)
    for name, text in (
        ("min_visible", "smallest share of a box inside the frame"),
        ("max_overlap", "largest intersection over union with another box"),
        ("min_sharpness", "smallest variance of the Laplacian; 100 is a common limit"),
    ):
        add_number(parser, name, float, getattr(defaults, name), text)
    add_number(parser, "test_share", float, 0.5, "share of the identities for query and gallery")
    add_number(parser, "seed", int, 0, "of the choice of test identities")
    add_number(parser, "first_frame", int, None, "number of the first frame in TRACKS")
    add_number(parser, "tracks_rate", float, 0.0, "frames per second of TRACKS, if not the video's")
    add_number(parser, "frame_rate", float, None, "frames per second of folders of images")
    parser.add_argument(
        "--ignore-beyond", action="store_true", help="leave out boxes after the end of a video"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace crops of other options")


def add_number(
    parser: argparse.ArgumentParser, name: str, type: type, default: float | None, text: str
) -> None:
    """Declare an option with a number."""
    shown = "" if default is None else " (default %(default)s)"
    option = f"--{name.replace('_', '-')}"
    parser.add_argument(option, type=type, default=default, metavar="N", help=text + shown)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    try:
        for line in crop(options):
            echo(line)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"{error}; the crops so far are kept: call the command again") from error


def crop(options: argparse.Namespace) -> Iterator[str]:
    """Cut all sources and write the list; yields lines for the user.

    Raises:
        FileNotFoundError, ValueError: options, frames or tracks that cannot be used.
        OSError: a file cannot be written.
    """
    _check(options)
    sources = [
        Source(number, clean_label(camera), Path(frames), Path(tracks))
        for number, (camera, frames, tracks) in enumerate(options.source)
    ]
    identities = read_identities(options.identities) if options.identities else None
    if len(sources) > 1 and identities is None and options.ids is None:
        raise ValueError(
            f"there are {len(sources)} sources: give --ids shared if equal track labels are the "
            "same individual, --ids separate if not, or --identities FILE"
        )
    plan = _fingerprint(options, sources)
    if _open_folder(options.out, plan, overwrite=options.overwrite):
        yield f"{options.out / LIST}: exists already"
        return
    filters = Filters(
        **{f.name: getattr(options, f.name) for f in fields(Filters) if f.name != "labels"},
        labels=tuple(options.labels),
    )
    cut: list[tuple[Source, Crop]] = []
    # All tracks are checked before anything is written.
    for work in [_prepare(source, options, filters) for source in sources]:
        journal = Journal(options.out / WORK / f"{work.source.prefix}.jsonl", plan)
        try:
            blurred = write_crops(
                work.frames,
                work.parts,
                options.out,
                work.source.prefix,
                journal,
                min_sharpness=filters.min_sharpness,
            )
        finally:
            journal.close()
        if work.frames.problem:
            yield f"{work.frames.problem}: the crops up to there are kept"
        crops = [crop for _, crop in sorted(journal.done.items()) if crop is not None]
        cut += [(work.source, crop) for crop in crops]
        left_out = describe(work.dropped + blurred)
        yield f"{work.source.camera}: {len(crops)} crops" + (
            f"; boxes left out: {left_out}" if left_out else ""
        )
    yield _write_list(options, cut, identities, plan)
    shutil.rmtree(options.out / WORK)


def _check(options: argparse.Namespace) -> None:
    check_at_least(options, every=1, per_track=0, min_width=1, min_height=1, seed=0, first_frame=0)
    for name in ("min_visible", "max_overlap", "test_share"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(options, name):g}, it must be in 0..1"
            )
    for name in ("tracks_rate", "frame_rate", "min_sharpness"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}, it must be at least 0")
    if options.ids and options.identities:
        raise ValueError("--ids and --identities exclude each other")


def _fingerprint(options: argparse.Namespace, sources: list[Source]) -> str:
    """Digest of everything that the files depend on."""
    ignored = ("out", "overwrite", "debug", "source")
    content = {key: str(value) for key, value in vars(options).items() if key not in ignored}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for source in sources:
        digest.update(source.camera.encode())
        for path in (source.frames, source.tracks):
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    digest.update(f"{file.name} {file.stat().st_size}\n".encode("utf-8", "replace"))
        if source.tracks.is_file():
            digest.update(hashlib.sha256(source.tracks.read_bytes()).digest())
    return digest.hexdigest()


def _open_folder(out: Path, plan: str, *, overwrite: bool) -> bool:
    """Prepare the folder; returns whether it already has these crops.

    Raises:
        ValueError: the folder contains something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out must be a folder")
    out.mkdir(parents=True, exist_ok=True)
    finished = out / SUMMARY
    if not any(out.iterdir()):
        return False
    if not (out / WORK).is_dir() and not finished.is_file():
        raise ValueError(f"{out} is not empty and has no crops of this command; choose another one")
    if overwrite:
        _remove(out)
    if not finished.is_file():
        return False
    if read_json(finished).get("plan") != plan:
        raise ValueError(OTHER_PLAN.format(out))
    return True


def _remove(out: Path) -> None:
    """Remove the files of this command."""
    for name in (LIST, SUMMARY):
        (out / name).unlink(missing_ok=True)
    for folder in [out / WORK, *out.glob("source[0-9][0-9][0-9]")]:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(source: Source, options: argparse.Namespace, filters: Filters) -> Work:
    annotations = read_annotations(source.tracks, format=options.format)
    frames = open_frames(source.frames, rate=options.frame_rate)
    first = annotations.first_frame if options.first_frame is None else options.first_frame
    numbering = Numbering(first, options.tracks_rate, options.ignore_beyond)
    parts, dropped = select(annotations, frames, filters, numbering)
    return Work(source, frames, parts, dropped)


def read_identities(path: Path) -> dict[tuple[str, str], str]:
    """(camera, track) -> individual.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    missing = [name for name in ("camera", "track", "pid") if name not in names]
    if missing:
        raise ValueError(f"{path}, line 1: no column {', '.join(missing)}")
    found: dict[tuple[str, str], str] = {}
    for line in reader:
        camera, track, pid = (clean_label(line[names[k]]) for k in ("camera", "track", "pid"))
        if found.setdefault((camera, track), pid) != pid:
            raise ValueError(
                f"{path}, line {reader.line_num}: track {track!r} of {camera!r} has two individuals"
            )
    return found


def _write_list(
    options: argparse.Namespace,
    cut: list[tuple[Source, Crop]],
    identities: dict[tuple[str, str], str] | None,
    plan: str,
) -> str:
    """Write the list of all crops; returns one line about it."""
    if not cut:
        raise ValueError("no box passed the filters; nothing was written")
    pids = [_identity(source, crop, identities, options.ids) for source, crop in cut]
    cameras = [source.camera for source, _ in cut]
    splits = split_crops(pids, cameras, test_share=options.test_share, seed=options.seed)
    single = len(set(cameras)) == 1
    rows = []
    for (source, crop), pid, split in zip(cut, pids, splits, strict=True):
        values = asdict(crop)
        track = f"{source.prefix}/{crop.track}" if crop.track else ""
        values |= {"track": track, "time": "" if crop.time is None else crop.time}
        values |= {"pid": pid, "camid": "" if single else source.camera, "split": split}
        rows.append([values[column] for column in COLUMNS])
    write_file(options.out / LIST, format_rows(COLUMNS, rows))
    counts = Counter(splits)
    summary = {"plan": plan, "crops": len(cut), "splits": dict(sorted(counts.items()))}
    write_file(options.out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    shares = ", ".join(f"{counts[split]} {split}" for split in ("train", "query", "gallery"))
    individuals = len(set(pids) - {NO_IDENTITY})
    return f"{options.out / LIST}: {len(cut)} crops of {individuals} individuals ({shares})"


def _identity(
    source: Source, crop: Crop, identities: dict[tuple[str, str], str] | None, ids: str | None
) -> str:
    if not crop.track:
        return NO_IDENTITY
    if identities is not None:
        return identities.get((source.camera, crop.track)) or NO_IDENTITY
    return f"{source.prefix}/{crop.track}" if ids == "separate" else crop.track


main = Command("crops", __doc__ or "", add_options, run).main
