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
    """One vector per camera, or per camera and viewpoint (TransReID, He et al. 2021, section 3.3).

    Args:
        dim: dimension C of the tokens.
        options: numbers of cameras and viewpoints, and weight.
    """

    def __init__(self, dim: int, options: SideOptions) -> None:
        super().__init__()
        self.weight, self.num_views, self.tokens = options.weight, options.num_views, options.tokens
        num_vectors = options.num_cameras * max(options.num_views, 1)
        self.embedding = nn.Parameter(torch.empty(num_vectors, dim))
        nn.init.trunc_normal_(self.embedding, std=0.02)

    def forward(self, sides: Tensor | None) -> Tensor:
        """The weighted embeddings of N images.

        Departure from the paper: where cameras or viewpoints are unknown, the mean over all of them
        is used, so that the network can be exported and applied to single images.

        Args:
            sides: [N], from side_index; None if nothing is known.

        Returns:
            [N, 1, C], or [1, 1, C] if nothing is known.
        """
        if sides is None:
            return self.weight * self.embedding.mean(dim=0)[None, None]
        table: Tensor = self.embedding
        if self.num_views:
            # [cameras, views, C] -> [cameras, views + 1, C] -> [cameras * (views + 1), C]
            table = table.unflatten(0, (-1, self.num_views))
            table = torch.cat([table, table.mean(dim=1, keepdim=True)], dim=1).flatten(0, 1)
        return self.weight * table[sides][:, None]

    def add(self, tokens: Tensor, sides: Tensor | None) -> Tensor:
        """Add the embeddings to all tokens, or to the class token, the first of [N, P, C]."""
        side = self.forward(sides)
        if self.tokens == "all":
            return tokens + side
        return torch.cat([tokens[:, :1] + side, tokens[:, 1:]], dim=1)


def side_index(camids: Tensor, viewids: Tensor | None, num_views: int) -> Tensor:
    """The row [N] of the table of SideEmbedding; the last one of each camera is for no viewpoint.

    Args:
        camids: [N], counted from 0.
        viewids: [N], counted from 0, negative where unknown; None if all are unknown.
        num_views: number of viewpoints; 0: cameras only.
    """
    if not num_views:
        return camids
    views = torch.full_like(camids, -1) if viewids is None else viewids
    return camids * (num_views + 1) + torch.where(views < 0, num_views, views)


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
        self.num_views = options.side.num_views
        if options.side.num_cameras > 0:
            self.side = SideEmbedding(self.channels[-1], options.side)

    def forward(self, images: Tensor, sides: Tensor | None = None) -> tuple[Tensor, ...]:
        if not self.uses_cameras:
            return self.split(self.network(images))
        tokens = self.embed(images, sides)
        tokens = self.run(self.network.get_submodule("blocks").children(), tokens)
        return self.split(self.network.get_submodule("norm")(tokens))

    def embed(self, images: Tensor, sides: Tensor | None = None) -> Tensor:
        """The tokens in front of the first block, [N, P + prefix tokens, C]."""
        network: Any = self.network
        tokens = network._pos_embed(network.patch_embed(images))
        if self.uses_cameras:
            tokens = self.side.add(tokens, sides)
        return network.norm_pre(network.patch_drop(tokens))

    def run(self, blocks: Iterable[nn.Module], tokens: Tensor) -> Tensor:
        """Apply some of the blocks; with gradient checkpointing if the network has it on."""
        if self.network.grad_checkpointing:
            from timm.models import checkpoint_seq

            return checkpoint_seq(list(blocks), tokens)
        for block in blocks:
            tokens = block(tokens)
        return tokens
