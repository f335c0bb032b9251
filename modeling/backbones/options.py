"""The switches that backbones have in common."""

from typing import NamedTuple


class BackboneOptions(NamedTuple):
    """What MODEL.BACKBONE says besides name and weights; a backbone refuses what it does not have.

    Attributes:
        last_stride: of the last stage; 2 as published, 1 keeps a map of twice the height and width.
        stem_relu: False leaves out the ReLU between the stem's batch norm and its pooling.
        stem_pool: "padded": 3x3 stride 2 with a border of 1; "ceil": without border, sizes rounded up.
        last_dilation: of the last stage's 3x3 convolutions after its first block.
        last_relu: False leaves out every ReLU of the last block (VKD).
        non_local: number of non-local blocks per stage; empty for none.
        non_local_width: their inner channels; 0 means half of the outer ones.
        width: channels of every layer as a multiple of the published ones, for small networks.
        image_size: (height, width) of the training images, for backbones that need it.
    """

    last_stride: int = 2
    stem_relu: bool = True
    stem_pool: str = "padded"
    last_dilation: int = 1
    last_relu: bool = True
    non_local: tuple[int, ...] = ()
    non_local_width: int = 0
    width: float = 1.0
    image_size: tuple[int, int] = (256, 128)


_KEYS = {
    "last_stride": ("LAST_STRIDE", 2),
    "stem_relu": ("STEM_RELU", True),
    "stem_pool": ("STEM_POOL", "padded"),
    "last_dilation": ("LAST_DILATION", 1),
    "last_relu": ("LAST_RELU", True),
    "non_local": ("NON_LOCAL", ()),
    "width": ("WIDTH", 1.0),
}


def refuse_others(name: str, options: BackboneOptions, *supported: str) -> None:
    """Raises ValueError when an option is set that the backbone `name` does not have (is not `supported`)."""
    for field, (key, neutral) in _KEYS.items():
        value = getattr(options, field)
        if field in supported or value == neutral or (field == "non_local" and not any(value)):
            continue
        raise ValueError(
            f"MODEL.BACKBONE.{key} is {value!r}, but {name} has no such switch; "
            f"set MODEL.BACKBONE.{key} to {neutral!r}"
        )


def check_options(options: BackboneOptions) -> None:
    """Raises ValueError for values that no backbone knows."""
    if options.last_stride not in (1, 2):
        raise ValueError(f"MODEL.BACKBONE.LAST_STRIDE is {options.last_stride!r}; choose 1 or 2")
    if options.stem_pool not in ("padded", "ceil"):
        raise ValueError(
            f"MODEL.BACKBONE.STEM_POOL is {options.stem_pool!r}; choose one of padded, ceil"
        )
    if not 0.125 <= options.width <= 2 or options.width * 64 % 2:
        raise ValueError(
            f"MODEL.BACKBONE.WIDTH is {options.width}; choose a multiple of 1/32 between 0.125 and 2, such as 0.5"
        )
    if len(options.non_local) not in (0, 4):
        raise ValueError(
            f"MODEL.BACKBONE.NON_LOCAL is {tuple(options.non_local)}; "
            "give one number per stage, such as (0, 2, 3, 0), or ()"
        )
