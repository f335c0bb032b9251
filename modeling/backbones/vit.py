"""timm's plain vision transformers, with side information. N: images, P: patches."""

from collections.abc import Iterable
from typing import Any

import torch
from ember_reid.modeling.backbones.options import BackboneOptions, SideOptions
from ember_reid.modeling.backbones.timm import TimmBackbone
from torch import Tensor, nn


def is_vision_transformer(network: nn.Module) -> bool:
    """Whether a network is timm's VisionTransformer (ViT, DeiT, DINOv2, CLIP, MAE, ...)."""
    from timm.models import VisionTransformer

    return isinstance(network, VisionTransformer)


class SideEmbedding(nn.Module):
    """One vector per camera (TransReID, He et al. 2021, section 3.3).

    Args:
        dim: dimension C of the tokens.
        options: number of cameras and weight.
    """

    def __init__(self, dim: int, options: SideOptions) -> None:
        super().__init__()
        self.weight = options.weight
        self.embedding = nn.Parameter(torch.empty(options.num_cameras, dim))
        nn.init.trunc_normal_(self.embedding, std=0.02)

    def forward(self, camids: Tensor | None) -> Tensor:
        """The weighted embeddings of N images.

        Departure from the paper: if the cameras are unknown, the mean over all of them is used, so
        that the network can be exported and applied to single images.

        Args:
            camids: [N], counted from 0; None if they are unknown.

        Returns:
            [N, 1, C], or [1, 1, C] if nothing is known.
        """
        if camids is None:
            return self.weight * self.embedding.mean(dim=0)[None, None]
        return self.weight * self.embedding[camids][:, None]


class ViTBackbone(TimmBackbone):
    """A vision transformer of timm.

    Args:
        network: timm's VisionTransformer.
        options: `side` is used in addition to those of TimmBackbone.
        name: for messages.
    """

    def __init__(self, network: nn.Module, options: BackboneOptions, name: str) -> None:
        super().__init__(network, options, name)
        self.uses_cameras = options.side.num_cameras > 0
        if options.side.num_cameras > 0:
            self.side = SideEmbedding(self.channels[-1], options.side)

    def forward(self, images: Tensor, camids: Tensor | None = None) -> tuple[Tensor, ...]:
        if not self.uses_cameras:
            return self.split(self.network(images))
        tokens = self.embed(images, camids)
        tokens = self.run(self.network.get_submodule("blocks").children(), tokens)
        return self.split(self.network.get_submodule("norm")(tokens))

    def embed(self, images: Tensor, camids: Tensor | None = None) -> Tensor:
        """The tokens in front of the first block, [N, P + prefix tokens, C]."""
        network: Any = self.network
        tokens = network._pos_embed(network.patch_embed(images))
        if self.uses_cameras:
            tokens = tokens + self.side(camids)
        return network.norm_pre(network.patch_drop(tokens))

    def run(self, blocks: Iterable[nn.Module], tokens: Tensor) -> Tensor:
        """Apply some of the blocks; with gradient checkpointing if the network has it on."""
        if self.network.grad_checkpointing:
            from timm.models import checkpoint_seq

            return checkpoint_seq(list(blocks), tokens)
        for block in blocks:
            tokens = block(tokens)
        return tokens
