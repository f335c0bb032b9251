"""Low-rank adapters (LoRA, Hu et al. 2022) of the package peft, an optional one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LoraOptions:
    """The section MODEL.LORA.

    Attributes:
        rank: of the adapters; 0: no adapters.
        alpha: adapters are multiplied by alpha / rank.
        dropout: of their input.
        targets: last parts of the names of linear layers; empty for all of them.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Sequence[str] = ()


def add_adapters(backbone: nn.Module, options: LoraOptions, name: str) -> None:
    """Add adapters to the linear layers of a backbone, in place, and freeze all its weights.

    The adapters are trained; they start with an output of 0. Side information, which has no
    pretrained weights, is trained as well.

    Args:
        backbone: is changed in place.
        options: with a rank above 0.
        name: MODEL.BACKBONE.NAME, for messages.

    Raises:
        ValueError: peft is not installed, or the backbone has no such linear layers.
    """
    linear = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear)]
    chosen = [n for n in linear if not options.targets or n.split(".")[-1] in options.targets]
    if not chosen:
        last = sorted({n.split(".")[-1] for n in linear})
        found = f"its linear layers are called {', '.join(last[:8])}" if last else "it has none"
        raise ValueError(
            f"MODEL.LORA adapts linear layers, and {name} has none of MODEL.LORA.TARGETS: {found}; "
            "set MODEL.LORA.RANK to 0 or other targets"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            'MODEL.LORA needs the package peft: python -m pip install "peft>=0.17,<1"'
        ) from error
    config = LoraConfig(
        r=options.rank,
        # peft only divides it by the rank, or by its root.
        lora_alpha=cast(int, options.alpha),
        lora_dropout=options.dropout,
        target_modules=chosen,
    )
    inject_adapter_in_model(config, backbone)
    for parameter_name, parameter in backbone.named_parameters():
        is_trained = ".lora_" in parameter_name or parameter_name.startswith("side.")
        parameter.requires_grad_(is_trained)


def keep_adapters_only(model: nn.Module) -> None:
    """Leave the frozen weights of the backbone out of the state dict of `model`.

    The state dict contains a fingerprint of them instead. Loading a state dict compares it, and
    keeps the frozen weights.
    """
    names = {n for n, p in model.named_parameters() if _is_base(n) and not p.requires_grad}
    model.base_names = cast(Any, frozenset(names))
    model.register_buffer("base_fingerprint", _fingerprint(model))
    model.register_state_dict_post_hook(_drop_base)
    model.register_load_state_dict_pre_hook(_check_base)


def _is_base(name: str) -> bool:
    return name.startswith("backbone.") and ".lora_" not in name


def _fingerprint(model: Any) -> Tensor:
    """The first 8 bytes of a SHA-256 over names and values of the frozen weights."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name in model.base_names and not parameter.is_meta:
            values = parameter.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
            digest.update(values.view(torch.uint8).numpy().data)
    return torch.tensor(list(digest.digest()[:8]), dtype=torch.uint8)


def _drop_base(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in module.base_names:
        state.pop(prefix + name, None)


def _check_base(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    found = state.get(f"{prefix}base_fingerprint")
    if found is not None and not torch.equal(found.cpu(), module.base_fingerprint.cpu()):
        raise ValueError(
            "the adapters were trained on other weights than those of MODEL.BACKBONE.WEIGHTS "
            f"(fingerprints {_hex(found)} and {_hex(module.base_fingerprint)}); set "
            "MODEL.BACKBONE.WEIGHTS to the file of the training"
        )
    parameters = dict(module.named_parameters())
    for name in module.base_names:
        state.setdefault(prefix + name, parameters[name].detach())


def _hex(fingerprint: Tensor) -> str:
    return bytes(fingerprint.tolist()).hex()


def merge_adapters(model: Any) -> None:
    """Add the adapters to the weights of their layers, in place, and remove them."""
    if not getattr(model, "base_names", ()):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    model.base_names = frozenset()
