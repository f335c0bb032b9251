"""Our weights by the names and shapes of other re-identification programs.

This is the inverse of `convert`. The tables contain facts about the programs, none of their code.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ember_reid.modeling.convert import convert_state_dict
from ember_reid.modeling.namings import Rules, rename
from torch import Tensor

_FASTREID_STEM: Rules = (
    (r"^backbone\.conv1\.", "backbone.0."),
    (r"^backbone\.bn1\.", "backbone.1."),
    (r"^backbone\.layer1\.", "backbone.4."),
    (r"^backbone\.layer2\.", "backbone.5."),
    (r"^backbone\.layer3\.0\.", "backbone.6."),
)
_FASTREID_HEADS: Rules = (
    (r"^head\.parts\.(b\d+)\.", r"\1_head."),
    (r"^head\.", "heads."),
    (r"\.pool\.p$", ".pool_layer.p"),
    (r"(head\w*)\.classifier\.weight$", r"\1.weight"),
)


def _fastreid(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Current FastReID: ResNets with a global head, and MGN."""
    reduced = any(".reduction." in name for name in tensors)
    rules: list[tuple[str, str]] = []
    for stage in "1234":
        blocks = _numbers(tensors, rf"backbone\.layer{stage}\.(\d+)\.")
        non_local = _numbers(tensors, rf"backbone\.layer{stage}\.nl(\d+)\.")
        first = len(blocks) - len(non_local)
        rules += [
            (rf"^backbone\.layer{stage}\.nl{block}\.", f"backbone.NL_{stage}.{block - first}.")
            for block in non_local
        ]
    if any(name.startswith("backbone.branches.") for name in tensors):
        rules += _FASTREID_STEM
        for branch in "012":
            prefix = rf"^backbone\.branches\.{branch}\."
            rules += [
                (rf"{prefix}layer3\.{block}\.", f"b{int(branch) + 1}.0.{block - 1}.")
                for block in range(1, 40)
            ]
            rules.append((rf"{prefix}layer4\.", f"b{int(branch) + 1}.1."))
    rules += _FASTREID_HEADS
    rules += [
        (r"\.neck\.", f".bottleneck.{int(reduced)}."),
        (r"\.reduction\.0\.", ".bottleneck.0."),
    ]
    renamed = rename(tensors, tuple(rules))
    # Reductions are 1x1 convolutions: [D, C] -> [D, C, 1, 1].
    return {
        name: tensor[:, :, None, None]
        if name.endswith("bottleneck.0.weight") and tensor.dim() == 2
        else tensor
        for name, tensor in renamed.items()
    }


def _torchreid(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchreid: OSNet, and ResNets without a neck."""
    rules: list[tuple[str, str]] = []
    block = r"^(backbone\.conv[234]\.\d)\.conv2"
    if "backbone.conv2.0.conv2.0.0.conv1.weight" in tensors:
        instance_norms = [
            name.removesuffix(".weight")
            for name in tensors
            if re.fullmatch(r"backbone\.conv[234]\.\d\.conv3\.bn\.weight", name)
            and name.replace("weight", "running_mean") not in tensors
        ]
        if instance_norms:
            rules += [(rf"^{re.escape(n)}\.", n.replace("conv3.bn", "IN.")) for n in instance_norms]
            rules.append((rf"{block}\.(\d)\.(\d)\.", r"\1.conv2.\2.layers.\3."))
        else:
            rules.append((rf"{block}\.0\.0\.", r"\1.conv2a."))
            rules += [
                (rf"{block}\.{k}\.(\d)\.", rf"\1.conv2{letter}.\2.")
                for k, letter in enumerate("bcd", start=1)
            ]
            rules.append((r"^backbone\.pool([23])\.0\.", r"backbone.conv\1.2.0."))
    rules += [
        (r"^head\.reduction\.", "fc."),
        (r"^head\.classifier\.", "classifier."),
        (r"^backbone\.", ""),
    ]
    renamed = rename(tensors, tuple(rules))
    for layer in ("fc.0", "classifier"):
        weight = renamed.get(f"{layer}.weight")
        if weight is not None:
            renamed.setdefault(f"{layer}.bias", torch.zeros(len(weight), device=weight.device))
    return renamed


def _numbers(tensors: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The different numbers in names that match, in order."""
    return sorted({int(match[1]) for name in tensors if (match := re.match(pattern, name))})


# Program: (function, what the program supports).
EXPORTERS: dict[str, tuple[Callable[[Mapping[str, Tensor]], dict[str, Tensor]], str]] = {
    "fastreid": (_fastreid, "ResNet or ResNeSt, with a global head or MGN"),
    "torchreid": (
        _torchreid,
        "OSNet with MODEL.HEAD.REDUCTION bn_relu, or ResNet, with MODEL.HEAD.NECK none",
    ),
}
TORCHREID_NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet50_fc512",
    "resnet101",
    "resnet152",
    "resnet50_ibn_a",
    "osnet_x1_0",
    "osnet_x0_75",
    "osnet_x0_5",
    "osnet_x0_25",
    "osnet_ain_x1_0",
)


