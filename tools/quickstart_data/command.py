"""Render synthetic pedestrians under six cameras.

    python -m tools.quickstart_data datasets/quickstart --images
    python -m tools.quickstart_data datasets/quickstart --images --tracklets

--images writes OUT/market1501 in the layout of Market-1501, --tracklets writes OUT/mars in the layout
of MARS, with the same people. The same parameters produce the same files, bit for bit on one machine.
Training and test identities are disjoint. Both sets contain distractors (pid 0: people who are in no
query, and boxes without a person) and junk (pid -1: bad boxes).
"""

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.quickstart_data.cameras import CAMERAS, Sighting, draw_sighting, take_picture
from ember_reid.tools.quickstart_data.people import Person, draw_person
from scipy.io import savemat

MARKER = "quickstart.json"
VERSION = 2  # raise when the pictures change, so that an older set is not taken for a new one
LAYOUTS = ("market1501", "mars")
# What a random stream is for; the numbers 4 and 5 belong to scenes and passers-by.
PERSON, IMAGE, TRACKLET, DISTRACTOR, JUNK = 0, 1, 2, 3, 6
EMPTY = 6  # every sixth distractor shows nobody


class Parameters(NamedTuple):
    """What decides the content of the data, next to the version of this program."""

    seed: int
    train_ids: int
    test_ids: int
    distractors: int
    junk: int
    frames: int  # longest tracklet


