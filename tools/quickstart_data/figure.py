"""The figure of the quickstart data: a jointed body in space, projected and shaded as tapered, rounded parts.

Body axes: x to the person's left, y forward, z up, in fractions of the person's height, the ground at z = 0.
A camera that the person faces has yaw 0; at yaw pi it sees the back. Pictures are float32, premultiplied RGBA
[h, w, 4].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ember_reid.tools.quickstart_data.people import (
    Color,
    Person,
    Texture,
    garment_texture,
    plain,
    wrap,
)

Vector = tuple[float, float, float]
DARK: Color = (0.08, 0.07, 0.07)


class Pose(NamedTuple):
    """What a person does at one moment; angles in radians."""

    phase: float  # of the step
    stride: float
    arms: str  # swing, phone, pockets or strap
    side: int  # which arm, for arms that do not swing


class View(NamedTuple):
    """How a figure appears in the picture."""

    yaw: float
    tilt: float  # looking down by this angle
    roll: float
    pixels: float  # pixels per unit of body height
    x: float  # where the ground point between the feet is, pixels
    y: float
    light: Vector  # direction to the light: right, up, toward the camera
    ambient: float


class Part(NamedTuple):
    """A tapered part between two points; `profile` gives half widths along the way, `depth` front to back
    over side to side.
    """

    top: Vector
    end: Vector
    profile: tuple[float, ...]
    texture: Texture
    depth: float = 1.0
    nearer: float = 0.0  # added to the distance when parts are put in order
    round_ends: bool = True


def draw_figure(shape: tuple[int, int], person: Person, pose: Pose, view: View) -> np.ndarray:
    """The person alone on a transparent ground: float32 premultiplied RGBA [h, w, 4]."""
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
    """Pixel position (column, row) of a point of the body, with a mild perspective: what is higher is nearer
    when tilted.
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
    """Draws one part over `canvas` [h, w, 4] in place, with a soft edge and light from one side."""
    height, width = canvas.shape[:2]
    start, stop = project(part.top, view), project(part.end, view)
    # An ellipse with half axes (1, depth), seen under yaw: its half width, and by how much the surface is
    # turned.
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


def build_parts(person: Person, pose: Pose) -> list[Part]:
    """The body in space, feet on the ground."""
    legs = [_leg(person, pose, side) for side in (-1, 1)]
    ground = min(foot for _, foot in legs)
    parts = [part for leg, _ in legs for part in leg]
    hands: dict[int, Vector] = {}
    for side in (-1, 1):
        arm, hands[side] = _arm(person, pose, side)
        parts += arm
    parts += _trunk(person, pose) + _head(person) + _bag(person, hands[person.bag_side])
    return [_lean(part, person, ground) for part in parts]


def _lean(part: Part, person: Person, ground: float) -> Part:
    def moved(point: Vector) -> Vector:
        x, y, z = point
        return x, y + np.tan(person.stoop) * max(z - person.leg, 0), z - ground

    return part._replace(top=moved(part.top), end=moved(part.end))


def _leg(person: Person, pose: Pose, side: int) -> tuple[list[Part], float]:
    """Thigh, shin and shoe of one leg, and the height of its sole."""
    phase = pose.phase + (np.pi if side > 0 else 0)
    swing = pose.stride * np.sin(phase)
    bend = pose.stride * 1.5 * max(0.0, np.cos(phase)) + 0.05
    thigh, shin = 0.49 * person.leg, 0.43 * person.leg
    hip = (0.52 * side * person.hip, 0.0, person.leg)
    knee = (hip[0], thigh * np.sin(swing), hip[2] - thigh * np.cos(swing))
    ankle = (knee[0], knee[1] + shin * np.sin(swing - bend), knee[2] - shin * np.cos(swing - bend))
    toe = (
        ankle[0] + 0.012 * side,
        ankle[1] + 0.085,
        ankle[2] - 0.022 - 0.04 * np.sin(max(bend - 0.3, 0)),
    )
    wide = 0.85 * person.girth**0.7
    cloth, skin = garment_texture(person.lower), plain(person.skin)
    if person.lower_kind == "trousers":
        loose = person.lower_width
        upper_leg = Part(
            hip, knee, (0.062 * wide, 0.056 * wide, 0.05 * wide * loose), _span(cloth, 0.2, 0.6)
        )
        lower_leg = Part(
            knee,
            ankle,
            (0.047 * wide * loose, 0.042 * wide * loose, 0.037 * wide * loose),
            _span(cloth, 0.6, 1),
        )
    else:
        covered = 0.0 if person.lower_kind == "skirt" else 0.55 + 0.4 * (person.lower_width - 0.9)
        upper_leg = Part(
            hip,
            knee,
            (0.06 * wide, 0.054 * wide, 0.043 * wide),
            _sleeved(_span(cloth, 0.3, 1), skin, covered),
        )
        lower_leg = Part(knee, ankle, (0.04 * wide, 0.041 * wide, 0.025 * wide), skin)
    shoe = Part(
        (ankle[0], ankle[1] - 0.008, ankle[2] - 0.012),
        toe,
        (0.03, 0.028, 0.024),
        _shoe(person),
        nearer=0.01,
    )
    parts = [upper_leg._replace(nearer=-0.05), lower_leg._replace(nearer=-0.04), shoe]
    if person.lower_kind == "shorts":
        middle = tuple(a + 0.75 * (b - a) for a, b in zip(hip, knee, strict=True))
        parts.append(
            Part(
                hip,
                middle,
                (0.064 * wide, 0.062 * wide, 0.063 * wide),
                cloth,
                nearer=-0.03,
                round_ends=False,
            )
        )
    return parts, min(ankle[2], toe[2]) - 0.03


