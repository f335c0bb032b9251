"""Stronger augmentations of uint8 batches: AutoAugment, AugMix, random patches, cutout, affine.

N images, 3 channels, H x W pixels, uint8 in and out; the input is left as it is. Everything random comes from the CPU
generator that is passed in, so a CPU and a GPU augment alike. Each function touches the chosen images only; with the
usual probabilities of 0.1 to 0.5 they cost less than decoding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ember_reid.data.batch import upload
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

_GRAY = 128


def _warp(
    image: Tensor, rows: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> Tensor:
    """uint8 [3, H, W] seen through (x, y) -> rows @ (x, y, 1), in pixels from the center; bilinear, gray beyond the border.

    The same as torchvision's affine, whose matrix the host copies to a GPU and waits for.
    """
    height, width = image.shape[-2:]
    (a, b, x), (c, d, y) = rows
    matrix = torch.tensor(
        [[[a, b * height / width, 2 * x / width], [c * width / height, d, 2 * y / height]]]
    )
    grid = F.affine_grid(upload(matrix, image.device), [1, 4, height, width], align_corners=False)
    pixels = torch.cat([image, torch.ones_like(image[:1])])[None].float()
    pixels, inside = F.grid_sample(pixels, grid, align_corners=False)[0].split([3, 1])
    return (_GRAY + inside * (pixels - _GRAY)).round().clamp(0, 255).to(torch.uint8)


def _rotate(image: Tensor, degrees: float) -> Tensor:
    """Counter-clockwise about the center."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(image, ((cos, -sin, 0.0), (sin, cos, 0.0)))


def _shear_x(image: Tensor, slope: float) -> Tensor:
    return _warp(image, ((1.0, slope, slope * image.shape[-2] / 2), (0.0, 1.0, 0.0)))


def _shear_y(image: Tensor, slope: float) -> Tensor:
    return _warp(image, ((1.0, 0.0, 0.0), (slope, 1.0, slope * image.shape[-1] / 2)))


def _shift_x(image: Tensor, part: float) -> Tensor:
    return _shift(image, round(part * image.shape[-1]), dim=-1)


def _shift_y(image: Tensor, part: float) -> Tensor:
    return _shift(image, round(part * image.shape[-2]), dim=-2)


def _shift(image: Tensor, pixels: int, *, dim: int) -> Tensor:
    """Moved to the right or downwards by whole pixels; gray comes in."""
    size = image.shape[dim]
    out = torch.full_like(image, _GRAY)
    kept = max(size - abs(pixels), 0)
    out.narrow(dim, min(max(pixels, 0), size), kept).copy_(
        image.narrow(dim, min(max(-pixels, 0), size), kept)
    )
    return out


def _sharpen(image: Tensor, factor: float) -> Tensor:
    """Away from the image blurred with 3 x 3 ones and a 5 in the middle, as Pillow does; the border stays."""
    inner = image[:, 1:-1, 1:-1].float()
    blurred = ((9 * F.avg_pool2d(image.float(), 3, stride=1) + 4 * inner) / 13).round()
    out = image.clone()
    out[:, 1:-1, 1:-1] = (factor * inner + (1 - factor) * blurred).clamp(0, 255).to(torch.uint8)
    return out


@dataclass(frozen=True)
class Operation:
    """What one word of a policy does to an image uint8 [3, H, W].

    Attributes:
        apply: (image, strength) -> image.
        strength: of a level in 0..10.
        signed: the strength's sign is drawn.
    """

    apply: Callable[[Tensor, float], Tensor]
    strength: Callable[[float], float] = lambda level: 0.0
    signed: bool = False


def _enhancement(level: float) -> float:
    return 0.18 * level + 0.1


# The magnitudes of AutoAugment (Cubuk et al. 2019, table 6), as the ReID policy uses them.
OPERATIONS: dict[str, Operation] = {
    "posterize": Operation(
        lambda image, bits: TF.posterize(image, int(bits)), lambda level: int(0.4 * level) + 4
    ),
    "solarize": Operation(
        lambda image, bound: TF.solarize(image, min(bound, 255)), lambda level: int(25.6 * level)
    ),
    "rotate": Operation(_rotate, lambda level: 3.0 * level, signed=True),
    "shear_x": Operation(_shear_x, lambda level: 0.03 * level, signed=True),
    "shear_y": Operation(_shear_y, lambda level: 0.03 * level, signed=True),
    "shift_x": Operation(_shift_x, lambda level: 0.033 * level, signed=True),
    "shift_y": Operation(_shift_y, lambda level: 0.033 * level, signed=True),
    "color": Operation(TF.adjust_saturation, _enhancement),
    "contrast": Operation(TF.adjust_contrast, _enhancement),
    "sharpness": Operation(_sharpen, _enhancement),
    "equalize": Operation(lambda image, _: TF.equalize(image)),
    "autocontrast": Operation(lambda image, _: TF.autocontrast(image)),
    "invert": Operation(lambda image, _: TF.invert(image)),
}

Step = tuple[str, float, float]  # operation, probability, level

# The 25 pairs of the ReID policy (AutoAugment's for ImageNet); equal ones are there to be drawn more often.
AUTO_AUGMENT: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

_AUGMIX = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "shift_x",
    "shift_y",
)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _choose(num: int, prob: float, generator: torch.Generator) -> list[int]:
    return (torch.rand(num, generator=generator) < prob).nonzero().flatten().tolist()


