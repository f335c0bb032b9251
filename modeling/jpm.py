"""TransReID's jigsaw patch module (He et al. 2021, section 3.2). B: images, P: patches."""

import copy
from dataclasses import dataclass, replace

import torch
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.vit import ViTBackbone
from ember_reid.modeling.model import GlobalHead, HeadOptions
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


@dataclass(frozen=True)
class JigsawOptions:
    """The section MODEL.JPM.

    Attributes:
        parts: number of groups of patches, each of which gives a local feature.
        shift: patches are rotated by `shift` - 1 positions. This is what TransReID's program does;
            the paper says `shift`.
        groups: the patches are divided into so many runs, which are then interleaved.
        shuffle: whether to shift and interleave at all.
    """

    parts: int = 4
    shift: int = 5
    groups: int = 2
    shuffle: bool = True


def shuffle_patches(patches: Tensor, *, shift: int, groups: int) -> Tensor:
    """Rotates and interleaves patches: [B, P, C] -> [B, P', C].

    If P is not divisible by `groups`, the last patch but one is repeated at the end, as TransReID's
    program does.

    Raises:
        ValueError: P + 1 is not divisible by `groups` either.
    """
    patches = patches.roll(1 - shift, dims=1)
    num_patches = patches.shape[1]
    if num_patches % groups:
        if (num_patches + 1) % groups:
            raise ValueError(
                f"MODEL.JPM.GROUPS is {groups}, which does not divide {num_patches} patches; "
                "choose 2 or a divisor"
            )
        patches = torch.cat([patches, patches[:, -2:-1]], dim=1)
    # [B, groups, P / groups, C] -> [B, P / groups, groups, C] -> [B, P, C]
    return patches.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class JigsawBackbone(Backbone):
    """A vision transformer whose last block is applied to all tokens and to parts of them.

    Image [N, 3, H, W] -> the map of the patches, the class token, and one token per part. The last
    block of the parts starts as a copy of that of the network; all parts share it.

    Args:
        backbone: a vision transformer of timm; its modules become part of this one.
        options: settings.

    Raises:
        ValueError: the backbone is no vision transformer with a class token, or has too few
            patches.
    """

    def __init__(self, backbone: nn.Module, options: JigsawOptions) -> None:
        super().__init__()
        if not isinstance(backbone, ViTBackbone) or backbone.num_prefix_tokens != 1:
            raise ValueError(
                "MODEL.HEAD.NAME is 'jpm', which needs a vision transformer with a class token "
                "(timm:vit_base_patch16_224, timm:deit_small_patch16_224, ...); choose such a "
                "MODEL.BACKBONE.NAME, or MODEL.HEAD.NAME global"
            )
        if backbone.num_tokens < options.parts:
            raise ValueError(
                f"MODEL.JPM.PARTS is {options.parts}, but an image has {backbone.num_tokens} "
                "patches; choose larger images or fewer parts"
            )
        self.vit = backbone
        self.options = options
        self.uses_cameras, self.num_views = backbone.uses_cameras, backbone.num_views
        self.channels = (backbone.channels[0],) * (2 + options.parts)
        *_, last = backbone.network.get_submodule("blocks").children()
        norm = backbone.network.get_submodule("norm")
        self.local = nn.Sequential(copy.deepcopy(last), copy.deepcopy(norm))

    @property
    def network(self) -> nn.Module:
        """The network of timm."""
        return self.vit.network

    def forward(self, images: Tensor, sides: Tensor | None = None) -> tuple[Tensor, ...]:
        *blocks, last = self.network.get_submodule("blocks").children()
        tokens = self.vit.run(blocks, self.vit.embed(images, sides))
        whole = self.network.get_submodule("norm")(self.vit.run([last], tokens))
        first, patches = tokens[:, :1], tokens[:, 1:]
        num_patches = patches.shape[1]
        if self.options.shuffle:
            patches = shuffle_patches(patches, shift=self.options.shift, groups=self.options.groups)
        maps = [*self.vit.split(whole)[:1], whole[:, 0, :, None, None]]
        # Patches that are left over are not used.
        for part in patches.split(num_patches // self.options.parts, dim=1)[: self.options.parts]:
            tokens = self.local(torch.cat([first, part], dim=1))
            maps.append(tokens[:, 0, :, None, None])
        return tuple(maps)


class JigsawHead(nn.Module):
    """A head for the class token and one for each part.

    The embedding [B, (1 + parts) * D] is the concatenation, in which the local embeddings are
    divided by the number of parts. There are 1 + parts logits and metric features.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        options = replace(options, tokens="class")
        num_heads = 1 + options.num_parts
        heads = [GlobalHead(in_channels, num_classes, options) for _ in range(num_heads)]
        self.heads = nn.ModuleList(heads)
        self.dim = sum(head.dim for head in heads)

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """The output for the last 1 + parts maps, each [B, in_channels, 1, 1]."""
        tokens = maps[-len(self.heads) :]
        outputs = [head((token,)) for head, token in zip(self.heads, tokens, strict=True)]
        local = [output.embedding / (len(outputs) - 1) for output in outputs[1:]]
        return ReidOutput(
            embedding=torch.cat([outputs[0].embedding, *local], dim=1),
            logits=tuple(output.logits[0] for output in outputs),
            features=tuple(output.features[0] for output in outputs),
        )
