"""The body of a synthetic figure: tapered, rounded parts in space.

Body axes: x to the left of the person, y forward, z up, in fractions of the height of the person;
the ground is at z = 0.
"""

from dataclasses import dataclass, replace

import numpy as np
from ember_reid.tools.quickstart_data.clothes import (
    bag_texture,
    face_texture,
    shoe_texture,
    sleeved_texture,
    strapped_texture,
    texture_span,
    trousers_texture,
)
from ember_reid.tools.quickstart_data.people import Person, Texture, garment_texture, plain

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """The posture of a person at one moment; angles in radians.

    Attributes:
        phase, stride: phase and amplitude of the step.
        arms: swing, phone, pockets or strap.
        side: which arm (-1 or 1), if the arms do not swing.
    """

    phase: float
    stride: float
    arms: str
    side: int


@dataclass(frozen=True)
class Part:
    """A tapered body part between two points.

    Attributes:
        profile: half widths from `top` to `end`.
        depth: ratio of the extent from front to back to the extent from side to side.
        nearer: added to the distance when parts are sorted by distance.
    """

    top: Vector
    end: Vector
    profile: tuple[float, ...]
    texture: Texture
    depth: float = 1.0
    nearer: float = 0.0
    round_ends: bool = True


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

    return replace(part, top=moved(part.top), end=moved(part.end))


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
            hip,
            knee,
            (0.062 * wide, 0.056 * wide, 0.05 * wide * loose),
            texture_span(cloth, 0.2, 0.6),
        )
        lower_leg = Part(
            knee,
            ankle,
            (0.047 * wide * loose, 0.042 * wide * loose, 0.037 * wide * loose),
            texture_span(cloth, 0.6, 1),
        )
    else:
        covered = 0.0 if person.lower_kind == "skirt" else 0.55 + 0.4 * (person.lower_width - 0.9)
        upper_leg = Part(
            hip,
            knee,
            (0.06 * wide, 0.054 * wide, 0.043 * wide),
            sleeved_texture(texture_span(cloth, 0.3, 1), skin, covered),
        )
        lower_leg = Part(knee, ankle, (0.04 * wide, 0.041 * wide, 0.025 * wide), skin)
    shoe = Part(
        (ankle[0], ankle[1] - 0.008, ankle[2] - 0.012),
        toe,
        (0.03, 0.028, 0.024),
        shoe_texture(person),
        nearer=0.01,
    )
    parts = [replace(upper_leg, nearer=-0.05), replace(lower_leg, nearer=-0.04), shoe]
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
    """Upper arm, forearm and hand of one side, and the position of the hand."""
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
    upper_arm = sleeved_texture(sleeve, skin, person.sleeve)
    forearm = sleeved_texture(sleeve, skin, person.sleeve - 1)
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
    return [replace(part, nearer=part.nearer + 0.02) for part in parts], hand


def _trunk(person: Person, pose: Pose) -> list[Part]:
    """Neck, torso, pelvis, skirt and hood."""
    wide = person.girth**0.8
    shoulder, hip = person.shoulder * person.girth**0.3, person.hip * wide
    waist = 0.5 * (shoulder + hip) * (0.80 + 0.25 * (person.girth - 0.84))
    flare = hip * (1.12 if person.hem > 0.4 else 1.3)
    # The profile below is for a hem at 0.45. For another hem, it is stretched by this factor.
    drop = (0.85 - person.hem) / 0.4
    heights = np.array([0, 0.05, 0.1, 0.2, 0.45 / drop, 0.75 / drop, 1.0])
    widths = [0.36 * shoulder, 0.74 * shoulder, 0.95 * shoulder, 0.96 * shoulder, waist, hip, flare]
    profile = tuple(float(width) for width in np.interp(np.linspace(0, 1, 21), heights, widths))
    cloth = strapped_texture(person, garment_texture(person.upper))
    flat = 0.6 + 0.25 * (person.girth - 0.84)
    parts = [
        Part((0, 0, 0.85), (0, 0, person.hem), profile, cloth, flat, 0.02, False),
        Part((0, 0, 0.88), (0, 0, 0.835), (0.032, 0.04), plain(person.skin), nearer=0.0),
        Part(
            (0, 0, person.leg + 0.06),
            (0, 0, person.leg - 0.01),
            (hip, hip),
            texture_span(trousers_texture(person), 0, 0.2),
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
                trousers_texture(person),
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
    center, radius = 0.926, 0.05 * person.head
    top, chin = (0.0, 0.004, center + 0.022), (0.0, 0.012, center - 0.026)
    skull = Part(top, chin, (radius, radius, 0.78 * radius), face_texture(person), 1.15, 0.04)
    return [skull, *_hair(person, center), *_hat(person, center, radius)]


def _hair(person: Person, center: float) -> list[Part]:
    hair, high, low = plain(person.hair), center + 0.01, center - 0.05
    tail_top, bun_top, bun_end = center + 0.015, center + 0.05, center + 0.045
    styles = {
        "long": Part((0, -0.016, high), (0, -0.04, 0.79), (0.052, 0.056, 0.05), hair, 0.6),
        "bob": Part((0, -0.01, high), (0, -0.016, low), (0.054, 0.058), hair, 0.85),
        "tail": Part((0, -0.055, tail_top), (0, -0.07, 0.81), (0.024, 0.018), hair),
    }
    if person.hat == "none":
        bun = Part((0, -0.04, bun_top), (0, -0.042, bun_end), (0.027, 0.027), hair, 1.0, 0.05)
        styles["bun"] = bun
    return [styles[person.hair_style]] if person.hair_style in styles else []


def _hat(person: Person, center: float, radius: float) -> list[Part]:
    cloth, dome, wide = plain(person.hat_color), 0.97 * radius, 1.12 * radius
    base, brim, peak = center + 0.034, center + 0.022, center + 0.026
    if person.hat == "cap":
        return [Part((0, 0.03, base), (0, 0.085, peak), (0.02, 0.024), cloth, 1.0, 0.06)]
    if person.hat == "brim":
        return [
            Part((0, 0, base), (0, 0, brim), (0.085, 0.09), cloth, 1.0, 0.07, False),
            Part((0, 0, center + 0.06), (0, 0, base), (dome, dome), cloth, 1.0, 0.08, False),
        ]
    if person.hat == "beanie":
        # A dome behind the head; the texture of the face draws its front.
        top, end = (0, -0.002, center + 0.04), (0, -0.004, center + 0.03)
        return [Part(top, end, (wide, wide), cloth, 1.1)]
    return []


def _bag(person: Person, hand: Vector) -> list[Part]:
    side, cloth = person.bag_side, bag_texture(person.bag_color)
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
