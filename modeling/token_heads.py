"""Heads of CLIP-ReID and PASS, for models that these programs have trained. B: images."""

from dataclasses import replace

import torch
from ember_reid.layers.numerics import as_float, no_autocast
from ember_reid.modeling.model import GlobalHead, HeadOptions, LinearClassifier, create_neck
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


class ClipHead(nn.Module):
    """A head for the class token of CLIP and one for its projection (Li et al. 2023, CLIP-ReID).

    The embedding [B, C + D] is the concatenation. Departure from CLIP-ReID: in training, the
    triplet loss does not see the class token in front of the last block.

    Args:
        in_channels: dimension C of the class token.
        num_classes: number of identities.
        options: `embedding_dim` is the dimension D of the projection, 512 in CLIP.

    Raises:
        ValueError: MODEL.HEAD.EMBEDDING_DIM is 0.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        if not options.embedding_dim or options.tokens != "class":
            raise ValueError(
                "MODEL.HEAD.NAME is 'clip', which projects a class token to "
                "MODEL.HEAD.EMBEDDING_DIM values (CLIP: 512), but EMBEDDING_DIM is "
                f"{options.embedding_dim} and the backbone returns {options.tokens}"
            )
        plain = replace(options, embedding_dim=0)
        heads = [GlobalHead(in_channels, num_classes, o) for o in (plain, options)]
        self.heads = nn.ModuleList(heads)
        self.dim = in_channels + options.embedding_dim

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """The output for the class token maps[-1], [B, C, 1, 1]."""
        outputs = [head(maps[-1:]) for head in self.heads]
        return ReidOutput(
            embedding=torch.cat([output.embedding for output in outputs], dim=1),
            logits=tuple(output.logits[0] for output in outputs),
            features=tuple(output.features[0] for output in outputs),
        )


class PassHead(nn.Module):
    """The class token and the mean of the part tokens, with a neck each (Zhu et al. 2022, PASS).

    The embedding and the metric feature are [B, 2 * C].

    Args:
        in_channels: dimension C of a token.
        num_classes: number of identities.
        options: `embedding` and `metric_feature` are used.

    Raises:
        ValueError: the backbone has no part tokens.
    """

    NUM_PARTS = 3

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        if options.tokens != "class+parts":
            raise ValueError(
                "MODEL.HEAD.NAME is 'pass', which needs part tokens; choose vit_small_pass or "
                "vit_base_pass for MODEL.BACKBONE.NAME, or MODEL.HEAD.NAME global"
            )
        self.options = options
        self.dim = 2 * in_channels
        self.necks = nn.ModuleList(create_neck(in_channels) for _ in range(1 + self.NUM_PARTS))
        self.classifier = LinearClassifier(self.dim, num_classes)

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """The output for the class token and the part tokens, maps[-4:], each [B, C, 1, 1]."""
        with no_autocast(maps[-1]):
            tokens = [as_float(token).flatten(1) for token in maps[-1 - self.NUM_PARTS :]]
            normalized = [neck(token) for neck, token in zip(self.necks, tokens, strict=True)]
            features = {"before": _join(tokens), "after": _join(normalized)}
            return ReidOutput(
                embedding=features[self.options.embedding],
                logits=(self.classifier(features["after"]),),
                features=(features[self.options.metric_feature],),
            )


def _join(tokens: list[Tensor]) -> Tensor:
    """[B, 2 * C]: the first token and the mean of the others."""
    return torch.cat([tokens[0], torch.stack(tokens[1:]).mean(dim=0)], dim=1)
