"""The settings of the augmentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentationSettings:
    """What the augmentation does; 0 switches a probability off.

    Attributes:
        flip_prob: of a horizontal flip.
        padding: black pixels around the image before the random crop.
        erase_prob: of erasing a rectangle.
        erase_aspect: smallest and largest height / width of the rectangle.
        erase_fill: RGB value of erased pixels after normalization. 0 is the pixel mean; the strong
            baseline uses the values of the mean itself, (0.485, 0.456, 0.406).
        jitter_prob: of the color jitter.
        jitter: strengths of brightness, contrast, saturation and hue.
        autoaug_prob: of AutoAugment.
        autoaug_decay: images after which AutoAugment's probability has fallen to 1/e, see
            `strong_augmentations.decayed_probs`; 0 keeps it constant.
        affine_prob, augmix_prob, patch_prob: of the others in
            `strong_augmentations`.
    """

    flip_prob: float = 0.5
    padding: int = 10
    erase_prob: float = 0.5
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jitter_prob: float = 0.0
    jitter: tuple[float, float, float, float] = (0.15, 0.15, 0.1, 0.1)
    autoaug_prob: float = 0.0
    autoaug_decay: int = 0
    affine_prob: float = 0.0
    augmix_prob: float = 0.0
    patch_prob: float = 0.0
