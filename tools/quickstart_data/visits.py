"""When and how synthetic people walk through the views of cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRAME_RATE = 8
# Height and width of the scene while drawing.
CANVAS = (328, 720)
# The kiosk hides everybody between these columns, from this row on.
KIOSK = (300, 420, 60)
# Frames of a visit, and of the way from one camera to the next on a route.
DURATION, WAY = (28, 50), (16, 33)


@dataclass(frozen=True)
class Visit:
    """One walk through the view of a camera.

    Attributes:
        person: number from 1, the same in all cameras.
        first, last: frames in which the person is in the view, counted from 0.
        start, turn, stop: columns at the beginning, where the person turns around or goes on, and
            at the end.
        row: of the ground under the feet.
        size: pixels per unit of body height.
        phase: of the first step.
    """

    person: int
    first: int
    last: int
    start: float
    turn: float
    stop: float
    row: float
    size: float
    phase: float

    def place(self, frame: int) -> tuple[float, bool]:
        """The column at a frame, and whether the person walks to the right."""
        there, back = abs(self.turn - self.start), abs(self.stop - self.turn)
        gone = (there + back) * (frame - self.first) / max(self.last - self.first, 1)
        if gone <= there:
            return self.start + np.sign(self.turn - self.start) * gone, self.turn > self.start
        return self.turn + np.sign(self.stop - self.turn) * (gone - there), self.stop > self.turn


def plan_visits(
    cameras: Sequence[int], *, seed: int, people: int, frames: int
) -> dict[int, list[Visit]]:
    """The visits of everybody to each camera: several, one after the other, in any order."""
    plans: dict[int, list[Visit]] = {}
    for camera in cameras:
        plans[camera] = visits = []
        for person in range(1, people + 1):
            rng = np.random.default_rng([seed, 8, camera, person])
            first = int(rng.integers(0, 20))
            while first < frames:
                visit, duration = _draw_visit(rng, person, first, frames)
                if visit.last > first:
                    visits.append(visit)
                first += duration + int(rng.integers(4, 24))
    return plans


def plan_route(
    cameras: Sequence[int], *, seed: int, people: int, frames: int
) -> dict[int, list[Visit]]:
    """One visit of everybody to each camera, in this order.

    The way to the next camera takes 2 to 4 seconds.

    Raises:
        ValueError: the videos are too short.
    """
    longest = len(cameras) * DURATION[1] + (len(cameras) - 1) * WAY[1]
    if frames <= longest:
        raise ValueError(f"a route needs more than {longest} frames per video, found {frames}")
    plans: dict[int, list[Visit]] = {camera: [] for camera in cameras}
    for person in range(1, people + 1):
        rng = np.random.default_rng([seed, 9, person])
        first = int(rng.integers(0, frames - longest))
        for camera in cameras:
            visit, duration = _draw_visit(rng, person, first, frames)
            plans[camera].append(visit)
            first += duration + int(rng.integers(*WAY))
    return plans


def _draw_visit(
    rng: np.random.Generator, person: int, first: int, frames: int
) -> tuple[Visit, int]:
    """A visit from a frame on, and its duration, which the end of the video may cut."""
    duration = int(rng.integers(*DURATION))
    ends = [-60.0, CANVAS[1] + 60.0]
    start, stop = ends if rng.random() < 0.5 else ends[::-1]
    turn = stop
    # Some turn around behind the kiosk.
    if rng.random() < 0.4:
        turn, stop = float(rng.uniform(KIOSK[0] + 30, KIOSK[1] - 30)), start
    depth = float(rng.random())
    row, size = 235 + 80 * depth, 150 + 45 * depth
    phase = float(rng.uniform(0, 2 * np.pi))
    last = min(first + duration, frames - 1)
    return Visit(person, first, last, start, turn, stop, row, size, phase), duration
