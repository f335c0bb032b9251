"""The six cameras of the quickstart data: viewpoint, background and imaging of each.

A camera changes everything that is not identity: side and tilt from which people are seen,
background, light, color cast, sharpness, noise, crop and compression. Drawing happens at twice the
size of the result.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from ember_reid.tools.quickstart_data.body import Pose
from ember_reid.tools.quickstart_data.figure import View, draw_figure
from ember_reid.tools.quickstart_data.people import Person, draw_person
from ember_reid.tools.quickstart_data.scenes import SCENE_SIZE, draw_scene
from PIL import Image, ImageFilter

IMAGE_SIZE = (128, 64)  # height, width
SCALE = 2  # drawn this many times larger, for smooth edges
CAST_BANK = 8  # passers-by per camera, in the background or as occlusion
ARMS = ("swing", "swing", "swing", "phone", "pockets", "strap")


@dataclass(frozen=True)
class Camera:
    """One surveillance camera; angles in degrees."""

    yaw: float  # from which side people are usually seen: 0 is the front
    yaw_spread: float
    turned: float  # share of people who walk the other way
    tilt: float
    roll: float
    scene: str
    gain: tuple[float, float, float]  # color cast
    gamma: float
    haze: float
    saturation: float
    light: tuple[float, float, float]
    ambient: float
    sharpness: tuple[float, float]  # range of the share of the full resolution that is left
    blur: float  # largest radius, pixels of the result
    noise: float
    occlusion: float  # share of people partly hidden
    quality: tuple[int, int]  # range of the JPEG quality


CAMERAS: tuple[Camera, ...] = (
    Camera(
        yaw=10, yaw_spread=22, turned=0.2, tilt=10, roll=0, scene="plaza",
        gain=(1.08, 1.01, 0.92), gamma=0.94, haze=0.02, saturation=0.95,
        light=(0.5, 0.5, 0.7), ambient=0.45, sharpness=(0.85, 1.0), blur=0.3,
        noise=0.008, occlusion=0.10, quality=(70, 92),
    ),
    Camera(
        yaw=185, yaw_spread=25, turned=0.25, tilt=6, roll=1, scene="park",
        gain=(0.96, 1.03, 0.94), gamma=1.02, haze=0.06, saturation=0.85,
        light=(-0.2, 0.6, 0.75), ambient=0.6, sharpness=(0.7, 0.95), blur=0.6,
        noise=0.010, occlusion=0.15, quality=(55, 85),
    ),
    Camera(
        yaw=88, yaw_spread=20, turned=0.4, tilt=15, roll=0, scene="hall",
        gain=(1.06, 1.00, 0.88), gamma=1.08, haze=0.00, saturation=0.9,
        light=(0.1, 0.8, 0.6), ambient=0.45, sharpness=(0.7, 0.95), blur=0.4,
        noise=0.020, occlusion=0.08, quality=(60, 88),
    ),
    Camera(
        yaw=-38, yaw_spread=22, turned=0.3, tilt=25, roll=-2, scene="street",
        gain=(0.97, 0.99, 1.05), gamma=0.90, haze=0.08, saturation=0.8,
        light=(-0.7, 0.5, 0.5), ambient=0.42, sharpness=(0.58, 0.85), blur=0.3,
        noise=0.010, occlusion=0.15, quality=(60, 88),
    ),
    Camera(
        yaw=145, yaw_spread=25, turned=0.25, tilt=12, roll=2, scene="bricks",
        gain=(0.88, 0.94, 1.06), gamma=1.12, haze=0.03, saturation=0.85,
        light=(0.6, 0.3, 0.6), ambient=0.5, sharpness=(0.65, 0.92), blur=0.6,
        noise=0.018, occlusion=0.12, quality=(50, 80),
    ),
    Camera(
        yaw=262, yaw_spread=22, turned=0.4, tilt=18, roll=0, scene="platform",
        gain=(0.94, 1.03, 1.02), gamma=1.00, haze=0.04, saturation=0.82,
        light=(0.0, 0.8, 0.65), ambient=0.5, sharpness=(0.62, 0.9), blur=0.5,
        noise=0.014, occlusion=0.18, quality=(40, 70),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sighting:
    """One walk of a person through the view of a camera: everything that is constant over time."""

    yaw: float
    tilt: float
    roll: float
    scale: float
    shift: tuple[float, float]
    phase: float
    stride: float
    arms: str
    side: int
    corner: tuple[int, int]  # of the crop out of the scene
    exposure: float
    gain: tuple[float, float, float]
    blur: float
    motion: int
    sharpness: float
    quality: int
    hidden_by: str  # nothing, post, box, rail or passer
    hidden_at: float
    passer: int  # -1 is none


def draw_sighting(
    rng: np.random.Generator, camera: Camera, person: Person, *, badly: bool = False
) -> Sighting:
    """Draw a sighting of `person` by `camera`. `badly`: the box cuts off most of the person."""
    yaw = (
        camera.yaw + rng.normal(0, camera.yaw_spread) + (180 if rng.random() < camera.turned else 0)
    )
    scale, shift = rng.uniform(0.90, 1.05), (rng.normal(0, 0.045), rng.normal(0, 0.022))
    if badly:
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
        hidden_by=str(rng.choice(["post", "box", "rail", "passer"])) if hidden else "nothing",
        hidden_at=float(rng.uniform(0, 1)),
        passer=int(rng.integers(CAST_BANK)) if rng.random() < 0.2 else -1,
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
    if sighting.passer >= 0:
        _put_passer(
            canvas, passers(camera, seed)[sighting.passer], sighting.hidden_at, 0.62, blur=1.5
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
        _put_shadow(canvas, view, lens)
        figure = draw_figure((height, width), person, pose, view)
        canvas *= 1 - figure[..., 3:]
        canvas += figure[..., :3]
    _hide(canvas, camera, sighting, seed)
    return _develop(canvas, lens, sighting, rng)


@lru_cache(maxsize=16)
def scene(camera: int, seed: int) -> np.ndarray:
    """The background that `camera` looks at: float32 RGB [SCENE_SIZE, 3]."""
    return draw_scene(CAMERAS[camera].scene, np.random.default_rng([seed, 4, camera]))


@lru_cache(maxsize=16)
def passers(camera: int, seed: int) -> tuple[np.ndarray, ...]:
    """People who are not identities of the data: premultiplied RGBA images."""
    lens, bank = CAMERAS[camera], []
    for number in range(CAST_BANK):
        rng = np.random.default_rng([seed, 5, camera, number])
        person = draw_person(rng)
        sighting = draw_sighting(rng, lens, person)
        pose = Pose(sighting.phase, person.stride, sighting.arms, sighting.side)
        height, width = (SCALE * side for side in IMAGE_SIZE)
        place = (0.9 * height, width / 2, 0.97 * height)
        view = View(sighting.yaw, sighting.tilt, 0.0, *place, lens.light, lens.ambient)
        bank.append(draw_figure((height, width), person, pose, view))
    return tuple(bank)


def _put_passer(
    canvas: np.ndarray, passer: np.ndarray, where: float, size: float, *, blur: float
) -> None:
    """Draw a passer-by, in place; `where` in [0, 1] is the position from left to right."""
    height, width = canvas.shape[:2]
    rows, columns = int(height * size), int(width * size)
    small = np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(passer[..., channel])).resize(
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
    """Mean over `size` columns and rows, borders repeated."""
    for axis in (0, 1):
        pad = [(0, 0)] * canvas.ndim
        pad[axis] = (size // 2 + 1, size // 2)
        total = np.cumsum(np.pad(canvas, pad, mode="edge"), axis=axis, dtype=np.float32)
        count = canvas.shape[axis]
        ahead = np.take(total, np.arange(size, size + count), axis=axis)
        canvas = (ahead - np.take(total, np.arange(count), axis=axis)) / size
    return canvas


def _put_shadow(canvas: np.ndarray, view: View, lens: Camera) -> None:
    height, width = canvas.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    wide, flat = 0.17 * view.pixels, (0.03 + 0.13 * np.sin(view.tilt)) * view.pixels
    x = view.x - lens.light[0] * 0.12 * view.pixels
    gap = ((columns - x) / wide) ** 2 + ((rows - view.y) / flat) ** 2
    canvas *= (1 - 0.55 * (1 - 0.6 * lens.ambient) * np.exp(-gap))[..., None]


def _hide(canvas: np.ndarray, camera: int, sighting: Sighting, seed: int) -> None:
    """Draw an occluding object, in place."""
    height, width = canvas.shape[:2]
    where = sighting.hidden_at
    if sighting.hidden_by == "post":
        left = int(where * (width - 16))
        shade = 0.25 + 0.35 * np.sin(np.linspace(0.3, 2.6, 14, dtype=np.float32))
        canvas[:, left : left + 14] = shade[None, :, None] * np.array(
            [0.9, 0.95, 1.0], dtype=np.float32
        )
    elif sighting.hidden_by == "box":
        top = int(height * (0.68 + 0.15 * where))
        color = np.array(
            [[0.35, 0.3, 0.26], [0.2, 0.3, 0.22], [0.55, 0.55, 0.56]], dtype=np.float32
        )[int(where * 2.99)]
        ramp = np.linspace(1.1, 0.7, height - top, dtype=np.float32)[:, None, None]
        canvas[top:] = color * ramp
        canvas[top : top + 4] = np.minimum(color * 1.5, 1)
    elif sighting.hidden_by == "rail":
        for row in (0.58, 0.72, 0.86):
            top = int(height * (row + 0.06 * where))
            canvas[top : top + 5] = np.array([0.5, 0.52, 0.55], dtype=np.float32)
            canvas[top + 4] *= 0.5
    elif sighting.hidden_by == "passer":
        side = -0.05 if where < 0.5 else 1.05
        passer = passers(camera, seed)[int(where * 100) % CAST_BANK]
        _put_passer(canvas, passer, side, 1.05, blur=0.0)


def _develop(
    canvas: np.ndarray, lens: Camera, sighting: Sighting, rng: np.random.Generator
) -> bytes:
    """Sensor, lens and compression: float [2 h, 2 w, 3] in, JPEG bytes [h, w] out."""
    height, width = IMAGE_SIZE
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
    buffer = BytesIO()
    Image.fromarray(np.clip(noisy + 0.5, 0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=sighting.quality
    )
    return buffer.getvalue()
