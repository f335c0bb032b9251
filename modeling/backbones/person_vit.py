"""Vision transformers of person pretraining that timm lacks: TransReID-SSL's stem and PASS."""

from collections import OrderedDict
from typing import cast

from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from ember_reid.modeling.backbones.resnet import IBNa
from ember_reid.modeling.backbones.timm import TimmBackbone, wrap_network
from timm import create_model
from torch import nn


def create_ics_stem(embed_dim: int) -> nn.Sequential:
    """IBN-based convolution stem (ICS) of TransReID-SSL, Luo et al. 2021, section 3.3.

    Three convolutions at stride 2, two of them with IBN-a, and patches of 8 x 8 of their output.

    [N, 3, H, W] -> [N, embed_dim, H/16, W/16].
    """
    convolutions = nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        IBNa(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        IBNa(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    )
    projection = nn.Conv2d(64, embed_dim, 8, stride=8)
    return nn.Sequential(OrderedDict(conv=convolutions, proj=projection))


def create_person_vit(
    options: BackboneOptions, *, size: str, ics: bool = False, part_tokens: int = 0
) -> TimmBackbone:
    """Create a ViT of person pretraining, with patches of 16 x 16.

    Args:
        options: those of a vision transformer of timm, without PATCH_STRIDE.
        size: "small" or "base".
        ics: the stem of TransReID-SSL.
        part_tokens: tokens of PASS beside the class token (Zhu et al. 2022), with position
            embeddings of their own.
    """
    name = f"vit_{size}_{'ics' if ics else 'pass'}"
    options = keep_supported(name, options, "drop_path", "freeze_patch_embed")
    network = create_model(
        f"vit_{size}_patch16_224",
        img_size=options.image_size,
        reg_tokens=part_tokens,
        drop_path_rate=options.drop_path,
        num_classes=0,
        global_pool="",
    )
    if ics:
        stem = create_ics_stem(cast(int, network.embed_dim))
        network.set_submodule("patch_embed.proj", stem)
    return wrap_network(network, options, name)
