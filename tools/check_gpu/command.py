"""Check that training and evaluation work on this machine's GPU, and measure their speed.

    python -m tools.check_gpu --out gpu_check

Takes at most eight minutes and needs neither a dataset nor a download. Each part runs in a process
of its own; after each, DIR/check.json and DIR/index.html contain everything found so far. Exit
code: 0 if all checks passed, 1 if some failed, 2 without a GPU.
"""

import argparse
import time
from pathlib import Path

from ember_reid.tools.check_gpu.parts import PARTS, TOTAL_LIMIT, run_part
from ember_reid.tools.check_gpu.results import FAIL, PASS, Result, write_summary
from ember_reid.tools.common.cli import Command, echo


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the results"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="run all parts on the CPU with tiny sizes"
    )
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        metavar="NAMES",
        help="parts to run, separated by commas (default: all: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the parts, write their results after each, and print them."""
    names = options.parts.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"--parts names {unknown[0][:40]!r}, choose from {', '.join(PARTS)}")
    if not options.rehearse:
        from ember_reid.engine.run.cluster import find_gpu_problem

        problem = find_gpu_problem()
        if problem:
            raise ValueError(f"no GPU to check: {problem}; --rehearse runs all parts on the CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + TOTAL_LIMIT
    titles = {name: part.title for name, part in PARTS.items()}
    results: list[Result] = []
    for name, part in PARTS.items():
        if name not in names:
            continue
        remaining = deadline - time.monotonic()
        if remaining < 1:
            results.append(Result(name, error="not started: the time was over"))
        else:
            limit = min(part.limit, remaining)
            results.append(run_part(name, options.out, rehearse=options.rehearse, limit=limit))
        _print(part.title, results[-1])
        write_summary(options.out, results, titles)
    failed = [result.name for result in results if not result.passed]
    echo(f"\n{FAIL}: {', '.join(failed)}" if failed else f"\n{PASS}: all checks")
    echo(f"as a page: {options.out / 'index.html'}")
    return 1 if failed else 0


def _print(title: str, result: Result) -> None:
    echo(f"\n{title} ({result.seconds:.0f} s)")
    for name, value in result.values.items():
        echo(f"      {name}: {value}")
    for check in result.checks:
        echo(f"{check}")
    if result.error:
        echo(f"{FAIL}  {result.error}")


main = Command("check_gpu", __doc__ or "", add_options, run).main