def _operate(image: Tensor, name: str, level: float, generator: torch.Generator) -> Tensor:
    operation = OPERATIONS[name]
    strength = operation.strength(level)
    if operation.signed and _uniform(generator) < 0.5:
        strength = -strength
    return operation.apply(image, strength)


def auto_augment(images: Tensor, prob: float, generator: torch.Generator) -> Tensor:
    """Each image, with `prob`, through one of the 25 pairs of AUTO_AUGMENT, both steps with their probabilities."""
    out = images.clone()
    for i in _choose(len(images), prob, generator):
        pair = AUTO_AUGMENT[int(torch.randint(len(AUTO_AUGMENT), (), generator=generator))]
        for name, chance, level in pair:
            if _uniform(generator) < chance:
                out[i] = _operate(out[i], name, level, generator)
    return out


def aug_mix(
    images: Tensor,
    prob: float,
    generator: torch.Generator,
    *,
    width: int = 3,
    severity: float = 3.0,
) -> Tensor:
    """AugMix (Hendrycks et al. 2020, algorithm 1, without its consistency loss): each image, with `prob`.

    `width` chains of one to three operations of levels up to `severity` (in 0..10) are mixed with weights from a flat
    Dirichlet distribution, and the mixture with the image by a uniform weight.
    """
    out = images.clone()
    for i in _choose(len(images), prob, generator):
        weights = (
            -torch.rand(width, generator=generator).clamp(min=1e-7).log()
        )  # exponential: flat when normalized
        weights = (weights / weights.sum()).tolist()
        mixed = torch.zeros(images.shape[1:], device=images.device)
        for weight in weights:
            chain = images[i]
            for _ in range(int(torch.randint(1, 4, (), generator=generator))):
                name = _AUGMIX[int(torch.randint(len(_AUGMIX), (), generator=generator))]
                chain = _operate(chain, name, _uniform(generator, 0.1, severity), generator)
            mixed += weight * chain.float()
        share = _uniform(generator)
        out[i] = (
            ((1 - share) * images[i].float() + share * mixed).round().clamp(0, 255).to(torch.uint8)
        )
    return out


def _draw_box(
    size: tuple[int, int], area: tuple[float, float], generator: torch.Generator
) -> tuple[int, ...]:
    """(top, bottom, left, right) of a box with a part of the image's area and an aspect ratio in 0.3..3.3."""
    height, width = size
    pixels = _uniform(generator, *area) * height * width
    aspect = math.exp(_uniform(generator, math.log(0.3), math.log(1 / 0.3)))
    h = min(max(round(math.sqrt(pixels * aspect)), 1), height)
    w = min(max(round(math.sqrt(pixels / aspect)), 1), width)
    top = int(_uniform(generator) * (height - h + 1))
    left = int(_uniform(generator) * (width - w + 1))
    return top, top + h, left, left + w


def random_patch(
    images: Tensor,
    prob: float,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.01, 0.5),
) -> Tensor:
    """Each image, with `prob`, gets a box of another image of the batch at the same place (Zhou et al. 2021).

    The published program collects boxes of earlier images; another image of the batch needs no memory of them.
    """
    out = images.clone()
    if len(images) < 2:
        return out
    for i in _choose(len(images), prob, generator):
        other = (i + 1 + int(torch.randint(len(images) - 1, (), generator=generator))) % len(images)
        top, bottom, left, right = _draw_box(tuple(images.shape[-2:]), area, generator)
        out[i, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    return out


def cutout(images: Tensor, prob: float, generator: torch.Generator, *, side: float = 0.5) -> Tensor:
    """Each image, with `prob`, loses a square to mid-gray (DeVries and Taylor 2017).

    Its center is anywhere in the image, so it may hang over the border; `side` is a part of the image's width.
    """
    height, width = images.shape[-2:]
    half = max(round(side * width / 2), 1)
    out = images.clone()
    for i in _choose(len(images), prob, generator):
        y, x = int(_uniform(generator) * height), int(_uniform(generator) * width)
        out[i, :, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = _GRAY
    return out


def random_affine(
    images: Tensor,
    prob: float,
    generator: torch.Generator,
    *,
    degrees: float = 10.0,
    scale: tuple[float, float] = (0.9, 1.1),
    shear: float = 0.1,
) -> Tensor:
    """Each image, with `prob`, rotated by up to `degrees`, scaled and sheared (a slope), black beyond the border."""
    num, _, height, width = images.shape
    draws = torch.rand(num, 3, generator=generator)
    chosen = _choose(num, prob, generator)
    if not chosen:
        return images.clone()
    angle = torch.deg2rad(degrees * (2 * draws[chosen, 0] - 1))
    zoom = 1 / (scale[0] + (scale[1] - scale[0]) * draws[chosen, 1])
    slope = shear * (2 * draws[chosen, 2] - 1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    ratio = height / width  # affine_grid counts in half heights and half widths
    rows = torch.stack([cos, (slope * cos - sin) * ratio, sin / ratio, slope * sin + cos], dim=1)
    matrix = upload(F.pad(rows.view(-1, 2, 2), (0, 1)), images.device)  # [M, 2, 3], no shift
    where = upload(torch.tensor(chosen), images.device)
    pixels = images[where].float()
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    out = images.clone()
    out[where] = F.grid_sample(pixels, grid, align_corners=False).round().to(torch.uint8)
    return out