def _arm(person: Person, pose: Pose, side: int) -> tuple[list[Part], Vector]:
    """Upper arm, forearm and hand of one side, and where the hand is."""
    swing = -0.8 * pose.stride * np.sin(pose.phase + (np.pi if side > 0 else 0))
    bend, spread = 0.25 + 0.3 * max(swing, 0), 0.12
    if side == person.bag_side and person.bag in ("shopper", "handbag"):
        swing, bend, spread = 0.3 * swing, 0.1, 0.16
    elif side == pose.side and pose.arms == "phone":
        swing, bend, spread = 0.35, 1.9, 0.15
    elif pose.arms == "pockets":
        swing, bend, spread = -0.25, 0.75, 0.3
    elif side == pose.side and pose.arms == "strap":
        swing, bend, spread = 0.1, 2.35, 0.25
    shoulder = (side * (person.shoulder - 0.014) * person.girth**0.3, 0.0, 0.785)
    elbow = (
        shoulder[0] + side * 0.165 * np.sin(spread),
        0.165 * np.sin(swing),
        shoulder[2] - 0.165 * np.cos(swing) * np.cos(spread),
    )
    inward = -0.06 if pose.arms in ("pockets", "phone") else 0.0
    hand = (
        elbow[0] + side * inward,
        elbow[1] + 0.145 * np.sin(swing + bend),
        elbow[2] - 0.145 * np.cos(swing + bend),
    )
    wide = 0.88 * person.girth**0.6
    loose = 1.15 if person.sleeve == 2.0 else 0.95
    sleeve, skin = plain(person.sleeve_color), plain(person.skin)
    if person.upper.pattern in ("hoops", "checks", "camouflage", "dots"):
        sleeve = garment_texture(person.upper)
    upper_arm = _sleeved(sleeve, skin, person.sleeve)
    forearm = _sleeved(sleeve, skin, person.sleeve - 1)
    parts = [
        Part(
            shoulder,
            elbow,
            (0.037 * wide * loose, 0.038 * wide * loose, 0.034 * wide * loose),
            upper_arm,
        ),
        Part(
            elbow,
            hand,
            (0.034 * wide * loose, 0.032 * wide * loose, 0.024 * wide * loose),
            forearm,
            nearer=0.01,
        ),
        Part(hand, (hand[0], hand[1] + 0.006, hand[2] - 0.022), (0.021, 0.017), skin, nearer=0.01),
    ]
    return [part._replace(nearer=part.nearer + 0.02) for part in parts], hand


