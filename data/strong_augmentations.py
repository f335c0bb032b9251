"""Stronger augmentations of uint8 batches: AutoAugment, AugMix, random patches, affine.

Images are uint8 [N, 3, H, W] in and out; the input is not changed. All random numbers come from the
CPU generator that is passed in, so CPU and GPU augment in the same way. Each function processes
only the chosen images; with the usual probabilities of 0.1 to 0.5 this costs less than decoding.
`prob` is one probability, or a CPU tensor [N] with one per image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ember_reid.data.dataset import upload
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

_GRAY = 128


def _warp(
    image: Tensor, rows: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> Tensor:
    """Sample uint8 [3, H, W] at (x, y) -> rows @ (x, y, 1), in pixels from the center.

    Bilinear; pixels outside of the image are gray. torchvision's affine gives the same result, but
    waits until its matrix has been copied to the GPU.
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
    """Rotate counter-clockwise about the center."""
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
    """Shift to the right or downwards by whole pixels; the uncovered pixels are gray."""
    size = image.shape[dim]
    out = torch.full_like(image, _GRAY)
    kept = max(size - abs(pixels), 0)
    out.narrow(dim, min(max(pixels, 0), size), kept).copy_(
        image.narrow(dim, min(max(-pixels, 0), size), kept)
    )
    return out


def _sharpen(image: Tensor, factor: float) -> Tensor:
    """Extrapolate from the image blurred with 3 x 3 ones and a 5 in the middle, as Pillow does.

    The outermost pixels do not change.
    """
    inner = image[:, 1:-1, 1:-1].float()
    blurred = ((9 * F.avg_pool2d(image.float(), 3, stride=1) + 4 * inner) / 13).round()
    out = image.clone()
    out[:, 1:-1, 1:-1] = (factor * inner + (1 - factor) * blurred).clamp(0, 255).to(torch.uint8)
    return out


@dataclass(frozen=True)
class Operation:
    """One operation of a policy on an image uint8 [3, H, W].

    Attributes:
        apply: (image, strength) -> image.
        strength: level in 0..10 -> strength.
        signed: whether the sign of the strength is random.
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

# Operation, probability, level.
Step = tuple[str, float, float]

# The 25 pairs of AutoAugment's ImageNet policy. Some pairs occur twice and so are drawn more often.
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


def _choose(num: int, prob: float | Tensor, generator: torch.Generator) -> list[int]:
    return (torch.rand(num, generator=generator) < prob).nonzero().flatten().tolist()


def _operate(image: Tensor, name: str, level: float, generator: torch.Generator) -> Tensor:
    operation = OPERATIONS[name]
    strength = operation.strength(level)
    if operation.signed and _uniform(generator) < 0.5:
        strength = -strength
    return operation.apply(image, strength)


def auto_augment(images: Tensor, prob: float | Tensor, generator: torch.Generator) -> Tensor:
    """Apply one of the 25 pairs of AUTO_AUGMENT to each image with `prob`.

    Both steps of the pair have their own probabilities (Cubuk et al. 2019, arXiv 1805.09501).
    """
    out = images.clone()
    for i in _choose(len(images), prob, generator):
        pair = AUTO_AUGMENT[int(torch.randint(len(AUTO_AUGMENT), (), generator=generator))]
        for name, chance, level in pair:
            if _uniform(generator) < chance:
                out[i] = _operate(out[i], name, level, generator)
    return out


def aug_mix(
    images: Tensor,
    prob: float | Tensor,
    generator: torch.Generator,
    *,
    width: int = 3,
    severity: float = 3.0,
) -> Tensor:
    """AugMix (Hendrycks et al. 2020, algorithm 1, without its consistency loss) with `prob`.

    `width` chains of one to three operations with levels up to `severity` (in 0..10) are mixed with
    weights from a flat Dirichlet distribution. The mixture and the image are mixed with a uniform
    weight.
    """
    out = images.clone()
    for i in _choose(len(images), prob, generator):
        # Exponential variates: flat Dirichlet when normalized.
        variates = -torch.rand(width, generator=generator).clamp(min=1e-7).log()
        weights = (variates / variates.sum()).tolist()
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
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a random box.

    `area` is the range of its fraction of the image; its aspect ratio is in 0.3..3.3.
    """
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
    prob: float | Tensor,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.01, 0.5),
) -> Tensor:
    """Copy a box of another image of the batch to the same place, with `prob` (Zhou et al. 2021).

    Departure: the published program stores boxes of earlier images and pastes one of them.
    """
    out = images.clone()
    if len(images) < 2:
        return out
    for i in _choose(len(images), prob, generator):
        other = (i + 1 + int(torch.randint(len(images) - 1, (), generator=generator))) % len(images)
        top, bottom, left, right = _draw_box((images.shape[-2], images.shape[-1]), area, generator)
        out[i, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    return out


def random_affine(
    images: Tensor,
    prob: float | Tensor,
    generator: torch.Generator,
    *,
    degrees: float = 10.0,
    scale: tuple[float, float] = (0.9, 1.1),
    shear: float = 0.1,
) -> Tensor:
    """Rotate by up to `degrees`, scale, and shear by up to the slope `shear`, with `prob`.

    Pixels outside of the image are black.
    """
    num, _, height, width = images.shape
    draws = torch.rand(num, 3, generator=generator)
    chosen = _choose(num, prob, generator)
    if not chosen:
        return images.clone()
    angle = torch.deg2rad(degrees * (2 * draws[chosen, 0] - 1))
    zoom = 1 / (scale[0] + (scale[1] - scale[0]) * draws[chosen, 1])
    slope = shear * (2 * draws[chosen, 2] - 1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # affine_grid has half heights and half widths as units.
    ratio = height / width
    rows = torch.stack([cos, (slope * cos - sin) * ratio, sin / ratio, slope * sin + cos], dim=1)
    # [M, 2, 3], no shift
    matrix = upload(F.pad(rows.view(-1, 2, 2), (0, 1)), images.device)
    where = upload(torch.tensor(chosen), images.device)
    pixels = images[where].float()
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    out = images.clone()
    out[where] = F.grid_sample(pixels, grid, align_corners=False).round().to(torch.uint8)
    return out


def decayed_probs(prob: float, decay: int, first: int, num: int) -> Tensor:
    """The probabilities prob * (1 - 1 / decay)^n of the images n = first .. first + num - 1.

    FastReID 2020 (commit 64861ea, autoaugment.py:499-505) augments with probability 1 - g and adds
    1 / T to g each time it does. The expectation of 1 - g after n images is (1 - 1 / T)^n. Every
    loader process counts on its own there, so `decay` is T x the number of its processes.

    Returns:
        float64 [num], on the CPU.
    """
    numbers = torch.arange(first, first + num, dtype=torch.float64)
    return prob * (1 - 1 / decay) ** numbers
