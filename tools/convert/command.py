r"""Convert a checkpoint of another codebase to ours, which contains its recipe.

    python -m tools.convert market_sbs_R50-ibn.pth --from fastreid \
        -c market1501/sbs_R50-ibn -o sbs.pt
    python -m tools.convert mine.pth --to fastreid -o theirs.pth

Supported: fastreid (current code and the model zoo of 2020), strong-baseline, syncbn, vkd and
torchreid. `auto` recognizes the codebase by the names of the tensors (strong-baseline and syncbn
use the same names). No code in the file is executed. All tensors except the classifier must fit the
recipe. A warning lists settings that differ from the file; --adopt uses those of the file. --to
writes one of our checkpoints for fastreid or torchreid.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ember_reid.config import Config, load_config
from ember_reid.engine.build import build_trained_model
from ember_reid.engine.checkpoint import is_ours, save_checkpoint
from ember_reid.engine.deploy.build import read_inference_config
from ember_reid.engine.deploy.metadata import PIXELS
from ember_reid.engine.files import replaced_file
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.integrity import verify_content
from ember_reid.modeling import build_model, load_weights
from ember_reid.modeling.convert import LAYOUTS, convert_state_dict
from ember_reid.modeling.export_layouts import (
    EXPORTERS,
    export_state_dict,
    required_settings,
    torchreid_name,
)
from ember_reid.modeling.weight_files import find_state_dict, read_checkpoint
from ember_reid.modeling.weights import differing_settings
from ember_reid.tools.common.cli import Command, add_overrides, echo
from torch import Tensor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the checkpoint of the other codebase"
    )
    parser.add_argument(
        "--from",
        dest="layout",
        default="auto",
        choices=("auto", *LAYOUTS),
        help="the other codebase (default auto)",
    )
    parser.add_argument(
        "--to", choices=tuple(EXPORTERS), help="write our checkpoint FILE for another program"
    )
    parser.add_argument(
        "-c", "--config", metavar="RECIPE", help="a recipe with the same network (not with --to)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="the checkpoint to write"
    )
    parser.add_argument(
        "--adopt", action="store_true", help="use the architecture settings of the other codebase"
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    echo(convert(options))


def convert(arguments: argparse.Namespace) -> str:
    """Write the checkpoint; return a line that describes it.

    Raises:
        FileNotFoundError, ValueError: see modeling.load_weights; or OUT exists.
    """
    if arguments.out.exists():
        raise ValueError(f"{arguments.out} exists; choose another name with -o or remove it")
    if arguments.to:
        return export_checkpoint(arguments)
    if not arguments.config:
        raise ValueError("give the recipe of the same network with -c")
    content = read_checkpoint(arguments.file)
    if is_ours(content):
        verify_content(content, arguments.file)
    tensors = find_state_dict(content, arguments.file)
    converted = convert_state_dict(tensors, layout=arguments.layout)
    switches = _words(converted.settings) if arguments.adopt else []
    cfg = load_config(arguments.config, [*switches, *arguments.overrides])
    num_classes = _num_classes(converted.tensors)
    model = build_model(cfg, num_classes=num_classes, pretrained=False)
    report = load_weights(model, arguments.file, layout=arguments.layout)
    with torch.no_grad():
        saved = {"config": cfg.dump(), "num_classes": num_classes, "model": model.state_dict()}
    save_checkpoint(
        arguments.out,
        {**saved, "converted": {"from": converted.layout, "file": arguments.file.name}},
    )
    source = converted.layout or "ember-reid"
    return f"{arguments.out}: from {source}, {num_classes} identities, {report}"


def export_checkpoint(arguments: argparse.Namespace) -> str:
    """Write our checkpoint in the layout of another program; return a line that describes it.

    Raises:
        ValueError: the program has no such network, computes something else with its weights, or
            normalizes images in another way; or the file is not a checkpoint of ours.
    """
    if arguments.config or arguments.adopt or arguments.layout != "auto":
        raise ValueError("--to excludes -c, --adopt and --from")
    words = [*arguments.overrides, "TEST.WEIGHT", str(arguments.file), "DEVICE", "cpu"]
    cfg = read_inference_config(None, words)
    found = tuple(map(tuple, (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)))
    if found != PIXELS["imagenet"]:
        raise ValueError(f"{arguments.to} normalizes images as for ImageNet, not with {found}")
    model = build_trained_model(cfg, torch.device("cpu"))
    with torch.no_grad():
        tensors = export_state_dict(model.state_dict(), arguments.to)
    _check_settings(cfg, tensors, arguments.to)
    num_classes = _num_classes(model.state_dict())
    size = list(cfg.INPUT.SIZE_TEST)
    content: dict[str, Any] = {"model": tensors}
    # torchreid reads the tensors, BoxMOT also the name of the network and its size.
    if arguments.to == "torchreid":
        name = torchreid_name(cfg.MODEL.BACKBONE.NAME, tensors)
        content = {"state_dict": tensors, "model_name": name, "num_classes": num_classes}
        content |= {"preprocess": "resize", "img_size": size, "epoch": 0}
    with replaced_file(arguments.out) as draft:
        torch.save(content, draft)
    return (
        f"{arguments.out}: for {arguments.to}, {len(tensors)} tensors, {num_classes} identities, "
        f"images of {size[0]} x {size[1]} pixels"
    )


def _check_settings(cfg: Config, tensors: Mapping[str, Tensor], program: str) -> None:
    """Raise ValueError if the program computes something else with these weights."""
    expected = required_settings(tensors, program)
    own = {key: _read(cfg, key) for key in expected}
    differing = differing_settings(expected, own)
    if differing:
        needed = ", ".join(f"{key} {value} (here {here})" for key, value, here in differing)
        raise ValueError(
            f"{program} would compute other embeddings with these weights: its networks have "
            f"{needed}; train with these settings"
        )


def _read(cfg: Config, key: str) -> Any:
    node = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _words(switches: Mapping[str, Any]) -> list[str]:
    return [word for key, value in switches.items() for word in (key, str(value))]


def _num_classes(tensors: Mapping[str, Tensor]) -> int:
    """Rows of the first classifier; 1 if the file has none."""
    rows = [len(tensor) for name, tensor in tensors.items() if name.endswith("classifier.weight")]
    return rows[0] if rows else 1


main = Command("convert", __doc__ or "", add_options, run).main
