"""Check a dataset before training, print what is found, and write it as an HTML page.

    python -m tools.doctor csv:cows.csv
    python -m tools.doctor quickstart:datasets/quickstart/market1501 --out doctor.html

Exit code: 0 if the dataset can be used for training, 1 if not, 2 if the command itself is wrong.
"""

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from ember_reid.config import load_config
from ember_reid.data.dataset_checks import (
    ERROR,
    SUBSETS,
    Advice,
    Finding,
    advise,
    cameras_by_pid,
    examine_files,
    find_problems,
    histogram,
)
from ember_reid.data.datasets import read, resolve
from ember_reid.data.images import GIB, free_memory
from ember_reid.data.records import JUNK, Splits, statistics_table
from ember_reid.tools.common.cli import Command, describe, echo
from ember_reid.tools.doctor.page import write_page
from tqdm import tqdm

ACTIVATION_BYTES = 2200  # per input pixel of ResNet-50 in training, float32; a rule of thumb
RESNET50_DIM = 2048
RERANK_ENTRIES = 200  # sparse entries per image in k-reciprocal re-ranking, all tables together
FAILS = 1  # exit code
BAR = 40  # characters of the longest bar


class Chart(NamedTuple):
    """Counts with a title: rows of (label, count)."""

    title: str
    rows: list[tuple[str, int]]


class Report(NamedTuple):
    """Everything that is printed and written."""

    title: str
    table: str
    findings: list[Finding]
    charts: list[Chart]
    advice: list[str]

    @property
    def fails(self) -> bool:
        return any(finding.level == ERROR for finding in self.findings)


class _Collector(logging.Handler):
    """Keeps the warnings of the readers as findings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings: list[Finding] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.findings.append(Finding("warning", record.getMessage()))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", help="NAME, NAME:/path, csv:/path/list.csv or folder:/path")
    parser.add_argument(
        "--root", default="datasets", help="where a bare NAME lies (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default doctor-NAME.html)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    try:
        source = resolve(options.data, Path(options.root))
    except OSError as error:
        echo(f"doctor: training would fail: {describe(error)}", file=sys.stderr)
        return FAILS
    page = options.out or Path(f"doctor-{source.name}.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = examine(source)
    except (ValueError, OSError) as error:
        echo(f"doctor: training would fail: {describe(error)}", file=sys.stderr)
        return FAILS
    write_page(page, report)
    echo(as_text(report))
    echo(f"\nas a page: {page}")
    return FAILS if report.fails else 0


def examine(source) -> Report:
    """Read the dataset and every file of it. Raises ValueError and OSError when it cannot be read at all."""
    collector = _Collector()
    logger = logging.getLogger("ember.data")
    logger.addHandler(collector)
    try:
        splits = read(source)
        noticed = list(collector.findings)
        with tqdm(unit=" files", desc="reading", disable=None, leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            facts = examine_files(splits, progress=progress)
        findings = find_problems(splits, facts)
        suggested = advise(splits, facts)
    finally:
        logger.removeHandler(collector)
    return Report(
        title=f"{splits.name}: {source.path}",
        table=statistics_table(splits),
        findings=sorted([*noticed, *findings], key=lambda finding: finding.level != ERROR),
        charts=draw_charts(splits, facts),
        advice=[*describe_advice(suggested), *describe_memory(splits, suggested)],
    )


def draw_charts(splits: Splits, facts) -> list[Chart]:
    """Images per identity, images per camera, cameras per identity, sizes."""
    charts = []
    for subset in SUBSETS:
        records = [record for record in getattr(splits, subset) if record.pid != JUNK]
        if not records:
            continue
        counts = Counter(record.pid for record in records)
        charts.append(Chart(f"{subset}: identities by number of items", histogram(counts.values())))
        cameras = Counter(record.camid for record in records)
        rows = [(f"camera {camid + 1}", cameras[camid]) for camid in sorted(cameras)]
        charts.append(Chart(f"{subset}: items by camera", rows))
        seen = Counter(len(cameras) for cameras in cameras_by_pid(records).values())
        charts.append(
            Chart(
                f"{subset}: identities by number of cameras",
                [(str(n), seen[n]) for n in sorted(seen)],
            )
        )
    heights = [fact.height for fact in facts.values() if not fact.problem]
    charts.append(Chart("all files by height in pixels", histogram(heights)))
    return charts


def describe_advice(advice: Advice) -> list[str]:
    """Settings as they are typed."""
    height, width = advice.size
    batch = advice.num_identities * advice.num_instances
    return [
        f"input size: INPUT.SIZE_TRAIN ({height},{width}) INPUT.SIZE_TEST ({height},{width})",
        f"batch: SOLVER.IMS_PER_BATCH {batch} DATALOADER.NUM_INSTANCES {advice.num_instances}"
        f" ({advice.num_identities} identities x {advice.num_instances})",
        f"protocol: {advice.protocol}",
    ]


def describe_memory(splits: Splits, advice: Advice) -> list[str]:
    """What caching, training, evaluation and re-ranking need, beside what this machine has."""
    pixels = advice.size[0] * advice.size[1]
    batch = advice.num_identities * advice.num_instances
    num_train = sum(len(record.paths) for record in splits.train)
    num_test = len(splits.query) + len(splits.gallery)
    training = batch * pixels * ACTIVATION_BYTES / GIB + 0.5
    tiles = load_config().TEST.MEMORY_GIB
    reranking = num_test * RERANK_ENTRIES * 12 / GIB + tiles
    return [
        f"memory, decoded training images in the cache: {num_train * 3 * pixels / GIB:.2f} GiB",
        f"memory, training ResNet-50 at this size and batch: about {training:.1f} GiB,"
        " half of it with SOLVER.FP16 True",
        f"memory, evaluation: {num_test * RESNET50_DIM * 4 / GIB:.2f} GiB of features"
        f" and at most {tiles:g} GiB of distances (TEST.MEMORY_GIB)",
        f"memory, re-ranking: about {reranking:.1f} GiB"
        f" (whole {num_test} x {num_test} matrices would take {4 * num_test**2 / GIB:.1f} GiB each)",
        f"this machine: {free_memory() / GIB:.1f} GiB of memory are free, {_describe_device()}",
    ]


def _describe_device() -> str:
    if not torch.cuda.is_available():
        return "no GPU"
    free, _ = torch.cuda.mem_get_info()
    return f"{free / GIB:.1f} GiB free on {torch.cuda.get_device_name()}"


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [report.title, "", report.table, ""]
    for finding in report.findings:
        lines.append(f"{finding.level.upper()}: {finding.text}")
        lines.extend(f"    {example}" for example in finding.examples)
    if not report.findings:
        lines.append("nothing to complain about")
    for chart in report.charts:
        lines.extend(["", chart.title, *_bars(chart.rows)])
    lines.extend(["", "advice", *(f"  {line}" for line in report.advice), ""])
    lines.append("training on it would FAIL" if report.fails else "it can be trained on")
    return "\n".join(lines)


def _bars(rows: list[tuple[str, int]]) -> list[str]:
    most = max((count for _, count in rows), default=1)
    width = max((len(label) for label, _ in rows), default=0)
    return [
        f"  {label:>{width}} {'#' * -(-BAR * count // most):<{BAR}} {count}"
        for label, count in rows
    ]


main = Command("doctor", __doc__ or "", add_options, run).main