class Job(NamedTuple):
    """A share of the work small enough to be spread: the pictures of one identity, or one distractor or junk
    picture.
    """

    layout: str
    kind: int
    number: int  # pid, or number of the distractor or junk picture


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--images", action="store_true", help="OUT/market1501 (also when nothing is chosen)"
    )
    parser.add_argument("--tracklets", action="store_true", help="OUT/mars")
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, other people (default %(default)s)"
    )
    parser.add_argument(
        "--train-ids", type=int, default=100, help="training identities (default %(default)s)"
    )
    parser.add_argument(
        "--test-ids", type=int, default=50, help="test identities (default %(default)s)"
    )
    parser.add_argument(
        "--distractors",
        type=int,
        default=200,
        help="gallery pictures of pid 0 (default %(default)s)",
    )
    parser.add_argument(
        "--junk", type=int, default=100, help="gallery pictures of pid -1 (default %(default)s)"
    )
    parser.add_argument(
        "--frames", type=int, default=10, help="longest tracklet (default %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (default: cores)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace quickstart data made with other parameters",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    chosen = {"market1501": options.images, "mars": options.tracklets}
    layouts = [layout for layout in LAYOUTS if chosen[layout]] or ["market1501"]
    parameters = Parameters(*(getattr(options, name) for name in Parameters._fields))
    rendered = make(
        options.out, layouts, parameters, workers=options.workers, overwrite=options.overwrite
    )
    for layout, seconds, count in rendered:
        folder = options.out / layout
        echo(
            f"{folder}: exists already"
            if seconds is None
            else f"{folder}: {count} images in {seconds:.0f} s"
        )


def make(
    out: Path,
    layouts: list[str],
    parameters: Parameters,
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> list[tuple[str, float | None, int]]:
    """Renders what is missing of `layouts` under `out`; a list of (layout, seconds or None if there,
    pictures).

    Raises ValueError when `out` holds anything but the same data: quickstart data made with other parameters
    (replaced with `overwrite`), or files of any other kind (never touched).
    """
    _check(parameters, workers)
    done = _open_folder(out, parameters, overwrite=overwrite)
    report: list[tuple[str, float | None, int]] = []
    for layout in layouts:
        if layout in done:
            report.append((layout, None, 0))
            continue
        started, partial = time.perf_counter(), out / f"{layout}.part"
        shutil.rmtree(partial, ignore_errors=True)
        count = _render(partial, layout, parameters, workers)
        partial.rename(out / layout)
        done.append(layout)
        _write_marker(out, parameters, done)
        report.append((layout, time.perf_counter() - started, count))
    return report


def _check(parameters: Parameters, workers: int) -> None:
    least = {"seed": 0, "train_ids": 1, "test_ids": 1, "distractors": 0, "junk": 0, "frames": 1}
    for name, value in parameters._asdict().items():
        if value < least[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}, it must be at least {least[name]}"
            )
    if parameters.train_ids + parameters.test_ids > 9999:
        raise ValueError(
            f"--train-ids and --test-ids make {parameters.train_ids + parameters.test_ids} identities; the "
            "layouts have four digits, so at most 9999 together"
        )
    if workers < 1:
        raise ValueError(f"--workers is {workers}, it must be at least 1")


def _open_folder(out: Path, parameters: Parameters, *, overwrite: bool) -> list[str]:
    """Makes `out` ready and returns the layouts it already holds."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; OUT must be a folder")
    marker = out / MARKER
    if marker.is_file():
        try:
            found = json.loads(marker.read_text())
            made_with, done = (
                {**found["parameters"], "version": found["version"]},
                list(found["layouts"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{marker} cannot be read; remove {out} or choose another folder"
            ) from error
        asked = {**parameters._asdict(), "version": VERSION}
        if made_with == asked:
            return [layout for layout in done if (out / layout).is_dir()]
        if not overwrite:
            differing = (
                f"{key} {made_with.get(key)} instead of {asked[key]}"
                for key in asked
                if made_with.get(key) != asked[key]
            )
            raise ValueError(
                f"{out} holds quickstart data made with {', '.join(differing)}; choose another folder or "
                "give --overwrite"
            )
        for layout in LAYOUTS:
            shutil.rmtree(out / layout, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"{out} is not empty and holds no quickstart data; choose another folder, nothing was touched"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_marker(out, parameters, [])
    return []


def _write_marker(out: Path, parameters: Parameters, layouts: list[str]) -> None:
    content = {"version": VERSION, "parameters": parameters._asdict(), "layouts": layouts}
    temporary = out / f"{MARKER}.part"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(out / MARKER)


def _render(root: Path, layout: str, parameters: Parameters, workers: int) -> int:
    """Draws one layout into `root` and returns the number of pictures."""
    ids = range(1, parameters.train_ids + parameters.test_ids + 1)
    own = IMAGE if layout == "market1501" else TRACKLET
    jobs = [Job(layout, own, pid) for pid in ids]
    jobs += [
        Job(layout, DISTRACTOR, number) for number in range(_some(parameters.distractors, layout))
    ]
    jobs += [Job(layout, JUNK, number) for number in range(_some(parameters.junk, layout))]
    for folder in FOLDERS[layout]:
        (root / folder).mkdir(parents=True)
    if workers == 1:
        names = [name for job in jobs for name in render_job(root, parameters, job)]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            results = pool.map(
                _render_packed, ((root, parameters, job) for job in jobs), chunksize=8
            )
            names = [name for result in results for name in result]
    if layout == "mars":
        _write_mars_tables(root / "info", names, parameters)
    return len(names)


FOLDERS = {
    "market1501": ("bounding_box_train", "query", "bounding_box_test"),
    "mars": ("bbox_train", "bbox_test", "info"),
}


def _some(count: int, layout: str) -> int:
    """Tracklets have many frames, so fewer of them do."""
    return count if layout == "market1501" else -(-count // 10)


def _render_packed(arguments: tuple[Path, Parameters, Job]) -> list[str]:
    return render_job(*arguments)


def render_job(root: Path, parameters: Parameters, job: Job) -> list[str]:
    """Draws and writes the pictures of one job; returns their names relative to `root`."""
    source: Callable[[Parameters, Job], Iterator[tuple[str, bytes]]]
    source = market_pictures if job.layout == "market1501" else mars_pictures
    names = []
    for name, content in source(parameters, job):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        names.append(name)
    return names


def market_pictures(parameters: Parameters, job: Job) -> Iterator[tuple[str, bytes]]:
    """(file name, JPEG bytes) of one identity, distractor or junk box in the layout of Market-1501."""
    seed = parameters.seed
    if job.kind != IMAGE:
        person, camera, sighting, rng = _extra(parameters, job)
        pid = "0000" if job.kind == DISTRACTOR else "-1"
        name = f"bounding_box_test/{pid}_c{camera + 1}s1_{_frame_number(rng):06d}_{job.number % 100:02d}.jpg"
        yield name, take_picture(person, camera, sighting, rng, seed=seed)
        return
    person = identity(seed, job.number)
    training = job.number <= parameters.train_ids
    for camera in range(len(CAMERAS)):
        count = int(_stream(seed, IMAGE, job.number, camera, 999).integers(3, 5 if training else 4))
        for number in range(count):
            rng = _stream(seed, IMAGE, job.number, camera, number)
            folder = (
                "bounding_box_train"
                if training
                else "query"
                if number == 0
                else "bounding_box_test"
            )
            name = f"{folder}/{job.number:04d}_c{camera + 1}s1_{_frame_number(rng):06d}_{number:02d}.jpg"
            sighting = draw_sighting(rng, CAMERAS[camera], person)
            yield name, take_picture(person, camera, sighting, rng, seed=seed)


def mars_pictures(parameters: Parameters, job: Job) -> Iterator[tuple[str, bytes]]:
    """(file name, JPEG bytes) of the tracklets of one identity, or of one distractor or junk tracklet."""
    seed = parameters.seed
    if job.kind != TRACKLET:
        person, camera, sighting, rng = _extra(parameters, job)
        pid, walks = (
            "0000" if job.kind == DISTRACTOR else "00-1",
            [(camera, job.number + 1, sighting, rng)],
        )
    else:
        person, pid, walks = identity(seed, job.number), f"{job.number:04d}", []
        for camera in sorted(
            _stream(seed, TRACKLET, job.number, 99).permutation(len(CAMERAS))[:4].tolist()
        ):
            rng = _stream(seed, TRACKLET, job.number, camera)
            walks.append((camera, 1, draw_sighting(rng, CAMERAS[camera], person), rng))
    folder = (
        "bbox_train" if job.kind == TRACKLET and job.number <= parameters.train_ids else "bbox_test"
    )
    for camera, tracklet, sighting, rng in walks:
        for frame in range(int(rng.integers((parameters.frames + 1) // 2, parameters.frames + 1))):
            name = f"{folder}/{pid}/{pid}C{camera + 1}T{tracklet:04d}F{frame + 1:03d}.jpg"
            yield name, take_picture(person, camera, sighting, rng, seed=seed, frame=frame)


def identity(seed: int, pid: int) -> Person:
    """The person behind `pid`, the same in both layouts."""
    return draw_person(_stream(seed, PERSON, pid))


def _extra(
    parameters: Parameters, job: Job
) -> tuple[Person | None, int, Sighting, np.random.Generator]:
    """Who is on a distractor or junk box: somebody new or nobody, or a test identity caught badly."""
    rng = _stream(parameters.seed, job.kind, job.number, LAYOUTS.index(job.layout))
    camera = int(rng.integers(len(CAMERAS)))
    if job.kind == JUNK:
        person = identity(
            parameters.seed, parameters.train_ids + 1 + int(rng.integers(parameters.test_ids))
        )
        return person, camera, draw_sighting(rng, CAMERAS[camera], person, badly=True), rng
    person = draw_person(rng)
    sighting = draw_sighting(rng, CAMERAS[camera], person)
    return None if job.number % EMPTY == EMPTY - 1 else person, camera, sighting, rng


def _stream(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(numbers)


def _frame_number(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 120_000))


def _write_mars_tables(info: Path, names: list[str], parameters: Parameters) -> None:
    """The lists of names, and start, end (from 1, inclusive), pid and camera of each tracklet, as MATLAB
    files.
    """
    rows: dict[str, list[tuple[int, int, int, int]]] = {"train": [], "test": []}
    for split in rows:
        files = sorted(Path(name).name for name in names if name.startswith(f"bbox_{split}/"))
        (info / f"{split}_name.txt").write_text("".join(f"{file}\n" for file in files))
        starts = [
            k for k in range(len(files)) if k == 0 or _tracklet(files[k]) != _tracklet(files[k - 1])
        ]
        for start, stop in zip(starts, [*starts[1:], len(files)], strict=True):
            pid, camera = files[start][:4], int(files[start][5])
            rows[split].append((start + 1, stop, -1 if pid == "00-1" else int(pid), camera))
        table = np.array(rows[split], dtype=np.int32).reshape(-1, 4)
        _write_mat(info / f"tracks_{split}_info.mat", f"track_{split}_info", table)
    queries, seen = [], dict[int, int]()
    for position, (_, _, pid, _) in enumerate(rows["test"], start=1):
        seen[pid] = seen.get(pid, 0) + 1
        if pid > 0 and seen[pid] <= 2:  # of four tracklets, two ask and two are found
            queries.append(position)
    _write_mat(info / "query_IDX.mat", "query_IDX", np.array([queries], dtype=np.uint16))


def _write_mat(path: Path, name: str, table: np.ndarray) -> None:
    """A MATLAB file without the date that scipy puts into its 116 bytes of description."""
    buffer = BytesIO()
    savemat(buffer, {name: table})
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:])


def _tracklet(name: str) -> str:
    """Identity, camera and number of the tracklet: 0001C1T0001 of 0001C1T0001F001.jpg."""
    return name[: name.index("F")]


main = Command("quickstart_data", __doc__ or "", add_options, run).main
