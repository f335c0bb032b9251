"""Check a dataset before training, and report problems on the terminal and as an HTML page.

    python -m tools.doctor csv:cows.csv
    python -m tools.doctor quickstart:datasets/quickstart/market1501 --out doctor.html

Exit code: 0 if the dataset can be used for training, 1 if not, 2 if the command is invalid.
"""

import argparse
import sys
from pathlib import Path

from ember_reid.data.datasets import resolve
from ember_reid.tools.common.cli import Command, describe, echo
from ember_reid.tools.doctor.checks import check, format_report
from ember_reid.tools.doctor.page import write_page

# Exit code for datasets that cannot be used for training.
UNUSABLE = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "data", metavar="DATA", help="NAME, NAME:/path, csv:/path/list.csv or folder:/path"
    )
    parser.add_argument(
        "--root", default="datasets", help="folder of datasets given by name (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="HTML page to write (default doctor-NAME.html)"
    )


def run(options: argparse.Namespace) -> int:
    """Check the dataset, and print and write the report."""
    try:
        source = resolve(options.data, Path(options.root))
    except OSError as error:
        return _report_unusable(error)
    page = options.out or Path(f"doctor-{source.name}.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = check(source)
    except (ValueError, OSError) as error:
        return _report_unusable(error)
    write_page(page, report)
    echo(format_report(report))
    echo(f"\nHTML page: {page}")
    return UNUSABLE if report.fails else 0


def _report_unusable(error: Exception) -> int:
    echo(f"doctor: training would fail: {describe(error)}", file=sys.stderr)
    return UNUSABLE


main = Command("doctor", __doc__ or "", add_options, run).main
