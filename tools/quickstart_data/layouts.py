"""Files of the synthetic people in the layouts of Market-1501 and MARS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from ember_reid.tools.quickstart_data.cameras import CAMERAS, NUM_CAMERAS
from ember_reid.tools.quickstart_data.people import Person, draw_person
from ember_reid.tools.quickstart_data.sightings import Sighting, draw_sighting, render_frame
from scipy.io import savemat

LAYOUTS = ("market1501", "mars")
# Purpose of a random stream; 4 and 5 are used for scenes and passersby.
PERSON, IMAGE, TRACKLET, DISTRACTOR, JUNK = 0, 1, 2, 3, 6
# Every sixth distractor shows no person.
EMPTY = 6


FOLDERS = {
    "market1501": ("bounding_box_train", "query", "bounding_box_test"),
    "mars": ("bbox_train", "bbox_test", "info"),
}


@dataclass(frozen=True)
class Parameters:
    """Settings on which the content of the data depends.

    Attributes:
        frames: of the longest tracklet.
        place: 1 or 2: the first or the last half of the cameras.
    """

    seed: int
    train_ids: int
    test_ids: int
    distractors: int
    junk: int
    frames: int
    place: int = 1

    @property
    def first_camera(self) -> int:
        """The index of the first camera of the place."""
        return (self.place - 1) * NUM_CAMERAS


@dataclass(frozen=True)
class Job:
    """A unit of work: the images of one identity, or one distractor or junk image.

    `number` is the pid, or the number of the distractor or junk image.
    """

    layout: str
    kind: int
    number: int


def render_job(root: Path, parameters: Parameters, job: Job) -> list[str]:
    """Render and write the images of one job; return their names relative to `root`."""
    source: Callable[[Parameters, Job], Iterator[tuple[str, bytes]]]
    source = market_files if job.layout == "market1501" else mars_files
    names = []
    for name, content in source(parameters, job):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        names.append(name)
    return names


def market_files(parameters: Parameters, job: Job) -> Iterator[tuple[str, bytes]]:
    """(file name, JPEG bytes) of one identity, distractor or junk box, as in Market-1501."""
    seed = parameters.seed
    if job.kind != IMAGE:
        person, camera, sighting, rng = _draw_distractor_or_junk(parameters, job)
        pid = "0000" if job.kind == DISTRACTOR else "-1"
        name = _market_name(pid, camera, _frame_number(rng), job.number % 100)
        yield f"bounding_box_test/{name}", render_frame(person, camera, sighting, rng, seed=seed)
        return
    person = identity(seed, job.number)
    training = job.number <= parameters.train_ids
    for camera in range(parameters.first_camera, parameters.first_camera + NUM_CAMERAS):
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
            name = _market_name(f"{job.number:04d}", camera, _frame_number(rng), number)
            sighting = draw_sighting(rng, CAMERAS[camera], person)
            yield f"{folder}/{name}", render_frame(person, camera, sighting, rng, seed=seed)


def _market_name(pid: str, camera: int, frame: int, box: int) -> str:
    return f"{pid}_c{camera % NUM_CAMERAS + 1}s1_{frame:06d}_{box:02d}.jpg"


def mars_files(parameters: Parameters, job: Job) -> Iterator[tuple[str, bytes]]:
    """(file name, JPEG bytes) of the tracklets of one identity, distractor or junk number."""
    seed = parameters.seed
    if job.kind != TRACKLET:
        person, camera, sighting, rng = _draw_distractor_or_junk(parameters, job)
        pid, walks = (
            "0000" if job.kind == DISTRACTOR else "00-1",
            [(camera, job.number + 1, sighting, rng)],
        )
    else:
        person, pid, walks = identity(seed, job.number), f"{job.number:04d}", []
        chosen = _stream(seed, TRACKLET, job.number, 99).permutation(NUM_CAMERAS)[:4]
        for camera in sorted((chosen + parameters.first_camera).tolist()):
            rng = _stream(seed, TRACKLET, job.number, camera)
            walks.append((camera, 1, draw_sighting(rng, CAMERAS[camera], person), rng))
    folder = (
        "bbox_train" if job.kind == TRACKLET and job.number <= parameters.train_ids else "bbox_test"
    )
    for camera, tracklet, sighting, rng in walks:
        start = f"{folder}/{pid}/{pid}C{camera % NUM_CAMERAS + 1}T{tracklet:04d}"
        for frame in range(int(rng.integers((parameters.frames + 1) // 2, parameters.frames + 1))):
            name = f"{start}F{frame + 1:03d}.jpg"
            yield name, render_frame(person, camera, sighting, rng, seed=seed, frame=frame)


def identity(seed: int, pid: int) -> Person:
    """The person with this pid, the same in both layouts."""
    return draw_person(_stream(seed, PERSON, pid))


def _draw_distractor_or_junk(
    parameters: Parameters, job: Job
) -> tuple[Person | None, int, Sighting, np.random.Generator]:
    """Draw a distractor (a new person or none) or a junk box (a test identity)."""
    rng = _stream(parameters.seed, job.kind, job.number, LAYOUTS.index(job.layout))
    camera = parameters.first_camera + int(rng.integers(NUM_CAMERAS))
    if job.kind == JUNK:
        person = identity(
            parameters.seed, parameters.train_ids + 1 + int(rng.integers(parameters.test_ids))
        )
        return person, camera, draw_sighting(rng, CAMERAS[camera], person, badly_cropped=True), rng
    person = draw_person(rng)
    sighting = draw_sighting(rng, CAMERAS[camera], person)
    return None if job.number % EMPTY == EMPTY - 1 else person, camera, sighting, rng


def _stream(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(numbers)


def _frame_number(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 120_000))


def write_mars_tables(info: Path, names: list[str], parameters: Parameters) -> None:
    """Write the lists of names and the MATLAB tables of MARS.

    A table contains the first and the last image (counted from 1), pid and camera of each tracklet.
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
    for position, (_, _, number, _) in enumerate(rows["test"], start=1):
        seen[number] = seen.get(number, 0) + 1
        # Of four tracklets, two are queries and two are in the gallery.
        if number > 0 and seen[number] <= 2:
            queries.append(position)
    _write_mat(info / "query_IDX.mat", "query_IDX", np.array([queries], dtype=np.uint16))


def _write_mat(path: Path, name: str, table: np.ndarray) -> None:
    """Write a MATLAB file without the date that scipy writes into its header of 116 bytes."""
    buffer = BytesIO()
    savemat(buffer, {name: table})
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:])


def _tracklet(name: str) -> str:
    """Identity, camera and number of the tracklet: 0001C1T0001 of 0001C1T0001F001.jpg."""
    return name[: name.index("F")]
