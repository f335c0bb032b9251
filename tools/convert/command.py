r"""Convert a checkpoint of another codebase to ours, which contains its recipe.

    python -m tools.convert market_sbs_R50-ibn.pth --from fastreid \
        -c market1501/sbs_R50-ibn -o sbs.pt

Supported: fastreid (current code and the model zoo of 2020), strong-baseline, syncbn, vkd and
torchreid. `auto` recognizes the codebase by the names of the tensors (strong-baseline and syncbn
use the same names). No code in the file is executed. All tensors except the classifier must fit the
recipe. A warning lists settings that differ from the file; --adopt uses those of the file.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import is_ours, save_checkpoint
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.integrity import verify_content
from ember_reid.modeling import build_model, load_weights
from ember_reid.modeling.convert import LAYOUTS, convert_state_dict
from ember_reid.modeling.weight_files import find_state_dict, read_checkpoint
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
        "-c", "--config", required=True, metavar="RECIPE", help="a recipe with the same network"
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


def _words(switches: Mapping[str, Any]) -> list[str]:
    return [word for key, value in switches.items() for word in (key, str(value))]


def _num_classes(tensors: Mapping[str, Tensor]) -> int:
    """Rows of the first classifier; 1 if the file has none."""
    rows = [len(tensor) for name, tensor in tensors.items() if name.endswith("classifier.weight")]
    return rows[0] if rows else 1


main = Command("convert", __doc__ or "", add_options, run).main
