"""Optimizers with one parameter group per distinct pair of learning rate and weight decay."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ember_reid.solver.muon import Muon, is_muon_weight
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

# _NormBase is the base class of batch norm, synchronized batch norm and instance norm.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

logger = logging.getLogger("ember.train")

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "muon": Muon,
}
FUSED = ("auto", "torch", "apex", "none")
FUSED_DEVICES = {"cpu", "cuda"}
Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RateOptions:
    """Learning rates and weight decays of the SOLVER section.

    Attributes:
        lr: learning rate of all parameters, before the factors below.
        weight_decay: of all parameters that have no weight decay of their own.
        bias_lr_factor: factor on the learning rate of parameters called `bias`.
        head_lr_factor: factor on the learning rate of `model.head`.
        weight_decay_bias: of parameters called `bias`, also in normalization layers.
        weight_decay_norm: of the other parameters of normalization layers.
        weight_decay_embedding: of position embeddings, class tokens and layer scales.
        layer_decay: factor on the learning rate per layer between a parameter and the head
            (Bao et al. 2022, BEiT, appendix).
        muon_lr: learning rate of the parameters that Muon trains; None: there are none.
    """

    lr: float
    weight_decay: float
    bias_lr_factor: float = 1.0
    head_lr_factor: float = 1.0
    weight_decay_bias: float | None = None
    weight_decay_norm: float | None = None
    weight_decay_embedding: float | None = None
    layer_decay: float = 1.0
    muon_lr: float | None = None

    def rate(
        self, *, is_bias: bool, in_head: bool, num_layers_above: int = 0, by_muon: bool = False
    ) -> float:
        """The learning rate of a parameter; the head is the layer above the last block."""
        if by_muon and self.muon_lr is not None:
            return self.muon_lr * self.layer_decay**num_layers_above
        bias_factor = self.bias_lr_factor if is_bias else 1.0
        rate = self.lr * bias_factor * (self.head_lr_factor if in_head else 1.0)
        return rate * self.layer_decay**num_layers_above

    def decay(self, *, is_bias: bool, in_norm: bool, is_embedding: bool = False) -> float:
        """The weight decay of a parameter."""
        if is_embedding and self.weight_decay_embedding is not None:
            return self.weight_decay_embedding
        if is_bias and self.weight_decay_bias is not None:
            return self.weight_decay_bias
        if in_norm and not is_bias and self.weight_decay_norm is not None:
            return self.weight_decay_norm
        return self.weight_decay


def group_parameters(
    model: nn.Module,
    rates: RateOptions,
    *,
    depths: Mapping[str, int] | None = None,
    embeddings: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Group the trainable parameters of `model` by learning rate and weight decay.

    Args:
        model: the network.
        rates: learning rates and weight decays.
        depths: the layer of each parameter, counted from 0, for `rates.layer_decay`. Parameters
            that are not listed belong to the layer after the deepest one.
        embeddings: names of the parameters with `rates.weight_decay_embedding`.

    Returns:
        Groups {"params", "lr", "initial_lr", "weight_decay"} in the order of their first parameter.
        If `rates.muon_lr` is given, those of Muon also contain "muon": True.
    """
    depths = depths or {}
    num_layers = max(depths.values(), default=-1) + 1
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        prefix = module_name.removeprefix("module.")
        in_head = prefix.split(".")[0] == "head"
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            full_name = f"{prefix}.{name}" if prefix else name
            is_bias = name == "bias"
            by_muon = rates.muon_lr is not None and not in_head and is_muon_weight(module, name)
            rate = rates.rate(
                is_bias=is_bias,
                in_head=in_head,
                num_layers_above=num_layers - depths.get(full_name, num_layers),
                by_muon=by_muon,
            )
            decay = rates.decay(
                is_bias=is_bias,
                in_norm=isinstance(module, _NORMS),
                is_embedding=full_name in embeddings,
            )
            groups.setdefault((rate, decay, by_muon), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        | ({"muon": True} if by_muon else {})
        for (rate, decay, by_muon), parameters in groups.items()
    ]


def create_optimizer(
    name: str,
    groups: Iterable[dict[str, Any]],
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    fused: str = "auto",
) -> Optimizer:
    """Create the optimizer `name`, a key of OPTIMIZERS.

    Adam has betas (0.9, 0.999) and adds the weight decay to the gradient; AdamW decouples it. Muon
    trains the groups with "muon" True, and AdamW the others.

    Args:
        name: a key of OPTIMIZERS.
        groups: parameter groups with learning rates and weight decays.
        momentum: of "sgd" and "muon".
        nesterov: of "sgd"; "muon" always has it.
        fused: the implementation. Fused kernels read and write memory once and do not synchronize
            with the host: on one CPU core, a step of Adam for a ResNet-50 takes 17 ms instead of
                114 ms.
            "auto" and "torch" select torch's fused kernels, "apex" those of NVIDIA apex (GPUs
            only), and "none" torch's unfused implementation. If the selected one is not available,
            a warning is logged and the next one is used.

    Raises:
        ValueError: there are no parameters to train.
    """
    groups = list(groups)
    if not groups:
        raise ValueError("the model has no trainable parameters")
    # Every group has its own learning rate; the optimizers only require a default.
    options: dict[str, Any] = {"lr": 0.0}
    if name == "muon":
        options |= {"momentum": momentum}
    if name == "sgd":
        options |= {"momentum": momentum, "nesterov": nesterov}
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if fused == "apex":
        try:
            return _create_apex(name, groups, options, devices=devices)
        except (ImportError, AttributeError, RuntimeError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            logger.warning(
                "SOLVER.FUSED apex is not available, the one of torch is used: %s", reason
            )
    if fused != "none":
        if devices <= FUSED_DEVICES:
            return _initialize_momentum(OPTIMIZERS[name](groups, fused=True, **options))
        logger.warning(
            "SOLVER.FUSED %s: torch has no fused kernels for %s, unfused ones are used",
            fused,
            ", ".join(devices),
        )
    return OPTIMIZERS[name](groups, **options)


def _create_apex(
    name: str, groups: Groups, options: dict[str, Any], *, devices: set[str]
) -> Optimizer:
    """The optimizer of NVIDIA apex.

    The package `apex` on the Python package index is a different one, without these classes.
    """
    from apex.optimizers import FusedAdam, FusedSGD

    if name == "muon":
        raise RuntimeError("it does not contain Muon")
    if "cpu" in devices:
        raise RuntimeError("it works on GPUs only")
    if name == "sgd":
        return _initialize_momentum(FusedSGD(groups, **options))
    return FusedAdam(groups, adam_w_mode=name == "adamw", **options)


def _initialize_momentum(optimizer: Optimizer) -> Optimizer:
    """Fill the momentum buffers of SGD with zeros, so that frozen parameters can be trained later.

    Buffers of zeros have the same effect as none.
    """

    def fill(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("momentum", 0) else ():
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    fill(optimizer)
    optimizer.register_load_state_dict_post_hook(fill)
    return optimizer
