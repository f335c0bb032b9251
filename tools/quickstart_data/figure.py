"""The figure of the quickstart data: a jointed 3D body of tapered, rounded parts.

Body axes: x to the left of the person, y forward, z up, in fractions of the height of the person;
the ground is at z = 0. A camera with yaw 0 sees the person from the front, with yaw pi from the
back. Images are float32, premultiplied RGBA [h, w, 4].
"""

from dataclasses import dataclass

import numpy as np
from ember_reid.tools.quickstart_data.body import Part, Pose, Vector, build_parts
from ember_reid.tools.quickstart_data.people import Person


@dataclass(frozen=True)
class View:
    """How a figure appears in the image; angles in radians.

    Attributes:
        tilt: downward tilt of the camera.
        pixels: pixels per unit of body height.
        x, y: pixel position of the ground point between the feet.
        light: direction to the light: right, up, toward the camera.
    """

    yaw: float
    tilt: float
    roll: float
    pixels: float
    x: float
    y: float
    light: Vector
    ambient: float


def draw_figure(shape: tuple[int, int], person: Person, pose: Pose, view: View) -> np.ndarray:
    """Draw a person on a transparent background: float32, premultiplied RGBA [h, w, 4]."""
    canvas = np.zeros((*shape, 4), dtype=np.float32)
    parts = build_parts(person, pose)

    def nearness(part: Part) -> float:
        x, y, z = (np.asarray(part.top) + np.asarray(part.end)) / 2
        toward = -x * np.sin(view.yaw) + y * np.cos(view.yaw)
        return toward * np.cos(view.tilt) + z * np.sin(view.tilt) + part.nearer

    for part in sorted(parts, key=nearness):
        paint_part(canvas, part, view)
    return canvas


def project(point: Vector, view: View) -> np.ndarray:
    """Pixel position (column, row) of a point of the body, with a slight perspective.

    If the camera is tilted, higher points are nearer to it.
    """
    x, y, z = point
    across = x * np.cos(view.yaw) + y * np.sin(view.yaw)
    toward = -x * np.sin(view.yaw) + y * np.cos(view.yaw)
    up = z * np.cos(view.tilt) - toward * np.sin(view.tilt)
    grow = 1 + 0.25 * np.sin(view.tilt) * (z - 0.5) + 0.08 * toward
    cos, sin = np.cos(view.roll), np.sin(view.roll)
    across, up = grow * (across * cos - up * sin), grow * (across * sin + up * cos)
    return np.array([view.x + view.pixels * across, view.y - view.pixels * up])


def paint_part(canvas: np.ndarray, part: Part, view: View) -> None:
    """Draw one part over `canvas` [h, w, 4] in place, with a soft edge and light from one side."""
    height, width = canvas.shape[:2]
    start, stop = project(part.top, view), project(part.end, view)
    # An ellipse with half axes (1, depth), seen under yaw: its half width and the rotation of its
    # surface.
    turn = np.arctan2(part.depth * np.sin(view.yaw), np.cos(view.yaw))
    seen = np.hypot(np.cos(view.yaw), part.depth * np.sin(view.yaw))
    radii = np.asarray(part.profile) * view.pixels * seen
    reach = radii.max() + 2
    left, top = np.floor(np.minimum(start, stop) - reach).astype(int)
    right, bottom = np.ceil(np.maximum(start, stop) + reach).astype(int) + 1
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        return
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    columns = np.arange(left, right, dtype=np.float32)[None, :]
    length = max(float(np.hypot(*(stop - start))), 1e-3)
    down = (stop - start) / length if length > 0.5 else np.array([0.0, 1.0])
    along = (columns - start[0]) * down[0] + (rows - start[1]) * down[1]
    aside = (columns - start[0]) * down[1] - (rows - start[1]) * down[0]
    t = np.clip(along / length, 0, 1)
    radius = np.interp(t, np.linspace(0, 1, len(radii)), radii).astype(np.float32)
    beyond = along - np.clip(along, 0, length)
    if part.round_ends:
        gap = np.hypot(aside, beyond)
    else:
        gap = np.maximum(np.abs(aside), np.abs(beyond) + radius - 0.5)
    cover = np.clip(radius - gap + 0.5, 0, 1)
    if not cover.any():
        return
    s = np.clip(aside / np.maximum(radius, 1e-3), -1, 1)
    facing = np.sqrt(1 - s * s)
    color = part.texture(np.arcsin(s) - turn, t)
    lit = s * (down[1] * view.light[0] + down[0] * view.light[1]) + facing * view.light[2]
    folds = 1 + 0.05 * np.sin(9 * t + 3 * s + 40 * part.profile[0]) + 0.04 * np.sin(23 * t - 5 * s)
    shade = (view.ambient + (1 - view.ambient) * np.maximum(lit, 0)) * folds * (1 - 0.12 * t)
    patch = canvas[top:bottom, left:right]
    patch *= 1 - cover[..., None]
    patch[..., :3] += color * (shade * cover)[..., None]
    patch[..., 3] += cover