def torchreid_name(backbone: str, exported: Mapping[str, Tensor]) -> str:
    """The name of a network in torchreid.

    Args:
        backbone: MODEL.BACKBONE.NAME.
        exported: tensors by the names of torchreid.

    Raises:
        ValueError: torchreid has no such network.
    """
    dim = len(exported["fc.0.weight"]) if "fc.0.weight" in exported else 0
    usual = 512 if backbone.startswith("osnet") else 0
    name = backbone if dim == usual else f"{backbone}_fc{dim}"
    if name not in TORCHREID_NETWORKS:
        raise ValueError(
            f"torchreid has no network {name} (fc: MODEL.HEAD.EMBEDDING_DIM); it has "
            f"{', '.join(TORCHREID_NETWORKS)}"
        )
    return name


def required_settings(exported: Mapping[str, Tensor], layout: str) -> dict[str, Any]:
    """Values of our configuration with which our network computes the same as the other program.

    The names and shapes of the weights do not show them.

    Args:
        exported: tensors by the names of the other program.
        layout: a key of EXPORTERS.
    """
    found = {
        key: value
        for key, value in convert_state_dict(exported, layout=layout).settings.items()
        if not key.startswith("INPUT.")
    }
    found |= {
        "MODEL.BACKBONE.STEM_RELU": True,
        "MODEL.BACKBONE.LAST_RELU": True,
        "MODEL.BACKBONE.WIDTH": 1.0,
    }
    if layout == "fastreid":
        found |= {"MODEL.HEAD.REDUCTION": "linear", "TEST.NECK_FEAT": "after"}
        if any(".NL_" in name for name in exported):
            found["MODEL.BACKBONE.NON_LOCAL_WIDTH"] = 1
            found["MODEL.BACKBONE.NON_LOCAL"] = _fastreid_non_local(exported)
    else:
        found |= {"MODEL.BACKBONE.STEM_POOL": "padded", "MODEL.POOL.NAME": "avg"}
        if "layer4.0.conv1.weight" in exported:
            found["MODEL.BACKBONE.LAST_STRIDE"] = 1 if "fc.0.weight" in exported else 2
    return found


def _fastreid_non_local(exported: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Non-local blocks per stage; FastReID's ResNeSt and ResNets below 50 layers have none."""
    is_resnest = any(name.startswith("backbone.conv1.6.") for name in exported)
    if is_resnest or "backbone.layer1.0.conv3.weight" not in exported:
        return ()
    return (0, 2, 9 if "backbone.layer3.22.conv1.weight" in exported else 3, 0)


def export_state_dict(tensors: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The tensors by the names of another program.

    Args:
        tensors: the state dict of one of our models.
        layout: a key of EXPORTERS.

    Raises:
        ValueError: the program has no such network, which is found by converting back.
    """
    exporter, supported = EXPORTERS[layout]
    exported = exporter(tensors)
    restored = convert_state_dict(exported, layout=layout, model_names=tensors).tensors
    added = {"head.classifier.bias"}
    same = restored.keys() - added == tensors.keys() - added and all(
        torch.equal(restored[name], tensor) for name, tensor in tensors.items()
    )
    # Our names for a part that the program does not have.
    foreign = {
        "fastreid": r"head\.|backbone\.(conv[2-9]|features|stages|branches)|.*\.nl\d",
        "torchreid": r"head\.|backbone\.|features|branches",
    }
    ours = [name for name in exported if re.match(foreign[layout], name)]
    if not same or ours:
        raise ValueError(
            f"{layout} has no such network; supported: {supported}"
            + (f" (found {ours[0]})" if ours else "")
        )
    return exported
