"""The people of the quickstart data: the appearance of an identity, drawn from a seed.

Colors are RGB in [0, 1]. Surfaces are described by two coordinates: `u`, the angle around the body
part (radians, 0 at the front, +pi/2 on the person's left, +-pi at the back), and `t`, the position
along the part (0 at its top, 1 at its end). A badge on the left breast is therefore visible from
the front only, on the right side of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]
# (u, t), both [h, w] -> RGB [h, w, 3].
Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]

# There are few colors, so many people share them, and pattern, cut, bag and build matter as well.
FABRICS: dict[str, Color] = {
    "black": (0.09, 0.09, 0.10),
    "gray": (0.47, 0.48, 0.50),
    "white": (0.90, 0.90, 0.87),
    "navy": (0.10, 0.14, 0.30),
    "blue": (0.20, 0.40, 0.72),
    "red": (0.72, 0.12, 0.14),
    "green": (0.16, 0.42, 0.22),
    "beige": (0.74, 0.63, 0.46),
    "brown": (0.36, 0.23, 0.14),
    "yellow": (0.88, 0.70, 0.16),
    "pink": (0.86, 0.47, 0.58),
    "teal": (0.12, 0.50, 0.52),
}
UPPER_WEIGHTS = (4, 3, 4, 3, 3, 2.5, 2, 2, 1, 1.5, 1.5, 1.5)
LOWER_WEIGHTS = (5, 3, 1.5, 4, 3, 0.4, 0.6, 2.5, 1.2, 0.2, 0.3, 0.4)
SKINS: tuple[Color, ...] = (
    (0.91, 0.74, 0.63),
    (0.82, 0.62, 0.48),
    (0.64, 0.44, 0.31),
    (0.42, 0.28, 0.20),
)
HAIRS: tuple[Color, ...] = (
    (0.06, 0.05, 0.05),
    (0.18, 0.11, 0.07),
    (0.36, 0.22, 0.11),
    (0.72, 0.56, 0.30),
    (0.60, 0.59, 0.58),
    (0.48, 0.16, 0.08),
)
UPPER_PATTERNS = (
    "plain",
    "hoops",
    "stripes",
    "checks",
    "gradient",
    "yoke",
    "band",
    "dots",
    "logo",
    "print",
    "open",
)
LOWER_PATTERNS = ("plain", "plain", "plain", "side", "checks", "fade", "camouflage", "stripes")
HAIR_STYLES = ("short", "short", "crop", "bald", "long", "long", "tail", "bun", "bob")
HATS = ("none", "none", "none", "cap", "beanie", "brim")
BAGS = ("none", "none", "backpack", "backpack", "messenger", "shopper", "handbag")


@dataclass(frozen=True)
class Garment:
    """One piece of clothing.

    `size` scales its pattern; `side` (-1 or 1) is the side of a pattern that is on one side only.
    """

    pattern: str
    base: Color
    accent: Color
    size: float
    side: int


@dataclass(frozen=True)
class Person:
    """The appearance of an identity, which is the same under all cameras.

    Attributes:
        height: in meters. All other lengths are fractions of the height.
        girth: width of torso and limbs; 1 is average.
        shoulder, hip: half widths.
        leg: height of the hip joint.
        head: size of the head; 1 is average.
        sleeve: covered part of the arm; 0.45 is a T-shirt, 2 a long sleeve.
        hem: height at which the upper garment ends.
        lower_kind: trousers, shorts or skirt.
        bag_side: -1 or 1.
        stride: amplitude of a step in radians.
        stoop: forward lean in radians.
    """

    height: float
    girth: float
    shoulder: float
    hip: float
    leg: float
    head: float
    skin: Color
    hair: Color
    hair_style: str
    beard: bool
    hat: str
    hat_color: Color
    upper: Garment
    sleeve: float
    sleeve_color: Color
    hem: float
    hood: bool
    lower: Garment
    lower_kind: str
    lower_width: float
    shoe: Color
    sole: Color
    bag: str
    bag_color: Color
    bag_side: int
    stride: float
    stoop: float


def draw_person(rng: np.random.Generator) -> Person:
    """Draw an identity, which depends on the state of `rng` only."""
    sleeve = float(rng.choice([0.42, 0.5, 1.25, 2.0, 2.0, 2.0]))
    upper = _draw_garment(rng, UPPER_PATTERNS, UPPER_WEIGHTS)
    lower = _draw_garment(rng, LOWER_PATTERNS, LOWER_WEIGHTS)
    lower_kind = str(rng.choice(["trousers", "trousers", "trousers", "shorts", "skirt"]))
    coat = sleeve == 2.0 and rng.random() < 0.3
    contrast_sleeves = rng.random() < 0.25
    return Person(
        height=float(rng.uniform(1.54, 1.92)),
        girth=float(rng.uniform(0.84, 1.28)),
        shoulder=float(rng.uniform(0.108, 0.136)),
        hip=float(rng.uniform(0.082, 0.104)),
        leg=float(rng.uniform(0.465, 0.535)),
        head=float(rng.uniform(0.92, 1.1)),
        skin=_vary(rng, SKINS[rng.integers(len(SKINS))], 0.03),
        hair=_vary(rng, HAIRS[rng.integers(len(HAIRS))], 0.02),
        hair_style=(hair_style := str(rng.choice(HAIR_STYLES))),
        beard=bool(rng.random() < 0.3 and hair_style in ("short", "crop", "bald")),
        hat=str(rng.choice(HATS)),
        hat_color=_fabric(rng, UPPER_WEIGHTS),
        upper=upper,
        sleeve=sleeve,
        sleeve_color=upper.accent if contrast_sleeves else upper.base,
        hem=float(rng.uniform(0.25, 0.36)) if coat else float(rng.uniform(0.43, 0.49)),
        hood=bool(sleeve == 2.0 and rng.random() < 0.3),
        lower=lower,
        lower_kind=lower_kind,
        lower_width=float(rng.uniform(0.9, 1.35)),
        shoe=_fabric(rng, (5, 2, 4, 1, 1, 1.5, 0.3, 1, 2.5, 0.4, 0.4, 0.3)),
        sole=_fabric(rng, (3, 1, 4, 0, 0, 0.5, 0, 1, 0.5, 0, 0, 0)),
        bag=str(rng.choice(BAGS)),
        bag_color=_fabric(rng, (4, 2, 1, 2, 2, 2, 1, 2, 2, 1, 1, 1)),
        bag_side=int(rng.choice([-1, 1])),
        stride=float(rng.uniform(0.26, 0.5)),
        stoop=float(rng.uniform(-0.02, 0.1)),
    )


def _draw_garment(
    rng: np.random.Generator, patterns: tuple[str, ...], weights: tuple[float, ...]
) -> Garment:
    base = _fabric(rng, weights)
    accent = base
    # A pattern needs enough contrast to be visible.
    while abs(_brightness(accent) - _brightness(base)) < 0.12:
        accent = _fabric(rng, weights)
    return Garment(
        pattern=str(rng.choice(patterns)),
        base=base,
        accent=accent,
        size=float(rng.uniform(0.75, 1.5)),
        side=int(rng.choice([-1, 1])),
    )


def _fabric(rng: np.random.Generator, weights: tuple[float, ...]) -> Color:
    shares = np.asarray(weights, dtype=np.float64)
    names = list(FABRICS)
    return _vary(rng, FABRICS[names[rng.choice(len(names), p=shares / shares.sum())]], 0.025)


def _vary(rng: np.random.Generator, color: Color, amount: float) -> Color:
    red, green, blue = np.clip(np.asarray(color) + rng.normal(0, amount, 3), 0.03, 0.97)
    return float(red), float(green), float(blue)


def _brightness(color: Color) -> float:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def plain(color: Color) -> Texture:
    """A texture of one color."""
    value = np.asarray(color, dtype=np.float32)
    return lambda u, t: np.broadcast_to(value, (*u.shape, 3))


def garment_texture(garment: Garment) -> Texture:
    """The pattern of a garment as a function of the surface coordinates."""
    weight = PATTERNS[garment.pattern]
    base = np.asarray(garment.base, dtype=np.float32)
    accent = np.asarray(garment.accent, dtype=np.float32)

    def texture(u: np.ndarray, t: np.ndarray) -> np.ndarray:
        share = np.asarray(weight(wrap(u), t, garment.size, garment.side), dtype=np.float32)[
            ..., None
        ]
        return base + share * (accent - base)

    return texture


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _half(phase: np.ndarray) -> np.ndarray:
    """A square wave: 1 over the first half of each period of length 1."""
    return (phase % 1.0) < 0.5


def _checks(u: np.ndarray, t: np.ndarray, size: float, side: int) -> np.ndarray:
    return 0.5 * _half(u * 1.1 / size + 0.25) + 0.5 * _half(t * 5 / size)


def _dots(u: np.ndarray, t: np.ndarray, size: float, side: int) -> np.ndarray:
    down, around = t * 5.5 / size, u * 1.2 / size
    around = around + 0.5 * (np.floor(down) % 2)
    return ((down % 1) - 0.5) ** 2 + ((around % 1) - 0.5) ** 2 < 0.1


def _camouflage(u: np.ndarray, t: np.ndarray, size: float, side: int) -> np.ndarray:
    waves = (
        np.sin(3.1 * u / size + 9 * t)
        + np.sin(14 * t / size - 2.3 * u + side)
        + np.sin(5 * u + 21 * t / size)
    )
    return 0.8 * (waves > 0.3)


# Share of the accent color, from (u, t, size, side) to [0, 1].
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]] = {
    "plain": lambda u, t, size, side: np.zeros_like(u),
    "hoops": lambda u, t, size, side: _half(t * 4.5 / size),
    "stripes": lambda u, t, size, side: _half(u * 1.6 / size + 0.25),
    "checks": _checks,
    "gradient": lambda u, t, size, side: np.clip((t - 0.15) * 1.5, 0, 1),
    "yoke": lambda u, t, size, side: t < 0.26 * size,
    "band": lambda u, t, size, side: np.abs(t - 0.42) < 0.11 * size,
    "dots": _dots,
    "logo": lambda u, t, size, side: (
        ((u - 0.35 * side) / 0.5) ** 2 + ((t - 0.32) / 0.14) ** 2 < size**2
    ),
    "print": lambda u, t, size, side: (
        (np.abs(wrap(u - np.pi)) < 0.75) & (np.abs(t - 0.38) < 0.17 * size)
    ),
    "open": lambda u, t, size, side: np.abs(u) < 0.42 * size,
    "side": lambda u, t, size, side: np.abs(np.abs(u) - np.pi / 2) < 0.5 * size,
    "fade": lambda u, t, size, side: 0.55 * np.exp(-(((t - 0.35) / 0.25) ** 2)) * (np.cos(u) > 0),
    "camouflage": _camouflage,
}
