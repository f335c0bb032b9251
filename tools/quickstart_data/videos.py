"""Videos of synthetic people who walk through the views of two cameras, and their true tracks.

They walk behind a kiosk and behind others, and sometimes turn around there. The frame rate is low,
so that the position alone does not tell who is who.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ember_reid.tools.quickstart_data.body import Pose
from ember_reid.tools.quickstart_data.cameras import CAMERAS, Camera
from ember_reid.tools.quickstart_data.figure import View, draw_figure
from ember_reid.tools.quickstart_data.layouts import identity
from ember_reid.tools.quickstart_data.people import Person
from ember_reid.tools.quickstart_data.sightings import (
    SCALE,
    Sighting,
    apply_camera,
    draw_shadow,
    draw_sighting,
    scene,
)
from ember_reid.tools.quickstart_data.visits import (
    CANVAS,
    FRAME_RATE,
    KIOSK,
    Visit,
    plan_route,
    plan_visits,
)

# People of the videos are in no other layout.
FIRST_PERSON = 20_001
# Cameras that film, and how their image plane is turned against the path of the walkers (degrees).
FILMING = ((0, 55.0), (3, 120.0))
# Height and width of the image of one person while drawing.
PATCH = (256, 176)


@dataclass(frozen=True)
class TrackBox:
    """The box of a person in a frame: pixels of the video, and which part of it is visible."""

    person: int
    left: float
    top: float
    width: float
    height: float
    visible: float


def write_videos(folder: Path, *, seed: int, people: int, frames: int, route: bool = False) -> int:
    """Write cam1.mp4, cam1.txt, cam1_visits.txt, the same of cam2, and visits.csv.

    The .txt files are tracks in the format of MOTChallenge. In cam1.txt and cam2.txt, a person has
    the same number. In the files of visits, every visit to a camera has a number of its own, as a
    tracker would number it; visits.csv (camera, track, pid) says whose visit it is.

    Args:
        route: everybody visits cam1 once, then cam2; otherwise, both several times.

    Returns:
        The number of frames.

    Raises:
        ValueError: PyAV is not installed.
    """
    from ember_reid.engine.deploy.export import check_packages

    check_packages("rendering videos", ("av",))
    import av

    folder.mkdir(parents=True)
    owners: list[tuple[object, ...]] = [("camera", "track", "pid")]
    cameras = [camera for camera, _ in FILMING]
    plan = plan_route if route else plan_visits
    plans = plan(cameras, seed=seed, people=people, frames=frames)
    for number, (camera, turned) in enumerate(FILMING, start=1):
        rows: list[tuple[object, ...]] = []
        visits = plans[camera]
        with av.open(str(folder / f"cam{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FRAME_RATE)
            stream.width, stream.height = CANVAS[1] // SCALE, CANVAS[0] // SCALE
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            # One thread: the bytes do not depend on the machine.
            stream.thread_count = 1
            rendered = render_video(camera, turned, visits, seed=seed, frames=frames)
            for frame, (pixels, boxes) in enumerate(rendered, start=1):
                rows += [_mot_row(frame, box) for box in boxes]
                image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
        _write_rows(folder / f"cam{number}.txt", rows)
        _write_rows(folder / f"cam{number}_visits.txt", _number_visits(rows, visits))
        numbered = enumerate(visits, start=1)
        owners += [(f"cam{number}", track, visit.person) for track, visit in numbered]
    _write_rows(folder / "visits.csv", owners)
    return frames * len(FILMING)


def _write_rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _number_visits(rows: list[tuple[object, ...]], visits: list[Visit]) -> list[tuple[object, ...]]:
    """Rows of MOTChallenge with the numbers of the visits, from 1, instead of the people."""
    tracks: dict[tuple[object, object], int] = {
        (frame + 1, visit.person): track
        for track, visit in enumerate(visits, start=1)
        for frame in range(visit.first, visit.last + 1)
    }
    return [(frame, tracks[frame, person], *rest) for frame, person, *rest in rows]


def _mot_row(frame: int, box: TrackBox) -> tuple[object, ...]:
    sides = (round(side, 2) for side in (box.left, box.top, box.width, box.height))
    return (frame, box.person, *sides, 1, 1, round(box.visible, 3))


def render_video(
    camera: int, turned: float, visits: list[Visit], *, seed: int, frames: int
) -> Iterator[tuple[np.ndarray, list[TrackBox]]]:
    """Frames uint8 RGB [H, W, 3] with the boxes of the people in them.

    Args:
        camera: index of CAMERAS.
        turned: yaw in degrees of somebody who walks to the right.
        visits: of everybody to this camera.
    """
    lens = CAMERAS[camera]
    numbers = {visit.person for visit in visits}
    persons = {number: identity(seed, FIRST_PERSON + number) for number in numbers}
    rng = np.random.default_rng([seed, 7, camera])
    look = draw_sighting(rng, lens, identity(seed, FIRST_PERSON + 1))
    background = scene(camera, seed)[: CANVAS[0], : CANVAS[1]]
    for frame in range(frames):
        canvas = background.copy()
        owner = np.zeros(CANVAS, dtype=np.int32)
        present = [visit for visit in visits if visit.first <= frame <= visit.last]
        drawn = []
        # The farthest first: people in front hide those behind them.
        for visit in sorted(present, key=lambda visit: visit.row):
            view, pose = _pose(visit, persons[visit.person], frame, turned, look, camera)
            figure = _draw_patch(persons[visit.person], view, pose)
            drawn.append((visit.person, *_paste(canvas, owner, visit.person, figure, view, lens)))
        _draw_kiosk(canvas, owner)
        boxes = [_box(person, extent, area, owner) for person, extent, area in drawn if area]
        yield apply_camera(canvas, lens, look, rng), boxes


def _pose(
    visit: Visit, person: Person, frame: int, turned: float, look: Sighting, camera: int
) -> tuple[View, Pose]:
    """Where and how the person is seen in a frame."""
    column, right = visit.place(frame)
    yaw = np.radians(turned if right else -turned)
    lens = CAMERAS[camera]
    size = visit.size * (person.height / 1.73) ** 0.35
    view = View(yaw, look.tilt, 0.0, size, column, visit.row, lens.light, lens.ambient)
    steps = visit.phase + 1.1 * (frame - visit.first)
    return view, Pose(steps, person.stride, "swing", 1)


def _corner(view: View) -> tuple[int, int]:
    """Left column and top row of the patch that contains the person."""
    return round(view.x) - PATCH[1] // 2, round(view.y) - round(0.93 * PATCH[0])


def _draw_patch(person: Person, view: View, pose: Pose) -> np.ndarray:
    """The person on a transparent background: float32 RGBA [PATCH, 4]."""
    return draw_figure(PATCH, person, pose, _shift(view, *_corner(view)))


def _paste(
    canvas: np.ndarray, owner: np.ndarray, number: int, figure: np.ndarray, view: View, lens: Camera
) -> tuple[tuple[int, int, int, int], int]:
    """Draw a patch in place; returns its extent (left, top, right, bottom) and its area in pixels.

    The area is 0 if the patch is outside the canvas. `owner` receives the number of the person.
    """
    left, top = _corner(view)
    solid = figure[..., 3] > 0.5
    rows, columns = np.nonzero(solid.any(axis=1))[0], np.nonzero(solid.any(axis=0))[0]
    extent = (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + PATCH[1], CANVAS[1]), min(top + PATCH[0], CANVAS[0])
    if x0 >= x1 or y0 >= y1:
        return extent, 0
    target, cut = np.s_[y0:y1, x0:x1], np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    patch = canvas[target]
    draw_shadow(patch, _shift(view, x0, y0), lens)
    patch *= 1 - figure[cut][..., 3:]
    patch += figure[cut][..., :3]
    owner[target][solid[cut]] = number
    return extent, int(solid.sum())


def _shift(view: View, left: int, top: int) -> View:
    """The view from another origin."""
    return replace(view, x=view.x - left, y=view.y - top)


def _draw_kiosk(canvas: np.ndarray, owner: np.ndarray) -> None:
    """Draw the kiosk in front of everybody, in place."""
    left, right, top = KIOSK
    shade = 0.35 + 0.2 * np.sin(np.linspace(0.3, 2.8, right - left, dtype=np.float32))
    canvas[top:, left:right] = shade[None, :, None] * np.array([1.0, 0.9, 0.8], dtype=np.float32)
    canvas[top : top + 10, left:right] = 0.75
    owner[top:, left:right] = -1


def _box(person: int, extent: tuple[int, int, int, int], area: int, owner: np.ndarray) -> TrackBox:
    left, top, right, bottom = (side / SCALE for side in extent)
    visible = int((owner == person).sum()) / area
    return TrackBox(person, left, top, right - left, bottom - top, visible)
