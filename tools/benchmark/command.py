"""How fast, in how much memory: measurements on this machine, each against a yardstick taken in the same run.

    python -m tools.benchmark evaluate --shape market1501 --rerank

One subcommand a part of the program; docs/performance.md holds results and says how to read them.
"""

import argparse
import sys

from ember_reid.tools.benchmark import (
    distill,
    evaluate,
    latency,
    search,
    train,
)


def create_parser() -> argparse.ArgumentParser:
    """One subparser a subcommand; each module adds its options and the function that runs it."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in {
        "distill": distill,
        "evaluate": evaluate,
        "latency": latency,
        "search": search,
        "train": train,
    }.items():
        command = commands.add_parser(
            name, help=module.__doc__.splitlines()[0], description=module.__doc__
        )
        module.add_options(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parses, runs, and turns a mistake of the user into one line and exit code 2."""
    options = create_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
