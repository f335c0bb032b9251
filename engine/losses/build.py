"""Build the criterion from the configuration."""

from collections.abc import Callable, Mapping
from functools import partial, reduce

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ember_reid.config import Config
from ember_reid.data.batch import Batch
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.losses.criterion import (
    Criterion,
    CrossBatchMemoryLoss,
    PerHeadLoss,
    WeightedLoss,
    over_classifiers,
    over_heads,
)
from ember_reid.engine.losses.external.build import build_external_losses
from ember_reid.layers import (
    CenterLoss,
    MemoryBank,
    References,
    apply_margin,
    circle_loss,
    cosface_loss,
    smoothed_cross_entropy,
    triplet_loss,
)
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

LossFunction = Callable[[ReidOutput, Batch], Tensor]
# (logits [B, C], pids [B]) -> scalar, or logits.
ClassifierLoss = Callable[..., Tensor]
# (features [B, D], pids [B], references=None) -> scalar.
PairLoss = Callable[..., Tensor]


def build_criterion(
    cfg: Config,
    *,
    num_classes: int,
    feature_dim: int,
    extra: Mapping[str, WeightedLoss] | None = None,
) -> Criterion:
    """The losses with a weight above 0, and the `extra` ones (those of distillation)."""
    losses = build_weighted_losses(cfg, num_classes=num_classes, feature_dim=feature_dim)
    return Criterion(losses | dict(extra or {}))


def build_weighted_losses(
    cfg: Config, *, num_classes: int, feature_dim: int
) -> dict[str, WeightedLoss]:
    """The losses of the LOSS section with a weight above 0, by name."""
    loss = cfg.LOSS
    is_global = cfg.SOLVER.MINING == "global" and idist.get_world_size() > 1
    share = gather_rows if is_global else nn.Identity()
    pair_losses = _build_pair_losses(cfg)
    global_weight = cfg.MODEL.JPM.GLOBAL_WEIGHT if cfg.MODEL.HEAD.NAME == "jpm" else None
    heads = partial(over_heads, share=share, global_weight=global_weight)
    terms = {
        "ce": WeightedLoss(loss.CE.WEIGHT, _build_cross_entropy(cfg, global_weight)),
    }
    for name, (weight, pair_loss) in pair_losses.items():
        terms[name] = WeightedLoss(weight, partial(heads, loss=pair_loss))
    if loss.XBM.SIZE > 0:
        start = loss.XBM.START * cfg.SOLVER.IMS_PER_BATCH
        bank = MemoryBank(loss.XBM.SIZE, feature_dim, start=start)
        memory_loss = CrossBatchMemoryLoss(_weighted_sum(pair_losses), bank, share=share)
        terms["xbm"] = WeightedLoss(loss.XBM.WEIGHT, memory_loss)
    if loss.CENTER.WEIGHT > 0:
        center_loss = PerHeadLoss(CenterLoss(num_classes, feature_dim))
        terms["center"] = WeightedLoss(loss.CENTER.WEIGHT, center_loss)
    terms |= build_external_losses(cfg, num_classes=num_classes, feature_dim=feature_dim)
    return {name: term for name, term in terms.items() if term.weight > 0}


def _build_cross_entropy(cfg: Config, global_weight: float | None) -> LossFunction:
    """Cross-entropy over all classifiers. The margin is applied here, as it needs the labels."""
    ce = cfg.LOSS.CE
    loss = partial(smoothed_cross_entropy, epsilon=ce.EPSILON, smooth_over=ce.SMOOTH_OVER)
    if ce.MARGIN_TYPE != "none":
        margin = partial(
            apply_margin, kind=ce.MARGIN_TYPE, scale=cfg.MODEL.HEAD.SCALE, margin=ce.MARGIN
        )
        loss = partial(_with_margin, margin=margin, loss=loss)
    return partial(over_classifiers, loss=loss, global_weight=global_weight)


def _with_margin(
    logits: Tensor, pids: Tensor, *, margin: ClassifierLoss, loss: ClassifierLoss
) -> Tensor:
    return loss(margin(logits.float(), pids), pids)


def _build_pair_losses(cfg: Config) -> dict[str, tuple[float, PairLoss]]:
    """(weight, function) of each loss that compares the images of a batch with each other."""
    loss = cfg.LOSS

    triplet = partial(
        triplet_loss,
        margin=loss.TRIPLET.MARGIN,
        mining=loss.TRIPLET.MINING,
        form=loss.TRIPLET.FORM,
    )
    if loss.TRIPLET.NORMALIZE:
        triplet = partial(_normalized, loss=triplet)
    circle = partial(circle_loss, margin=loss.CIRCLE.MARGIN, gamma=loss.CIRCLE.GAMMA)
    cosface = partial(cosface_loss, margin=loss.COSFACE.MARGIN, gamma=loss.COSFACE.GAMMA)
    return {
        "triplet": (loss.TRIPLET.WEIGHT, triplet),
        "circle": (loss.CIRCLE.WEIGHT, circle),
        "cosface": (loss.COSFACE.WEIGHT, cosface),
    }


def _normalized(
    features: Tensor, pids: Tensor, references: References | None = None, *, loss: PairLoss
) -> Tensor:
    """A pair loss of L2-normalized embeddings."""
    if references is not None:
        references = references._replace(embeddings=F.normalize(references.embeddings))
    return loss(F.normalize(features.float()), pids, references=references)


def _weighted_sum(pair_losses: Mapping[str, tuple[float, PairLoss]]) -> PairLoss:
    def loss(features: Tensor, pids: Tensor, references) -> Tensor:
        losses = [
            weight * pair_loss(features, pids, references=references)
            for weight, pair_loss in pair_losses.values()
            if weight > 0
        ]
        return reduce(torch.add, losses)

    return loss
