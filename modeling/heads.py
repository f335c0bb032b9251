"""From feature maps to embedding, metric feature and logits. B: images, D: width, C: identities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import create_pooling
from layers.precision import as_float, no_autocast
from modeling.output import ReidOutput

NECKS = ("bnneck", "none")
CLASSIFIERS = ("linear", "cosine")
SIDES = ("before", "after")


class LinearClassifier(nn.Module):
    """Logits W x (+ b), weights from N(0, 0.001) without a bias, torch's own initialisation with one."""

    def __init__(self, dim: int, num_classes: int, *, bias: bool = False) -> None:
        super().__init__()
        fresh = nn.Linear(dim, num_classes, bias=bias)
        self.weight, self.bias = fresh.weight, fresh.bias
        if not bias:
            nn.init.normal_(self.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


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


class GlobalHead(nn.Module):
    """Pooling, optional reduction, neck and classifier over the last feature map.

    Everything after the backbone runs in float32: a normalised feature in half precision would cost ranks.

    Args:
        in_channels: of the last map.
        num_classes: identities C.
        pool: one of layers.POOLINGS; `gem_p`, `gem_learnable` for "gem".
        embedding_dim: width after a linear reduction without bias; 0: none.
        neck: "bnneck", with a classifier without bias, or "none".
        classifier: "linear" or "cosine", the latter with `scale`.
        metric_feature, embedding: "before" or "after" the neck, for the metric losses and for retrieval.

    Raises:
        ValueError: an unknown choice.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        pool: str = "avg",
        gem_p: float = 3.0,
        gem_learnable: bool = True,
        embedding_dim: int = 0,
        neck: str = "bnneck",
        classifier: str = "linear",
        scale: float = 64.0,
        metric_feature: str = "before",
        embedding: str = "after",
    ) -> None:
        super().__init__()
        _check("MODEL.HEAD.NECK", neck, NECKS)
        _check("MODEL.HEAD.CLASSIFIER", classifier, CLASSIFIERS)
        _check("MODEL.HEAD.METRIC_FEATURE", metric_feature, SIDES)
        _check("TEST.NECK_FEAT", embedding, SIDES)
        dim = embedding_dim or in_channels
        self.dim = dim
        self.metric_feature = metric_feature
        self.embedding = embedding
        self.pool = create_pooling(pool, gem_p=gem_p, gem_learnable=gem_learnable)
        self.reduction = nn.Linear(in_channels, dim, bias=False) if embedding_dim else nn.Identity()
        if embedding_dim:
            nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out")
        self.neck = create_neck(dim) if neck == "bnneck" else nn.Identity()
        self.classifier = (
            LinearClassifier(dim, num_classes, bias=neck == "none")
            if classifier == "linear"
            else CosineClassifier(dim, num_classes, scale=scale)
        )

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


def _check(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; choose one of {', '.join(choices)}")
