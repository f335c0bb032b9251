"""Build the losses of LOSS.PLUGIN and LOSS.PML."""

import difflib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

from ember_reid.config import Config
from ember_reid.config.yaml_reader import read_yaml
from ember_reid.data.batch import Batch
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.losses.criterion import WeightedLoss, mean_over
from ember_reid.engine.plugins import LOSSES
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


class FeatureLoss(nn.Module):
    """A loss module (features [B, D], pids [B]) -> scalar: its mean over the heads of the model.

    Args:
        loss: such as those of pytorch-metric-learning.
        share: gathers the images to be compared from all processes, or the identity function.
    """

    def __init__(self, loss: nn.Module, *, share: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss, self.share = loss, share

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        pids = self.share(batch.pids)
        return mean_over(
            output.features, lambda features: self.loss(self.share(features).float(), pids)
        )


def build_external_losses(
    cfg: Config, *, num_classes: int, feature_dim: int
) -> dict[str, WeightedLoss]:
    """The losses of LOSS.PLUGIN and LOSS.PML, if they have a name and a weight above 0.

    Raises:
        ValueError: an unknown name, arguments that do not fit, or a package that is missing.
    """
    sizes = {"num_classes": num_classes, "feature_dim": feature_dim, "embedding_size": feature_dim}
    losses = {}
    if cfg.LOSS.PLUGIN.NAME and cfg.LOSS.PLUGIN.WEIGHT > 0:
        name = cfg.LOSS.PLUGIN.NAME
        if name not in LOSSES:
            raise ValueError(
                f"LOSS.PLUGIN.NAME is {name[:60]!r}, choose one of {', '.join(LOSSES) or 'none'}: "
                "IMPORTS names the plug-ins that add losses"
            )
        loss = _create("LOSS.PLUGIN", LOSSES[name], cfg.LOSS.PLUGIN.ARGS, sizes)
        losses["plugin"] = WeightedLoss(cfg.LOSS.PLUGIN.WEIGHT, loss)
    if cfg.LOSS.PML.NAME and cfg.LOSS.PML.WEIGHT > 0:
        share = gather_rows if cfg.SOLVER.MINING == "global" else nn.Identity()
        loss = _create("LOSS.PML", _find_pml_loss(cfg.LOSS.PML.NAME), cfg.LOSS.PML.ARGS, sizes)
        losses["pml"] = WeightedLoss(cfg.LOSS.PML.WEIGHT, FeatureLoss(loss, share=share))
    return losses


def _find_pml_loss(name: str) -> Callable[..., nn.Module]:
    """The loss of pytorch-metric-learning with this class name; "Loss" at its end is optional."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ValueError(
            "LOSS.PML.NAME needs pytorch-metric-learning, which is not installed: "
            "python -m pip install pytorch-metric-learning"
        )
    from pytorch_metric_learning import losses

    known = {
        key: value
        for key, value in vars(losses).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and key.endswith("Loss")
    }
    found = known.get(name) or known.get(f"{name}Loss")
    if found is None:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
        raise ValueError(
            f"LOSS.PML.NAME is {name[:60]!r}, which pytorch-metric-learning does not have; "
            f"similar losses: {', '.join(near[:5])}"
        )
    return found


def _create(key: str, factory: Callable[..., Any], text: str, sizes: dict[str, int]) -> Any:
    """`factory(**arguments)` with the arguments in KEY.ARGS and those of `sizes` that it takes."""
    arguments = dict(read_yaml(text, f"{key}.ARGS")) if text.strip() else {}
    signature = inspect.signature(factory)
    given = {
        name: value
        for name, value in sizes.items()
        if name in signature.parameters and name not in arguments
    }
    try:
        signature.bind(**given, **arguments)
        return factory(**given, **arguments)
    except (TypeError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        allowed = ", ".join(signature.parameters)[:300]
        raise ValueError(
            f"{key}.ARGS {text[:100]!r} do not fit {key}.NAME: {reason}; parameters: {allowed}"
        ) from error
