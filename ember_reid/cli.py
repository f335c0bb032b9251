"""The command `ember-reid`: one name for training, testing and all tools.

A subcommand is imported when it is called, so that `ember-reid --help` appears at once.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ember_reid import __version__
from ember_reid.tools.common.cli import Command, CommandGroup, add_overrides, add_recipe, echo

DESCRIPTION = """
Train, evaluate and distill re-identification networks.

    ember-reid train market1501/bot_R50 DATASETS.ROOT /data epochs=60 out=runs/bot
    ember-reid test runs/bot/checkpoints/best.pt

A recipe is a file or the name of a shipped one. KEY VALUE, KEY=VALUE and the short names data=,
model=, weights=, epochs=, batch=, device=, out= and seed= can be mixed.
"""
TRAIN = """Train a network, then evaluate it.

    ember-reid train quickstart/people
    ember-reid train quickstart/people data=cows.csv epochs=20 out=runs/cows

`ember-reid recipes` lists the shipped recipes. Results are in OUTPUT_DIR/results.json, weights in
OUTPUT_DIR/checkpoints/best.pt.
"""
TEST = """Test a checkpoint. Its recipe is in the file, unless -c names another one.

    ember-reid test runs/quickstart/checkpoints/best.pt out=runs/tested
    ember-reid test weights.pth -c market1501/bot_R50 DATASETS.ROOT /data
"""
RESUME = """Continue a training run from its last checkpoint.

    ember-reid resume runs/quickstart
    ember-reid resume runs/quickstart epochs=20
"""
DEMO = """Render synthetic people, train a small network on them, and show ranked results.

    ember-reid demo

Writes datasets/quickstart and runs/quickstart in the current directory. Takes some minutes on two
CPU cores.
"""
# Arguments of the three steps of the demo.
DEMO_DATA = ["datasets/quickstart", "--images", "--overwrite"]
DEMO_RUN = Path("runs/quickstart")
DEMO_PAGE = ["--queries", "random", "--count", "12", "--out", str(DEMO_RUN / "ranked")]


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ember-reid train`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a file or the name of a shipped recipe")
    add_overrides(parser)


def run_train(options: argparse.Namespace) -> int:
    """Train with the functions of main.py."""
    return _train(options.recipe, options.overrides, debug=options.debug)


def add_test_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ember-reid test`."""
    parser.add_argument("checkpoint", metavar="FILE", help="a checkpoint, or a weight file with -c")
    add_recipe(parser)
    add_overrides(parser)


def run_test(options: argparse.Namespace) -> int:
    """Test with the functions of main.py."""
    program = import_module("ember_reid.main")
    words = [*options.overrides, "TEST.WEIGHT", options.checkpoint]
    return _report_errors(
        lambda: program.test(program.read_test_config(options.config, words)), debug=options.debug
    )


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ember-reid resume`."""
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of the run")
    add_overrides(parser)


def run_resume(options: argparse.Namespace) -> int:
    """Continue with the recipe in the folder of the run."""
    recipe = options.folder / "config.yml"
    if not recipe.is_file():
        raise FileNotFoundError(
            f"{options.folder} is not the folder of a run: it has no config.yml"
        )
    words = [*options.overrides, "OUTPUT_DIR", str(options.folder)]
    return _train(str(recipe), words, resume=True, debug=options.debug)


def run_demo(options: argparse.Namespace) -> int:
    """Render, train and visualize."""
    render = import_module("ember_reid.tools.quickstart_data").main
    visualize = import_module("ember_reid.tools.visualize").main
    weights = ["TEST.WEIGHT", str(DEMO_RUN / "checkpoints" / "best.pt")]
    training = ["OVERWRITE", "True", *options.overrides, "OUTPUT_DIR", str(DEMO_RUN)]
    code = (
        render(DEMO_DATA, prog="ember-reid demo")
        or _train("quickstart/people", training, debug=options.debug)
        or visualize([*weights, *DEMO_PAGE], prog="ember-reid demo")
    )
    if not code:
        echo(f"scores: {DEMO_RUN / 'results.json'}   log: {DEMO_RUN / 'log.txt'}")
        echo(f"ranked results: {DEMO_RUN / 'ranked' / 'index.html'}")
    return code


def _train(recipe: str, words: list[str], *, resume: bool = False, debug: bool) -> int:
    """Train a recipe; returns the exit code."""
    program = import_module("ember_reid.main")
    return _report_errors(
        lambda: program.train(program.load_config(recipe, words), resume=resume), debug=debug
    )


def _report_errors(action: Callable[[], object], *, debug: bool) -> int:
    """Run the action; returns the exit code."""
    import_module("ember_reid.engine.handlers.logs").setup_logging()
    launch = import_module("ember_reid.engine.run.launch")
    return launch.report_errors(action, program="ember-reid", debug=debug)


train = Command("train", TRAIN, add_train_options, run_train).main
test = Command("test", TEST, add_test_options, run_test).main
resume = Command("resume", RESUME, add_resume_options, run_resume).main
demo = Command("demo", DEMO, add_overrides, run_demo).main

_COMMANDS = {
    "train": ("ember_reid.cli:train", "train a network, then evaluate it"),
    "test": ("ember_reid.cli:test", "test a checkpoint"),
    "resume": ("ember_reid.cli:resume", "continue a training run"),
    "demo": ("ember_reid.cli:demo", "render data, train and show results, in minutes"),
    "recipes": ("ember_reid.tools.recipes:main", "list recipes with dataset, network and score"),
    "explain": ("ember_reid.tools.explain:main", "describe a recipe, or compare two"),
    "crops": ("ember_reid.tools.crops:main", "cut crops out of videos along tracks"),
    "leave-one-out": (
        "ember_reid.tools.leave_one_out:main",
        "train without each dataset, test on it",
    ),
    "doctor": ("ember_reid.tools.doctor:main", "check a dataset before training"),
    "report": ("ember_reid.tools.report:main", "write a page about training runs"),
    "visualize": ("ember_reid.tools.visualize:main", "show ranked retrieval results"),
    "heatmaps": ("ember_reid.tools.heatmaps:main", "show what embeddings depend on"),
    "calibrate": ("ember_reid.tools.calibrate:main", "find a decision threshold"),
    "convert": ("ember_reid.tools.convert:main", "convert weights of other codebases"),
    "export": ("ember_reid.tools.export:main", "export to ONNX and other formats"),
    "embed": ("ember_reid.tools.extract:main", "write the embeddings of images to a file"),
    "search": ("ember_reid.tools.search:main", "find similar images in a file of embeddings"),
    "link": ("ember_reid.tools.link:main", "link tracklets of several cameras to identities"),
    "label": ("ember_reid.tools.label:main", "propose identities of crops, and correct them"),
    "gallery": ("ember_reid.tools.gallery:main", "keep known identities and find them again"),
    "serve": ("ember_reid.tools.serve:main", "enroll and query a gallery over HTTP"),
    "check-gpu": ("ember_reid.tools.check_gpu:main", "check a GPU: results, speed and memory"),
    "benchmark": ("ember_reid.tools.benchmark:main", "measure speed and memory"),
}
COMMANDS = CommandGroup("ember-reid", DESCRIPTION, _COMMANDS)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-V", "--version"):
        echo(f"ember-reid {__version__}")
        return 0
    return COMMANDS.main(arguments, prog="ember-reid")