def _trunk(person: Person, pose: Pose) -> list[Part]:
    """Neck, torso, pelvis, skirt and hood."""
    wide = person.girth**0.8
    shoulder, hip = person.shoulder * person.girth**0.3, person.hip * wide
    waist = 0.5 * (shoulder + hip) * (0.80 + 0.25 * (person.girth - 0.84))
    flare = hip * (1.12 if person.hem > 0.4 else 1.3)
    drop = (
        0.85 - person.hem
    ) / 0.4  # how far the profile below, made for a hem at 0.45, is stretched
    heights = np.array([0, 0.05, 0.1, 0.2, 0.45 / drop, 0.75 / drop, 1.0])
    widths = [0.36 * shoulder, 0.74 * shoulder, 0.95 * shoulder, 0.96 * shoulder, waist, hip, flare]
    profile = tuple(float(width) for width in np.interp(np.linspace(0, 1, 21), heights, widths))
    cloth = _straps(person, garment_texture(person.upper))
    flat = 0.6 + 0.25 * (person.girth - 0.84)
    parts = [
        Part((0, 0, 0.85), (0, 0, person.hem), profile, cloth, flat, 0.02, False),
        Part((0, 0, 0.88), (0, 0, 0.835), (0.032, 0.04), plain(person.skin), nearer=0.0),
        Part(
            (0, 0, person.leg + 0.06),
            (0, 0, person.leg - 0.01),
            (hip, hip),
            _span(_lower(person), 0, 0.2),
            0.68,
        ),
    ]
    if person.lower_kind == "skirt":
        end = 0.18 + 0.2 * (1.35 - person.lower_width) / 0.45
        sway = 0.02 * np.sin(pose.phase)
        spread = hip * (1.05 + 0.4 * person.lower_width)
        parts.append(
            Part(
                (0, 0, person.leg + 0.03),
                (0, sway, end),
                (hip, spread),
                _lower(person),
                0.75,
                0.01,
                False,
            )
        )
    if person.hood:
        parts.append(
            Part(
                (0, -0.045, 0.865),
                (0, -0.06, 0.79),
                (0.06, 0.062),
                plain(person.sleeve_color),
                0.6,
                0.01,
            )
        )
    return parts


def _head(person: Person) -> list[Part]:
    size = person.head
    center, radius = 0.926, 0.05 * size
    top, chin = (0.0, 0.004, center + 0.022), (0.0, 0.012, center - 0.026)
    parts = [
        Part(top, chin, (radius, 1.0 * radius, 0.78 * radius), _face(person), 1.15, 0.04),
    ]
    hair = plain(person.hair)
    if person.hair_style == "long":
        parts.append(
            Part((0, -0.016, center + 0.01), (0, -0.04, 0.79), (0.052, 0.056, 0.05), hair, 0.6, 0.0)
        )
    elif person.hair_style == "bob":
        parts.append(
            Part(
                (0, -0.01, center + 0.01),
                (0, -0.016, center - 0.05),
                (0.054, 0.058),
                hair,
                0.85,
                0.0,
            )
        )
    elif person.hair_style == "tail":
        parts.append(
            Part((0, -0.055, center + 0.015), (0, -0.07, 0.81), (0.024, 0.018), hair, 1.0, 0.0)
        )
    elif person.hair_style == "bun" and person.hat == "none":
        parts.append(
            Part(
                (0, -0.04, center + 0.05),
                (0, -0.042, center + 0.045),
                (0.027, 0.027),
                hair,
                1.0,
                0.05,
            )
        )
    cloth, dome = plain(person.hat_color), 0.97 * radius
    if person.hat == "cap":
        parts.append(
            Part(
                (0, 0.03, center + 0.034),
                (0, 0.085, center + 0.026),
                (0.02, 0.024),
                cloth,
                1.0,
                0.06,
            )
        )
    elif person.hat == "brim":
        parts.append(
            Part(
                (0, 0, center + 0.034),
                (0, 0, center + 0.022),
                (0.085, 0.09),
                cloth,
                1.0,
                0.07,
                False,
            )
        )
        parts.append(
            Part(
                (0, 0, center + 0.06), (0, 0, center + 0.034), (dome, dome), cloth, 1.0, 0.08, False
            )
        )
    elif person.hat == "beanie":  # a dome behind the head; the face's texture draws the front of it
        wide = 1.12 * radius
        parts.append(
            Part(
                (0, -0.002, center + 0.04),
                (0, -0.004, center + 0.03),
                (wide, wide),
                cloth,
                1.1,
                0.0,
            )
        )
    return parts


