"""SOLIDER (Chen et al. 2023): Swin transformers with a controllable amount of semantics.

N: images, h x w: patches, C: channels.
"""

from typing import cast

import torch.nn.functional as F
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from ember_reid.modeling.backbones.timm import TimmBackbone, wrap_network
from timm import create_model
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn


class PaddedBlock(SwinTransformerBlock):
    """A block that pads maps to whole windows before it shifts them; timm shifts first."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        bottom, right = (-height % self.window_size[0], -width % self.window_size[1])
        return super()._attn(F.pad(x, (0, 0, 0, right, 0, bottom)))[:, :height, :width]


class SemanticMerging(nn.Module):
    """Merges 2 x 2 patches and scales the result by functions of the semantic weight.

    y -> y * softplus(W s) + B s with s = (weight, 1 - weight) (section 3.3). The linear layers W
    and B are not trained further, as in SOLIDER-REID.

    Args:
        dim: C.
        weight: 0 keeps most of the appearance, 1 is the most semantic; SOLIDER has 0.2 for
            re-identification.
    """

    def __init__(self, dim: int, weight: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.semantic_w = nn.Linear(2, 2 * dim).requires_grad_(False)
        self.semantic_b = nn.Linear(2, 2 * dim).requires_grad_(False)
        self.weight = weight
        for layer in (self.reduction, self.semantic_w, self.semantic_b):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        for layer in (self.semantic_w, self.semantic_b):
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, h, w, C] -> [N, ceil(h / 2), ceil(w / 2), 2C]."""
        maps = F.pad(maps, (0, 0, 0, maps.shape[2] % 2, 0, maps.shape[1] % 2))
        # [N, h, w, C] -> [N, h/2, 2, w/2, 2, C] -> [N, h/2, w/2, 4C], in the order of timm
        split = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        merged = self.reduction(self.norm(split.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return merged * F.softplus(self._amount(self.semantic_w)) + self._amount(self.semantic_b)

    def _amount(self, layer: nn.Linear) -> Tensor:
        """The layer of (weight, 1 - weight), [2C], without a new tensor on the device."""
        first, second = layer.weight.unbind(1)
        return first * self.weight + second * (1 - self.weight) + layer.bias


def make_controllable(network: nn.Module, weight: float) -> None:
    """Turn a Swin transformer of timm into SOLIDER's, with random weights of the mergings."""
    for block in network.modules():
        if isinstance(block, SwinTransformerBlock):
            block.__class__ = PaddedBlock
    for stage in list(network.get_submodule("layers").children())[1:]:
        dim = cast(int, stage.get_submodule("downsample").dim)
        stage.downsample = SemanticMerging(dim, weight)


def create_solider(options: BackboneOptions, *, size: str) -> TimmBackbone:
    """Create SOLIDER's Swin transformer.

    Windows are always 7 x 7 patches, with padding, also where a map is smaller; timm would use
    smaller windows there.

    Args:
        options: those of a Swin transformer of timm, and semantic_weight.
        size: "tiny", "small" or "base".
    """
    name = f"solider_swin_{size}"
    options = keep_supported(name, options, "semantic_weight", "drop_path", "freeze_patch_embed")
    network = create_model(
        f"swin_{size}_patch4_window7_224",
        img_size=options.image_size,
        always_partition=True,
        drop_path_rate=options.drop_path,
        num_classes=0,
        global_pool="",
    )
    make_controllable(network, options.semantic_weight)
    return wrap_network(network, options, name)
