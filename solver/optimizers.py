"""Optimizers with one parameter group per distinct (learning rate, weight decay)."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
)  # the first: batch, sync, instance norms

logger = logging.getLogger("ember.train")

OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
FUSED = ("auto", "torch", "apex", "none")
FUSED_DEVICES = {"cpu", "cuda"}
Groups = Sequence[dict[str, Any]]


def group_parameters(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float = 1.0,
    head_lr_factor: float = 1.0,
    weight_decay_bias: float | None = None,
    weight_decay_norm: float | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of `model` in groups of equal learning rate and weight decay.

    A parameter called `bias` has its own learning rate and decay, also in a normalization layer, whose other
    parameters have a decay of their own. The learning rate of `model.head` is multiplied by `head_lr_factor`.

    Returns:
        Groups {"params", "lr", "initial_lr", "weight_decay"} in the order of their first parameter.
    """
    weight_decay_bias = weight_decay if weight_decay_bias is None else weight_decay_bias
    weight_decay_norm = weight_decay if weight_decay_norm is None else weight_decay_norm
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        in_head = module_name.removeprefix("module.").split(".")[0] == "head"
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            is_bias = name == "bias"
            decay = weight_decay_norm if isinstance(module, _NORMS) else weight_decay
            decay = weight_decay_bias if is_bias else decay
            rate = lr * (bias_lr_factor if is_bias else 1.0) * (head_lr_factor if in_head else 1.0)
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def create_optimizer(
    name: str,
    groups: Iterable[dict[str, Any]],
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    fused: str = "auto",
) -> Optimizer:
    """The optimizer called `name` over parameter groups; momentum and nesterov are for "sgd".

    Adam has the usual betas (0.9, 0.999) and adds the decay to the gradient; AdamW decouples it.

    Args:
        fused: whose kernels, which touch memory once and ask nothing of the host: a step of Adam on a ResNet-50 takes 17 ms of
            one CPU core in the place of 114 ms. "auto" and "torch" are torch's own, "apex" those of NVIDIA apex on a GPU,
            "none" one operation after the other. Where they cannot be had, one line says so and the next of these is taken.

    Raises:
        ValueError: unknown name, or nothing to train.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER is {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    if fused not in FUSED:
        raise ValueError(f"SOLVER.FUSED is {fused!r}; choose one of {', '.join(FUSED)}")
    groups = list(groups)
    if not groups:
        raise ValueError("the model has no trainable parameters")
    # Learning rate and decay are in the groups; the 0 is a placeholder.
    options = {"lr": 0.0}
    if name == "sgd":
        options |= {"momentum": momentum, "nesterov": nesterov}
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if fused == "apex":
        try:
            return _create_apex(name, groups, options, devices=devices)
        except (ImportError, AttributeError, RuntimeError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            logger.warning("SOLVER.FUSED apex is not used but torch's own kernels: %s", reason)
    if fused != "none":
        if devices <= FUSED_DEVICES:
            return _start_momentum(OPTIMIZERS[name](groups, fused=True, **options))
        logger.warning(
            "SOLVER.FUSED %s: torch has no such kernels for %s, none are used",
            fused,
            ", ".join(devices),
        )
    return OPTIMIZERS[name](groups, **options)


def _create_apex(
    name: str, groups: Groups, options: dict[str, float | bool], *, devices: set[str]
) -> Optimizer:
    """NVIDIA's optimizer; a package of the same name on the index is something else, and has none."""
    from apex.optimizers import FusedAdam, FusedSGD

    if "cpu" in devices:
        raise RuntimeError("it works on GPUs only")
    if name == "sgd":
        return _start_momentum(FusedSGD(groups, **options))
    return FusedAdam(groups, adam_w_mode=name == "adamw", **options)


def _start_momentum(optimizer: Optimizer) -> Optimizer:
    """SGD begins with a momentum of zeros, which is the same as none, so that frozen parameters may join it later."""

    def fill(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("momentum", 0) else ():
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    fill(optimizer)
    optimizer.register_load_state_dict_post_hook(fill)
    return optimizer
