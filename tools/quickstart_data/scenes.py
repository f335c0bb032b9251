"""The backgrounds of the quickstart data: one wide image per camera, from which crops are taken."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Height and width; crops have 256 x 128 pixels.
SCENE_SIZE = (330, 720)
HORIZON = 135
Ink = tuple[int, int, int]


def draw_scene(name: str, rng: np.random.Generator) -> np.ndarray:
    """The scene `name`: float32 RGB [SCENE_SIZE, 3] in [0, 1]."""
    image = Image.new("RGB", (SCENE_SIZE[1], SCENE_SIZE[0]))
    SCENES[name](ImageDraw.Draw(image), rng)
    image = image.filter(ImageFilter.GaussianBlur(1.6))
    pixels = np.asarray(image, dtype=np.float32) / 255
    # Backgrounds are less saturated than clothes.
    pixels = 0.55 * pixels + 0.45 * pixels.mean(axis=2, keepdims=True)
    pixels = 0.5 + 0.8 * (pixels - 0.5)
    coarse = rng.random((SCENE_SIZE[0] // 15 + 1, SCENE_SIZE[1] // 15 + 1)).astype(np.float32)
    stains = Image.fromarray(coarse).resize(
        (SCENE_SIZE[1], SCENE_SIZE[0]), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 0.02, (*SCENE_SIZE, 1)).astype(np.float32)
    return np.clip(pixels * (0.91 + 0.18 * np.asarray(stains)[..., None]) + grain, 0, 1)


def _fill_gradient(draw: ImageDraw.ImageDraw, top: int, bottom: int, first: Ink, last: Ink) -> None:
    """Fill the rows from `top` to `bottom` with a vertical color gradient."""
    for row in range(top, bottom):
        share = (row - top) / max(bottom - top - 1, 1)
        draw.line((0, row, SCENE_SIZE[1], row), fill=_mix(first, last, share))


def _mix(first: Ink, last: Ink, share: float) -> Ink:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, last, strict=True))
    return red, green, blue


def _integer(rng: np.random.Generator, low: int, high: int | None = None) -> int:
    """A random integer in [low, high), or in [0, low)."""
    return int(rng.integers(low, high))


def _vary(rng: np.random.Generator, ink: Ink, spread: float = 14) -> Ink:
    red, green, blue = (int(np.clip(value + rng.normal(0, spread), 0, 255)) for value in ink)
    return red, green, blue


def _draw_paving(
    draw: ImageDraw.ImageDraw, ink: Ink, *, step: float, lines: int, skew: float = 0.0
) -> None:
    """Draw the joints of a paved ground in perspective."""
    height, width = SCENE_SIZE
    for column in np.arange(-2 * width, 3 * width, step):
        draw.line(
            (width / 2 + 0.45 * (column - width / 2) + skew, HORIZON, column, height),
            fill=ink,
            width=1,
        )
    for number in range(lines):
        row = HORIZON + (height - HORIZON) * (number / lines) ** 1.7
        draw.line((0, row, width, row), fill=ink, width=1 + number // 6)


def _plaza(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    _fill_gradient(draw, 0, HORIZON, (150, 140, 128), (176, 166, 150))
    # Shop windows with goods, and awnings.
    for left in range(0, width, 90):
        draw.rectangle((left + 8, 30, left + 80, HORIZON - 8), fill=_vary(rng, (62, 70, 78)))
        for _ in range(9):
            x, y = left + 10 + _integer(rng, 60), 48 + _integer(rng, 65)
            ink = _vary(rng, (130, 124, 116), 38)
            draw.rectangle((x, y, x + _integer(rng, 4, 16), y + _integer(rng, 4, 20)), fill=ink)
        awning = _vary(rng, ((150, 60, 50), (60, 100, 80), (200, 190, 170))[_integer(rng, 3)])
        draw.polygon([(left + 4, 22), (left + 84, 22), (left + 88, 42), (left, 42)], fill=awning)
        for stripe in range(0, 84, 16):
            draw.polygon(
                [
                    (left + 4 + stripe, 22),
                    (left + 10 + stripe, 22),
                    (left + 9 + stripe, 42),
                    (left + 2 + stripe, 42),
                ],
                fill=_mix(awning, (240, 235, 225), 0.7),
            )
    _fill_gradient(draw, HORIZON, height, (168, 160, 148), (196, 186, 170))
    _draw_paving(draw, (140, 132, 122), step=64, lines=13)
    # Planters.
    for _ in range(4):
        x, y = _integer(rng, width), _integer(rng, HORIZON - 12, HORIZON + 20)
        draw.rectangle((x, y, x + 44, y + 24), fill=(118, 104, 92))
        for _ in range(30):
            a, b = x + _integer(rng, -4, 46), y + _integer(rng, -22, 4)
            draw.ellipse((a, b, a + 10, b + 10), fill=_vary(rng, (62, 92, 46)))


def _park(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    _fill_gradient(draw, 0, HORIZON, (176, 188, 192), (128, 144, 118))
    # Treetops.
    for _ in range(420):
        x, y, size = (
            _integer(rng, -20, width),
            _integer(rng, -10, HORIZON - 20),
            _integer(rng, 10, 36),
        )
        ink = _mix((44, 66, 36), (120, 142, 84), float(rng.random()))
        draw.ellipse((x, y, x + size, y + 0.7 * size), fill=ink)
    for _ in range(13):
        x, thick = _integer(rng, width), _integer(rng, 5, 13)
        draw.rectangle(
            (x, 30, x + thick, HORIZON + _integer(rng, 0, 18)), fill=_vary(rng, (74, 60, 46))
        )
    _fill_gradient(draw, HORIZON, height, (112, 128, 74), (92, 110, 60))
    draw.polygon(
        [
            (-60, height),
            (width * 0.12, HORIZON + 18),
            (width * 0.95, HORIZON + 24),
            (width + 90, height),
        ],
        fill=(158, 150, 134),
    )
    # Grass, leaves and gravel.
    for _ in range(900):
        x, y = _integer(rng, width), _integer(rng, HORIZON + 6, height)
        draw.line((x, y, x + 3, y - 3), fill=_vary(rng, (128, 130, 92), 24))
    # Benches.
    for left in (90, 430):
        for row in (0, 9, 18):
            draw.rectangle(
                (left, HORIZON - 12 + row, left + 70, HORIZON - 7 + row), fill=(104, 74, 48)
            )


def _hall(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    _fill_gradient(draw, 0, HORIZON + 20, (196, 192, 176), (214, 208, 190))
    # Doors and notices.
    for left in range(0, width, 120):
        draw.rectangle(
            (left + 20, 18, left + 72, HORIZON + 14),
            fill=_vary(rng, (118, 92, 66)),
            outline=(84, 66, 50),
        )
        draw.rectangle((left + 28, 30, left + 46, 84), fill=_vary(rng, (160, 176, 180)))
        for _ in range(3):
            x, y = left + 78 + _integer(rng, 22), 30 + _integer(rng, 46)
            draw.rectangle(
                (x, y, x + 13, y + 18), fill=tuple(int(v) for v in rng.integers(120, 250, 3))
            )
    draw.rectangle((0, 100, width, 107), fill=(120, 130, 120))
    _fill_gradient(draw, HORIZON + 20, height, (164, 160, 150), (190, 184, 170))
    _draw_paving(draw, (136, 132, 124), step=84, lines=10, skew=30)
    # Reflections of lamps on the ground.
    for left in range(20, width, 130):
        for row in range(60):
            share = 0.5 * (1 - row / 60)
            y = HORIZON + 40 + row
            draw.line(
                (left + row // 5, y, left + 34 - row // 5, y),
                fill=_mix((180, 175, 162), (246, 242, 226), share),
            )


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    _fill_gradient(draw, 0, height, (118, 118, 120), (96, 97, 100))
    _fill_gradient(draw, 0, 34, (150, 148, 142), (160, 156, 150))
    draw.rectangle((0, 34, width, 40), fill=(186, 184, 178))
    # Parked cars, seen from above.
    for left in range(-40, width, 190):
        paint = _vary(
            rng, ((150, 30, 34), (210, 210, 208), (40, 54, 92), (30, 32, 34))[_integer(rng, 4)]
        )
        y = 52 + _integer(rng, 18)
        draw.rounded_rectangle((left, y, left + 150, y + 66), 22, fill=paint)
        draw.rounded_rectangle(
            (left + 34, y + 5, left + 112, y + 44), 14, fill=_mix(paint, (24, 30, 36), 0.75)
        )
        draw.line((left + 74, y + 6, left + 74, y + 44), fill=paint, width=5)
        for wheel in (24, 106):
            draw.ellipse((left + wheel, y + 48, left + wheel + 26, y + 74), fill=(20, 20, 22))
        draw.rectangle((left + 2, y + 38, left + 14, y + 46), fill=(236, 226, 190))
    # Zebra crossing.
    for left in range(-150, width, 74):
        draw.polygon(
            [(left + 60, 168), (left + 96, 168), (left + 60, 300), (left + 12, 300)],
            fill=(206, 206, 200),
        )
    # Patches of tar.
    for _ in range(10):
        x, y = _integer(rng, width), _integer(rng, 140, height)
        draw.ellipse(
            (x, y, x + _integer(rng, 20, 80), y + _integer(rng, 6, 20)),
            fill=_vary(rng, (84, 85, 88), 6),
        )


def _bricks(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    draw.rectangle((0, 0, width, height), fill=(150, 136, 126))
    for row, y in enumerate(range(0, HORIZON + 24, 9)):
        for x in range(-24 + 12 * (row % 2), width, 24):
            draw.rectangle((x, y, x + 22, y + 7), fill=_vary(rng, (142, 82, 64), 12))
    # Windows, some of them lit.
    for left in (60, 330, 560):
        draw.rectangle((left, 14, left + 64, 92), fill=(196, 192, 184))
        pane = (226, 204, 140) if rng.random() < 0.5 else (56, 62, 74)
        for dx in (5, 35):
            for dy in (5, 42):
                draw.rectangle(
                    (left + dx, 14 + dy, left + dx + 25, 14 + dy + 32), fill=_vary(rng, pane, 8)
                )
    _fill_gradient(draw, HORIZON + 24, height, (128, 126, 124), (146, 142, 138))
    # Cobblestones.
    for _ in range(260):
        x, y = _integer(rng, width), _integer(rng, HORIZON + 28, height)
        draw.ellipse((x, y, x + 13, y + 6), outline=(112, 110, 108))
    # Bicycles at the wall.
    for left in range(150, width, 210):
        frame, y = _vary(rng, (60, 70, 90), 40), HORIZON + 2
        for wheel in (0, 52):
            draw.ellipse(
                (left + wheel, y, left + wheel + 38, y + 38), outline=(36, 36, 38), width=3
            )
        path = [(19, 19), (36, -8), (62, -8), (71, 19), (44, 19), (36, -8), (32, -16)]
        draw.line([(left + dx, y + dy) for dx, dy in path], fill=frame, width=4)


def _platform(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    height, width = SCENE_SIZE
    _fill_gradient(draw, 0, 50, (70, 76, 80), (92, 98, 102))
    draw.rectangle((0, 16, width, HORIZON), fill=(176, 184, 186))
    draw.rectangle((0, 96, width, 112), fill=(54, 96, 150))
    # A train: doors and windows.
    for left in range(10, width, 118):
        draw.rectangle((left, 34, left + 48, 82), fill=_vary(rng, (42, 50, 58), 8))
        draw.rectangle(
            (left + 60, 26, left + 102, HORIZON), fill=(150, 158, 160), outline=(90, 96, 98)
        )
        draw.rectangle((left + 65, 36, left + 78, 80), fill=(50, 58, 66))
        draw.rectangle((left + 84, 36, left + 97, 80), fill=(50, 58, 66))
    draw.rectangle((0, HORIZON, width, HORIZON + 12), fill=(30, 30, 32))
    _fill_gradient(draw, HORIZON + 12, height, (138, 140, 138), (164, 166, 162))
    _draw_paving(draw, (120, 122, 120), step=48, lines=15)
    draw.rectangle((0, HORIZON + 22, width, HORIZON + 33), fill=(206, 176, 52))
    # Columns with signs.
    for left in range(60, width, 240):
        draw.rectangle((left, 0, left + 26, HORIZON + 62), fill=(112, 120, 122))
        draw.rectangle((left + 19, 0, left + 26, HORIZON + 62), fill=(86, 92, 94))
        draw.rectangle((left - 12, 40, left + 38, 60), fill=(226, 226, 222))


SCENES: dict[str, Callable[[ImageDraw.ImageDraw, np.random.Generator], None]] = {
    "plaza": _plaza,
    "park": _park,
    "hall": _hall,
    "street": _street,
    "bricks": _bricks,
    "platform": _platform,
}
