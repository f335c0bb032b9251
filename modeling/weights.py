"""Loading checkpoints of whole models, ours and those of other programs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ember_reid.config.yaml_reader import read_yaml
from ember_reid.modeling.convert import Converted, convert_state_dict
from ember_reid.modeling.weight_files import (
    LoadReport,
    check_types,
    find_state_dict,
    match_state_dict,
    read_checkpoint,
)
from torch import nn

logger = logging.getLogger("ember.weights")

# Configuration keys that change the output of a model but not the names or shapes of its weights.
ARCHITECTURE_KEYS = (
    "MODEL.BACKBONE.LAST_STRIDE",
    "MODEL.BACKBONE.LAST_DILATION",
    "MODEL.BACKBONE.STEM_RELU",
    "MODEL.BACKBONE.STEM_POOL",
    "MODEL.BACKBONE.LAST_RELU",
    "MODEL.BACKBONE.SEMANTIC_WEIGHT",
    "MODEL.HEAD.TOKENS",
    "MODEL.JPM.SHIFT",
    "MODEL.JPM.SHUFFLE",
    "MODEL.JPM.GROUPS",
    "MODEL.SIE.WEIGHT",
    "MODEL.SIE.TOKENS",
    "MODEL.POOL.NAME",
    "TEST.NECK_FEAT",
    "INPUT.SIZE_TEST",
    "INPUT.INTERPOLATION",
    "INPUT.PIXEL_MEAN",
    "INPUT.PIXEL_STD",
)


def load_weights(model: nn.Module, path: str | Path, *, layout: str = "auto") -> LoadReport:
    """Load a checkpoint of ember-reid or of another program (see modeling/convert.py) into `model`.

    Classifiers may be missing, unexpected or of another shape (other identities). In these cases
    the classifier of the model stays unchanged. If the file was made with other architecture or
    preprocessing settings than the model, each difference is logged as a warning.

    Args:
        model: from build_model.
        path: the weight file.
        layout: "auto", or a key of modeling.convert.LAYOUTS.

    Returns:
        What was loaded; it is also logged.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read (see read_checkpoint), or something other than a
            classifier does not fit. The model is unchanged then.
    """
    content = read_checkpoint(path)
    converted = convert_state_dict(
        find_state_dict(content, path), layout=layout, model_names=model.state_dict()
    )
    tensors = converted.tensors
    report = match_state_dict(model, tensors)
    wrong = [
        n for n in report.missing + report.unexpected + report.mismatched if not _is_classifier(n)
    ]
    if wrong or not report.loaded:
        raise ValueError(
            f"weight file {path} is of another architecture{_describe(converted)}: {report}"
        )
    check_types(model, tensors, path)
    model.load_state_dict({k: tensors[k] for k in report.loaded}, strict=False)
    expected = converted.settings or checkpoint_architecture(content)
    for key, value, own in differing_settings(expected, getattr(model, "architecture", {})):
        logger.warning("%s was made with %s %s, the configuration has %s", path, key, value, own)
    log = logger.info if len(report.loaded) == len(model.state_dict()) else logger.warning
    log("%s%s: %s", path, f" (layout: {converted.layout})" if converted.layout else "", report)
    return report


def _is_classifier(name: str) -> bool:
    # "fc" is the classifier of ImageNet, which IBN-Net's files contain.
    return not {"classifier", "fc"}.isdisjoint(name.split("."))


def _describe(converted: Converted) -> str:
    names = converted.tensors
    if converted.layout:
        settings = ", ".join(f"{key} {value}" for key, value in converted.settings.items())
        return f" (its layout is that of {converted.layout}, which needs {settings})"
    if "fc.weight" in names or any(name.startswith("features.") for name in names):
        return " (it looks like ImageNet weights; set MODEL.BACKBONE.WEIGHTS to this file)"
    return ""


def checkpoint_architecture(content: Any) -> dict[str, Any]:
    """The ARCHITECTURE_KEYS of one of our checkpoints; empty for other files."""
    text = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(text, str):
        return {}
    tree = read_yaml(text, "the checkpoint's configuration")
    found: dict[str, Any] = {}
    for key in ARCHITECTURE_KEYS:
        node: Any = tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            found[key] = tuple(node) if isinstance(node, list) else node
    return found


def differing_settings(
    expected: Mapping[str, Any], own: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(key, expected, own) for each common key that differs; in tuples, by more than 1e-3."""
    differing = []
    for key, value in expected.items():
        if key not in own or own[key] == value:
            continue
        if _are_close(value, own[key]):
            continue
        differing.append((key, value, own[key]))
    return differing


def _are_close(expected: Any, own: Any) -> bool:
    """Whether both are tuples of the same length with numbers that differ by at most 1e-3."""
    if not (isinstance(expected, tuple) and isinstance(own, tuple) and len(expected) == len(own)):
        return False
    if not all(isinstance(number, (int, float)) for number in (*expected, *own)):
        return False
    return all(abs(a - b) <= 1e-3 for a, b in zip(expected, own, strict=True))
