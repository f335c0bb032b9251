"""From feature maps to embedding, metric feature and logits. B: images, D: width, C: identities."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from ember_reid.layers import create_pooling
from ember_reid.layers.precision import as_float, no_autocast
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

CHOICES = {
    "MODEL.HEAD.NECK": ("bnneck", "none"),
    "MODEL.HEAD.REDUCTION": ("linear", "bn_relu"),
    "MODEL.HEAD.CLASSIFIER": ("linear", "cosine"),
    "MODEL.HEAD.METRIC_FEATURE": ("before", "after"),
    "TEST.NECK_FEAT": ("before", "after"),
}


class HeadOptions(NamedTuple):
    """What MODEL.POOL, MODEL.HEAD and TEST.NECK_FEAT say.

    Attributes:
        pool: one of layers.POOLINGS; `gem_p` and `gem_learnable` are for "gem".
        embedding_dim: width D after a reduction of the pooled vector; 0: none.
        reduction: "linear" (no bias) or "bn_relu", which lets batch norm and ReLU follow.
        neck: "bnneck", with a classifier without bias, or "none".
        classifier: "linear" or "cosine", the latter with `scale`.
        metric_feature, embedding: "before" or "after" the neck, for the metric losses and for retrieval.
    """

    pool: str = "avg"
    gem_p: float = 3.0
    gem_learnable: bool = True
    embedding_dim: int = 0
    reduction: str = "linear"
    neck: str = "bnneck"
    classifier: str = "linear"
    scale: float = 64.0
    metric_feature: str = "before"
    embedding: str = "after"

    def check(self) -> None:
        """Raises ValueError when a choice is unknown."""
        values = (self.neck, self.reduction, self.classifier, self.metric_feature, self.embedding)
        for (key, choices), value in zip(CHOICES.items(), values, strict=True):
            if value not in choices:
                raise ValueError(f"{key} is {value!r}; choose one of {', '.join(choices)}")


class LinearClassifier(nn.Linear):
    """Logits W x (+ b), weights from N(0, 0.001) without a bias, torch's own initialization with one."""

    def __init__(self, dim: int, num_classes: int, *, bias: bool = False) -> None:
        super().__init__(dim, num_classes, bias=bias)
        if not bias:
            nn.init.normal_(self.weight, std=0.001)


class CosineClassifier(nn.Module):
    """Logits scale * cos(x, w_c), weights from N(0, 0.01). Margins are the loss's: layers.apply_margin."""

    def __init__(self, dim: int, num_classes: int, *, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


def create_neck(dim: int) -> nn.BatchNorm1d:
    """BNNeck: a batch norm whose bias stays 0 (Luo et al. 2019, section 3.5)."""
    neck = nn.BatchNorm1d(dim)
    neck.bias.requires_grad_(False)
    return neck


def create_reduction(in_channels: int, options: HeadOptions) -> nn.Sequential:
    """[B, in_channels] -> [B, D] as `options` say; empty for the identity."""
    if not options.embedding_dim:
        return nn.Sequential()
    linear = nn.Linear(in_channels, options.embedding_dim, bias=False)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    if options.reduction == "linear":
        return nn.Sequential(linear)
    return nn.Sequential(linear, nn.BatchNorm1d(options.embedding_dim), nn.ReLU())


class GlobalHead(nn.Module):
    """Pooling, optional reduction, neck and classifier over the last feature map.

    Everything after the backbone runs in float32: a normalized feature in half precision would cost ranks.

    Args:
        in_channels: of the last map.
        num_classes: identities C.
        options: the rest.

    Attributes:
        dim: D.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        options.check()
        self.dim = options.embedding_dim or in_channels
        self.metric_feature = options.metric_feature
        self.embedding = options.embedding
        self.pool = create_pooling(
            options.pool, gem_p=options.gem_p, gem_learnable=options.gem_learnable
        )
        self.reduction = create_reduction(in_channels, options)
        has_neck = options.neck == "bnneck"
        self.neck = create_neck(self.dim) if has_neck else nn.Identity()
        if options.classifier == "cosine":
            self.classifier: nn.Module = CosineClassifier(
                self.dim, num_classes, scale=options.scale
            )
        else:
            self.classifier = LinearClassifier(self.dim, num_classes, bias=not has_neck)

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """maps[-1]: [B, in_channels, H, W]."""
        with no_autocast(maps[-1]):
            before = self.reduction(self.pool(as_float(maps[-1])))  # [B, D]
            after = self.neck(before)
            sides = {"before": before, "after": after}
            return ReidOutput(
                embedding=sides[self.embedding],
                logits=(self.classifier(after),),
                features=(sides[self.metric_feature],),
            )
