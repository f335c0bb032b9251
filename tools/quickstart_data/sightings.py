"""Render people as the cameras of the quickstart data see them.

A camera changes everything except the identity: direction and tilt from which people are seen,
background, light, color cast, sharpness, noise, crop and compression. Images are drawn at twice
their final size.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from ember_reid.tools.quickstart_data.body import Pose
from ember_reid.tools.quickstart_data.cameras import CAMERAS, Camera
from ember_reid.tools.quickstart_data.figure import View, draw_figure
from ember_reid.tools.quickstart_data.people import Person, draw_person
from ember_reid.tools.quickstart_data.scenes import SCENE_SIZE, draw_scene
from PIL import Image, ImageFilter

# Height and width of an image.
IMAGE_SIZE = (128, 64)
# Images are drawn this many times larger, for smooth edges.
SCALE = 2
# Passersby per camera, who appear in the background or occlude a person.
NUM_PASSERSBY = 8
ARMS = ("swing", "swing", "swing", "phone", "pockets", "strap")


@dataclass(frozen=True)
class Sighting:
    """One walk of a person through the view of a camera: everything that is constant over time.

    Attributes:
        yaw, tilt, roll: of the camera relative to the person, in radians.
        scale, shift: size and position of the person in the box of the detector.
        phase, stride, arms, side: see `Pose`.
        corner: top left corner of the crop in the scene, in pixels.
        exposure, gain: brightness and color cast.
        blur, motion, sharpness, quality: radius of the blur, length of the motion blur, effective
            resolution, JPEG quality.
        occluder: nothing, post, box, rail or passerby.
        occluder_position: in [0, 1].
        passerby: number of the passerby in the background; -1 is none.
    """

    yaw: float
    tilt: float
    roll: float
    scale: float
    shift: tuple[float, float]
    phase: float
    stride: float
    arms: str
    side: int
    corner: tuple[int, int]
    exposure: float
    gain: tuple[float, float, float]
    blur: float
    motion: int
    sharpness: float
    quality: int
    occluder: str
    occluder_position: float
    passerby: int


def draw_sighting(
    rng: np.random.Generator, camera: Camera, person: Person, *, badly_cropped: bool = False
) -> Sighting:
    """Draw a sighting of `person` by `camera`. `badly_cropped`: the box cuts off most of the
    person."""
    yaw = (
        camera.yaw + rng.normal(0, camera.yaw_spread) + (180 if rng.random() < camera.turned else 0)
    )
    scale, shift = rng.uniform(0.90, 1.05), (rng.normal(0, 0.045), rng.normal(0, 0.022))
    if badly_cropped:
        scale = rng.uniform(1.2, 2.0)
        shift = (
            rng.choice([-1, 1]) * rng.uniform(0.05, 0.42),
            rng.choice([-0.45, -0.25, 0.35, 0.6]),
        )
    hidden = rng.random() < camera.occlusion
    height, width = (SCALE * side for side in IMAGE_SIZE)
    return Sighting(
        yaw=float(np.radians(yaw)),
        tilt=float(np.radians(camera.tilt + rng.normal(0, 2.5))),
        roll=float(np.radians(camera.roll + rng.normal(0, 1.5))),
        scale=float(scale),
        shift=(float(shift[0]), float(shift[1])),
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(person.stride * rng.choice([0.25, 0.8, 1.0, 1.2], p=[0.2, 0.25, 0.35, 0.2])),
        arms=str(rng.choice(ARMS)),
        side=int(rng.choice([-1, 1])),
        corner=(
            int(rng.integers(SCENE_SIZE[0] - height)),
            int(rng.integers(SCENE_SIZE[1] - width)),
        ),
        exposure=float(np.exp(rng.normal(0, 0.11))),
        gain=_draw_gain(camera, rng),
        blur=float(rng.uniform(0, camera.blur)),
        motion=int(rng.choice([1, 1, 1, 1, 3])),
        sharpness=float(rng.uniform(*camera.sharpness)),
        quality=int(rng.integers(*camera.quality)),
        occluder=str(rng.choice(["post", "box", "rail", "passerby"])) if hidden else "nothing",
        occluder_position=float(rng.uniform(0, 1)),
        passerby=int(rng.integers(NUM_PASSERSBY)) if rng.random() < 0.2 else -1,
    )


def _draw_gain(camera: Camera, rng: np.random.Generator) -> tuple[float, float, float]:
    """The color gains of one image."""
    red, green, blue = np.asarray(camera.gain) * np.exp(rng.normal(0, 0.025, 3))
    return float(red), float(green), float(blue)


def render_frame(
    person: Person | None,
    camera: int,
    sighting: Sighting,
    rng: np.random.Generator,
    *,
    seed: int,
    frame: int = 0,
) -> bytes:
    """Render one frame of a sighting as a JPEG file of `IMAGE_SIZE`.

    Args:
        person: None for the background alone.
        rng: for noise and the jitter of the detector.
    """
    height, width = (SCALE * side for side in IMAGE_SIZE)
    lens = CAMERAS[camera]
    top, left = sighting.corner
    left = int(np.clip(left + 3 * frame, 0, SCENE_SIZE[1] - width))
    canvas = scene(camera, seed)[top : top + height, left : left + width].copy()
    if sighting.passerby >= 0:
        _draw_passerby(
            canvas,
            create_passersby(camera, seed)[sighting.passerby],
            sighting.occluder_position,
            0.62,
            blur=1.5,
        )
    jitter, tall = rng.normal(0, 0.008, 2), 1.73 if person is None else person.height
    view = View(
        yaw=sighting.yaw,
        tilt=sighting.tilt,
        roll=sighting.roll,
        pixels=0.86
        * height
        * sighting.scale
        * (tall / 1.73) ** 0.35
        * float(1 + rng.normal(0, 0.008)),
        x=width * (0.5 + sighting.shift[0] + jitter[0]),
        y=height * (0.95 + sighting.shift[1] + jitter[1]),
        light=lens.light,
        ambient=lens.ambient,
    )
    pose = Pose(sighting.phase + 0.55 * frame, sighting.stride, sighting.arms, sighting.side)
    if person is not None:
        draw_shadow(canvas, view, lens)
        figure = draw_figure((height, width), person, pose, view)
        canvas *= 1 - figure[..., 3:]
        canvas += figure[..., :3]
    _draw_occluder(canvas, camera, sighting, seed)
    buffer = BytesIO()
    pixels = apply_camera(canvas, lens, sighting, rng)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=sighting.quality)
    return buffer.getvalue()


@lru_cache(maxsize=16)
def scene(camera: int, seed: int) -> np.ndarray:
    """The background of a camera: float32 RGB [SCENE_SIZE, 3]."""
    return draw_scene(CAMERAS[camera].scene, np.random.default_rng([seed, 4, camera]))


@lru_cache(maxsize=16)
def create_passersby(camera: int, seed: int) -> tuple[np.ndarray, ...]:
    """Images of people who are not identities of the data, premultiplied RGBA."""
    lens, bank = CAMERAS[camera], []
    for number in range(NUM_PASSERSBY):
        rng = np.random.default_rng([seed, 5, camera, number])
        person = draw_person(rng)
        sighting = draw_sighting(rng, lens, person)
        pose = Pose(sighting.phase, person.stride, sighting.arms, sighting.side)
        height, width = (SCALE * side for side in IMAGE_SIZE)
        place = (0.9 * height, width / 2, 0.97 * height)
        view = View(sighting.yaw, sighting.tilt, 0.0, *place, lens.light, lens.ambient)
        bank.append(draw_figure((height, width), person, pose, view))
    return tuple(bank)


def _draw_passerby(
    canvas: np.ndarray, passerby: np.ndarray, where: float, size: float, *, blur: float
) -> None:
    """Draw a passerby in place; `where` in [0, 1] is the position from left to right."""
    height, width = canvas.shape[:2]
    rows, columns = int(height * size), int(width * size)
    small = np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(passerby[..., channel])).resize(
                    (columns, rows), Image.Resampling.BILINEAR
                )
            )
            for channel in range(4)
        ],
        axis=2,
    )
    if blur:
        small = _box_blur(small, int(2 * blur) | 1)
    x = int(-0.7 * columns + where * (width + 0.4 * columns))
    y = int(height * 0.62 - rows * 0.62) if size < 1 else int(0.14 * height)
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + rows, height), min(x + columns, width)
    if top >= bottom or left >= right:
        return
    cut = small[top - y : bottom - y, left - x : right - x]
    patch = canvas[top:bottom, left:right]
    patch *= 1 - cut[..., 3:]
    patch += cut[..., :3]


def _box_blur(canvas: np.ndarray, size: int) -> np.ndarray:
    """Mean over `size` columns and rows; borders are repeated."""
    for axis in (0, 1):
        pad = [(0, 0)] * canvas.ndim
        pad[axis] = (size // 2 + 1, size // 2)
        total = np.cumsum(np.pad(canvas, pad, mode="edge"), axis=axis, dtype=np.float32)
        count = canvas.shape[axis]
        ahead = np.take(total, np.arange(size, size + count), axis=axis)
        canvas = (ahead - np.take(total, np.arange(count), axis=axis)) / size
    return canvas


def draw_shadow(canvas: np.ndarray, view: View, lens: Camera) -> None:
    """Draw the shadow of a person in place."""
    height, width = canvas.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    wide, flat = 0.17 * view.pixels, (0.03 + 0.13 * np.sin(view.tilt)) * view.pixels
    x = view.x - lens.light[0] * 0.12 * view.pixels
    gap = ((columns - x) / wide) ** 2 + ((rows - view.y) / flat) ** 2
    canvas *= (1 - 0.55 * (1 - 0.6 * lens.ambient) * np.exp(-gap))[..., None]


def _draw_occluder(canvas: np.ndarray, camera: int, sighting: Sighting, seed: int) -> None:
    """Draw the occluding object in place."""
    height, width = canvas.shape[:2]
    where = sighting.occluder_position
    if sighting.occluder == "post":
        left = int(where * (width - 16))
        shade = 0.25 + 0.35 * np.sin(np.linspace(0.3, 2.6, 14, dtype=np.float32))
        canvas[:, left : left + 14] = shade[None, :, None] * np.array(
            [0.9, 0.95, 1.0], dtype=np.float32
        )
    elif sighting.occluder == "box":
        top = int(height * (0.68 + 0.15 * where))
        color = np.array(
            [[0.35, 0.3, 0.26], [0.2, 0.3, 0.22], [0.55, 0.55, 0.56]], dtype=np.float32
        )[int(where * 2.99)]
        ramp = np.linspace(1.1, 0.7, height - top, dtype=np.float32)[:, None, None]
        canvas[top:] = color * ramp
        canvas[top : top + 4] = np.minimum(color * 1.5, 1)
    elif sighting.occluder == "rail":
        for row in (0.58, 0.72, 0.86):
            top = int(height * (row + 0.06 * where))
            canvas[top : top + 5] = np.array([0.5, 0.52, 0.55], dtype=np.float32)
            canvas[top + 4] *= 0.5
    elif sighting.occluder == "passerby":
        side = -0.05 if where < 0.5 else 1.05
        passerby = create_passersby(camera, seed)[int(where * 100) % NUM_PASSERSBY]
        _draw_passerby(canvas, passerby, side, 1.05, blur=0.0)


def apply_camera(
    canvas: np.ndarray, lens: Camera, sighting: Sighting, rng: np.random.Generator
) -> np.ndarray:
    """Simulate lens and sensor: float [2 h, 2 w, 3] -> uint8 [h, w, 3]."""
    height, width = (side // SCALE for side in canvas.shape[:2])
    small = canvas.reshape(height, SCALE, width, SCALE, 3).mean(axis=(1, 3))
    gray = small @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
    small = gray[..., None] + lens.saturation * (small - gray[..., None])
    small = small * (np.asarray(sighting.gain, dtype=np.float32) * sighting.exposure)
    small = np.clip(small, 0, 1.2) ** lens.gamma
    small = lens.haze + (1 - lens.haze) * small
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    small = small * (1.03 - 0.08 * (rows**2 + columns**2))
    if sighting.motion > 1:
        pad = sighting.motion // 2
        padded = np.pad(small, ((0, 0), (pad, pad), (0, 0)), mode="edge")
        small = sum(padded[:, k : k + width] for k in range(sighting.motion)) / sighting.motion
    image = Image.fromarray((np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8))
    if sighting.sharpness < 0.97:
        less = (round(width * sighting.sharpness), round(height * sighting.sharpness))
        image = image.resize(less, Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    if sighting.blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(sighting.blur))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    noise = 0.6 * noise + 0.6 * noise.mean(axis=2, keepdims=True)
    noisy = np.asarray(image, dtype=np.float32) + 255 * lens.noise * noise
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
