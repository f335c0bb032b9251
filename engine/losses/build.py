"""From the configuration to the criterion."""

from collections.abc import Callable, Mapping
from functools import partial

from ember_reid.config import Config
from ember_reid.data.batch import Batch
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.losses.criterion import (
    Criterion,
    CrossBatchMemoryLoss,
    PerHeadLoss,
    WeightedLoss,
    mean_over,
)
from ember_reid.layers import (
    CenterLoss,
    MemoryBank,
    apply_margin,
    circle_loss,
    cosface_loss,
    focal_loss,
    smoothed_cross_entropy,
    triplet_loss,
)
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

LossFunction = Callable[[ReidOutput, Batch], Tensor]
PairLoss = Callable[..., Tensor]  # (features [B, D], pids [B], references=None) -> scalar


def build_criterion(
    cfg: Config,
    *,
    num_classes: int,
    feature_dim: int,
    extra: Mapping[str, WeightedLoss] | None = None,
) -> Criterion:
    """The losses with a weight above 0, and the `extra` ones (those of distillation)."""
    loss = cfg.LOSS
    share = gather_rows if cfg.SOLVER.MINING == "global" else nn.Identity()
    pair_losses = _build_pair_losses(cfg)
    terms = {
        "ce": WeightedLoss(loss.CE.WEIGHT, _build_cross_entropy(cfg)),
        "focal": WeightedLoss(loss.FOCAL.WEIGHT, _build_focal(cfg)),
    }
    for name, (weight, pair_loss) in pair_losses.items():
        terms[name] = WeightedLoss(weight, _over_heads(pair_loss, share))
    if loss.XBM.SIZE > 0:
        start = loss.XBM.START * cfg.SOLVER.IMS_PER_BATCH
        bank = MemoryBank(loss.XBM.SIZE, feature_dim, start=start)
        memory_loss = CrossBatchMemoryLoss(_weighted_sum(pair_losses), bank, share=share)
        terms["xbm"] = WeightedLoss(loss.XBM.WEIGHT, memory_loss)
    if loss.CENTER.WEIGHT > 0:
        center_loss = PerHeadLoss(CenterLoss(num_classes, feature_dim))
        terms["center"] = WeightedLoss(loss.CENTER.WEIGHT, center_loss)
    terms = {name: term for name, term in terms.items() if term.weight > 0}
    return Criterion(terms | dict(extra or {}))


def _build_cross_entropy(cfg: Config) -> LossFunction:
    """Cross-entropy over all classifiers. The margin acts here, because models do not see labels."""
    ce, scale = cfg.LOSS.CE, cfg.MODEL.HEAD.SCALE

    def loss_of_head(logits: Tensor, pids: Tensor) -> Tensor:
        logits = logits.float()
        if ce.MARGIN_TYPE != "none":
            logits = apply_margin(logits, pids, kind=ce.MARGIN_TYPE, scale=scale, margin=ce.MARGIN)
        return smoothed_cross_entropy(logits, pids, epsilon=ce.EPSILON, smooth_over=ce.SMOOTH_OVER)

    return lambda output, batch: mean_over(
        output.logits, lambda logits: loss_of_head(logits, batch.pids)
    )


def _build_focal(cfg: Config) -> LossFunction:
    loss_of_head = partial(focal_loss, gamma=cfg.LOSS.FOCAL.GAMMA)
    return lambda output, batch: mean_over(
        output.logits, lambda logits: loss_of_head(logits, batch.pids)
    )


def _build_pair_losses(cfg: Config) -> dict[str, tuple[float, PairLoss]]:
    """(weight, function) of each loss that compares the images of a batch with each other."""
    loss = cfg.LOSS

    def triplet(features: Tensor, pids: Tensor, references=None) -> Tensor:
        if loss.TRIPLET.NORMALIZE:
            features = nn.functional.normalize(features.float())
            references = references and references._replace(
                embeddings=nn.functional.normalize(references.embeddings)
            )
        return triplet_loss(
            features,
            pids,
            margin=loss.TRIPLET.MARGIN,
            mining=loss.TRIPLET.MINING,
            references=references,
        )

    circle = partial(circle_loss, margin=loss.CIRCLE.MARGIN, gamma=loss.CIRCLE.GAMMA)
    cosface = partial(cosface_loss, margin=loss.COSFACE.MARGIN, gamma=loss.COSFACE.GAMMA)
    return {
        "triplet": (loss.TRIPLET.WEIGHT, triplet),
        "circle": (loss.CIRCLE.WEIGHT, circle),
        "cosface": (loss.COSFACE.WEIGHT, cosface),
    }


def _over_heads(pair_loss: PairLoss, share: Callable[[Tensor], Tensor]) -> LossFunction:
    """The mean of a pair loss over the heads; `share` gathers the images to be compared."""

    def loss(output: ReidOutput, batch: Batch) -> Tensor:
        pids = share(batch.pids)
        return mean_over(output.features, lambda features: pair_loss(share(features), pids))

    return loss


def _weighted_sum(pair_losses: Mapping[str, tuple[float, PairLoss]]) -> PairLoss:
    def loss(features: Tensor, pids: Tensor, references) -> Tensor:
        return sum(
            weight * pair_loss(features, pids, references=references)
            for weight, pair_loss in pair_losses.values()
            if weight > 0
        )

    return loss
