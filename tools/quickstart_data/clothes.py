"""Textures of clothes, shoes, bags and faces of the synthetic figures."""

from collections.abc import Callable

import numpy as np
from ember_reid.tools.quickstart_data.people import (
    Color,
    Person,
    Texture,
    garment_texture,
    wrap,
)

DARK: Color = (0.08, 0.07, 0.07)


def trousers_texture(person: Person) -> Texture:
    return garment_texture(person.lower)


def texture_span(texture: Texture, start: float, stop: float) -> Texture:
    """The section [start, stop] of a garment that covers several body parts."""
    return lambda u, t: texture(u, start + (stop - start) * t)


def sleeved_texture(cloth: Texture, skin: Texture, covered: float) -> Texture:
    """Cloth down to the fraction `covered` of the length of the part, skin below."""
    if covered >= 1:
        return cloth
    if covered <= 0:
        return skin
    return lambda u, t: np.where((t < covered)[..., None], cloth(u, t), skin(u, t))


def strapped_texture(person: Person, cloth: Texture) -> Texture:
    """The straps of the bag on the torso."""
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


def bag_texture(color: Color) -> Texture:
    light, dark = np.asarray(color, dtype=np.float32), 0.6 * np.asarray(color, dtype=np.float32)
    return lambda u, t: np.where(((np.abs(t - 0.55) < 0.05) | (t > 0.94))[..., None], dark, light)


def shoe_texture(person: Person) -> Texture:
    leather, sole = (
        np.asarray(person.shoe, dtype=np.float32),
        np.asarray(person.sole, dtype=np.float32),
    )
    return lambda u, t: np.where((t > 0.82)[..., None], sole, leather)


def face_texture(person: Person) -> Texture:
    """Skin with eyebrows, eyes and mouth in front, surrounded by hair or a hat."""
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