def _bag(person: Person, hand: Vector) -> list[Part]:
    side, cloth = person.bag_side, _bag_texture(person.bag_color)
    if person.bag == "backpack":
        profile = (0.05, 0.085, 0.094, 0.098, 0.1, 0.096)
        return [Part((0, -0.115, 0.815), (0, -0.125, 0.565), profile, cloth, 0.6, 0.02, False)]
    if person.bag == "messenger":
        x = side * (person.hip * person.girth**0.8 + 0.035)
        return [Part((x, -0.01, 0.53), (x, -0.01, 0.43), (0.036, 0.036), cloth, 2.2, 0.05, False)]
    if person.bag == "shopper":
        x, y, z = hand
        return [Part((x, y, z - 0.05), (x, y, z - 0.2), (0.036, 0.036), cloth, 2.0, 0.03, False)]
    if person.bag == "handbag":
        x = side * (person.shoulder + 0.03)
        return [Part((x, -0.02, 0.66), (x, -0.02, 0.57), (0.03, 0.032), cloth, 2.0, 0.05, False)]
    return []


def _lower(person: Person) -> Texture:
    return garment_texture(person.lower)


def _span(texture: Texture, start: float, stop: float) -> Texture:
    """The stretch [start, stop] of a garment that runs over several parts."""
    return lambda u, t: texture(u, start + (stop - start) * t)


def _sleeved(cloth: Texture, skin: Texture, covered: float) -> Texture:
    """Cloth down to `covered` of the part's length, skin below."""
    if covered >= 1:
        return cloth
    if covered <= 0:
        return skin
    return lambda u, t: np.where((t < covered)[..., None], cloth(u, t), skin(u, t))


def _straps(person: Person, cloth: Texture) -> Texture:
    """The bag's straps on the torso."""
    where: Callable[[np.ndarray, np.ndarray], np.ndarray]
    if person.bag == "backpack":
        where = lambda u, t: (np.abs(np.abs(u) - 0.62) < 0.13) & (t < 0.62)  # noqa: E731
    elif person.bag == "messenger":
        slope = person.bag_side * 1.0
        where = lambda u, t: np.abs(t - 0.42 - 0.42 * np.sin(wrap(u)) * slope) < 0.05  # noqa: E731
    elif person.bag == "handbag":
        where = lambda u, t: (np.abs(u - person.bag_side * 0.85) < 0.12) & (t < 0.5)  # noqa: E731
    else:
        return cloth
    strap = 0.8 * np.asarray(person.bag_color, dtype=np.float32)

    def texture(u: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.where(where(wrap(u), t)[..., None], strap, cloth(u, t))

    return texture


def _bag_texture(color: Color) -> Texture:
    light, dark = np.asarray(color, dtype=np.float32), 0.6 * np.asarray(color, dtype=np.float32)
    return lambda u, t: np.where(((np.abs(t - 0.55) < 0.05) | (t > 0.94))[..., None], dark, light)


def _shoe(person: Person) -> Texture:
    leather, sole = (
        np.asarray(person.shoe, dtype=np.float32),
        np.asarray(person.sole, dtype=np.float32),
    )
    return lambda u, t: np.where((t > 0.82)[..., None], sole, leather)


def _face(person: Person) -> Texture:
    """Skin with brows, eyes and mouth in front, hair or hat around."""
    skin, hair = (
        np.asarray(person.skin, dtype=np.float32),
        np.asarray(person.hair, dtype=np.float32),
    )
    hat = np.asarray(person.hat_color, dtype=np.float32)
    line = {"bald": -1.0, "crop": 0.1}.get(person.hair_style, 0.22)
    behind = {"bald": 4.0, "crop": 1.45, "short": 1.2}.get(person.hair_style, 0.95)

    def texture(u: np.ndarray, t: np.ndarray) -> np.ndarray:
        u = wrap(u)
        front = np.abs(u)
        color = np.broadcast_to(skin, (*u.shape, 3))
        color = np.where(
            ((np.abs(front - 0.4) < 0.17) & (np.abs(t - 0.45) < 0.08))[..., None],
            0.35 * skin,
            color,
        )
        color = np.where(((front < 0.3) & (np.abs(t - 0.92) < 0.05))[..., None], 0.6 * skin, color)
        if person.beard:
            color = np.where(
                ((front < 1.1) & (t > 0.8))[..., None], 0.6 * hair + 0.25 * skin, color
            )
        color = np.where((((t < line) | (front > behind)) & (t < 0.97))[..., None], hair, color)
        if person.hat != "none":
            color = np.where(
                (t < (0.34 if person.hat == "beanie" else 0.24))[..., None], hat, color
            )
        return color

    return texture
