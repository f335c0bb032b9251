"""The findings and the advice of the doctor about one dataset."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ember_reid.config import load_config
from ember_reid.data.dataset_checks import (
    ERROR,
    SUBSETS,
    Advice,
    FileFacts,
    Finding,
    advise,
    cameras_by_pid,
    estimate_reranking_gib,
    examine_files,
    find_problems,
    find_size_mismatch,
    histogram,
)
from ember_reid.data.datasets import Source, read
from ember_reid.data.images import GIB, free_memory
from ember_reid.data.records import JUNK, Splits, statistics_table
from tqdm import tqdm

# Bytes per input pixel of ResNet-50 in training, float32; a rule of thumb.
ACTIVATION_BYTES = 2200
RESNET50_DIM = 2048
# Characters of the longest bar.
BAR = 40


@dataclass(frozen=True)
class Chart:
    """A bar chart: a title and rows of (label, count)."""

    title: str
    rows: tuple[tuple[str, int], ...]

    @property
    def largest(self) -> int:
        """The largest count."""
        return max((count for _, count in self.rows), default=1)


@dataclass(frozen=True)
class Report:
    """The content of the report."""

    title: str
    table: str
    findings: tuple[Finding, ...]
    charts: tuple[Chart, ...]
    advice: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether training on the dataset would fail."""
        return any(finding.level == ERROR for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.fails:
            return "Training on this dataset would fail"
        return "The dataset can be used for training"


class _Collector(logging.Handler):
    """Collect the warnings of the dataset readers as findings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings: list[Finding] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.findings.append(Finding("warning", record.getMessage()))


def check(source: Source) -> Report:
    """Read the dataset and each of its files.

    Raises:
        ValueError, OSError: the dataset cannot be read at all.
    """
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
        size = load_config().INPUT.SIZE_TRAIN
        findings = [*find_problems(splits, facts), *find_size_mismatch(facts, size)]
        suggested = advise(splits, facts)
    finally:
        logger.removeHandler(collector)
    return Report(
        title=f"{splits.name}: {source.path}",
        table=statistics_table(splits),
        findings=tuple(sorted([*noticed, *findings], key=lambda finding: finding.level != ERROR)),
        charts=tuple(create_charts(splits, facts)),
        advice=(*describe_advice(suggested), *describe_memory(splits, suggested)),
    )


def create_charts(splits: Splits, facts: Mapping[Path, FileFacts]) -> list[Chart]:
    """Images per identity, images per camera, cameras per identity, and image heights."""
    charts = []
    for subset in SUBSETS:
        records = [record for record in getattr(splits, subset) if record.pid != JUNK]
        if not records:
            continue
        counts = Counter(record.pid for record in records)
        title = f"{subset}: identities by number of items"
        charts.append(Chart(title, tuple(histogram(counts.values()))))
        cameras = Counter(record.camid for record in records)
        rows = tuple((f"camera {camid + 1}", cameras[camid]) for camid in sorted(cameras))
        charts.append(Chart(f"{subset}: items by camera", rows))
        seen = Counter(len(cameras) for cameras in cameras_by_pid(records).values())
        rows = tuple((str(number), seen[number]) for number in sorted(seen))
        charts.append(Chart(f"{subset}: identities by number of cameras", rows))
    heights = [fact.height for fact in facts.values() if not fact.problem]
    charts.append(Chart("all files by height in pixels", tuple(histogram(heights))))
    return charts


def describe_advice(advice: Advice) -> list[str]:
    """The suggested settings as command-line words."""
    height, width = advice.size
    batch = advice.num_identities * advice.num_instances
    return [
        f"input size: INPUT.SIZE_TRAIN ({height},{width}) INPUT.SIZE_TEST ({height},{width})",
        f"batch: SOLVER.IMS_PER_BATCH {batch} DATALOADER.NUM_INSTANCES {advice.num_instances}"
        f" ({advice.num_identities} identities x {advice.num_instances})",
        f"protocol: {advice.protocol}",
    ]


def describe_memory(splits: Splits, advice: Advice) -> list[str]:
    """Memory for caching, training, evaluation and re-ranking, and memory of this machine."""
    pixels = advice.size[0] * advice.size[1]
    batch = advice.num_identities * advice.num_instances
    num_train = sum(len(record.paths) for record in splits.train)
    num_test = len(splits.query) + len(splits.gallery)
    training = batch * pixels * ACTIVATION_BYTES / GIB + 0.5
    tiles = load_config().TEST.MEMORY_GIB
    reranking = estimate_reranking_gib(num_test, tiles_gib=tiles)
    return [
        f"memory, decoded training images in the cache: {num_train * 3 * pixels / GIB:.2f} GiB",
        f"memory, training ResNet-50 at this size and batch: about {training:.1f} GiB,"
        " half of it with SOLVER.FP16 True",
        f"memory, evaluation: {num_test * RESNET50_DIM * 4 / GIB:.2f} GiB of features"
        f" and at most {tiles:g} GiB of distances (TEST.MEMORY_GIB)",
        f"memory, re-ranking: about {reranking:.2g} GiB (complete {num_test} x {num_test} "
        f"matrices would take {4 * num_test**2 / GIB:.1f} GiB each)",
        f"this machine: {free_memory() / GIB:.1f} GiB of memory free, {_describe_device()}",
    ]


def _describe_device() -> str:
    if not torch.cuda.is_available():
        return "no GPU"
    free, _ = torch.cuda.mem_get_info()
    return f"{free / GIB:.1f} GiB free on {torch.cuda.get_device_name()}"


def format_report(report: Report) -> str:
    """The report for a terminal."""
    lines = [report.title, "", report.table, ""]
    for finding in report.findings:
        lines.append(f"{finding.level.upper()}: {finding.text}")
        lines.extend(f"    {example}" for example in finding.examples)
    if not report.findings:
        lines.append("no problems were found")
    for chart in report.charts:
        lines.extend(["", chart.title, *_bars(chart.rows)])
    lines.extend(["", "advice", *(f"  {line}" for line in report.advice), ""])
    lines.append(report.verdict)
    return "\n".join(lines)


def _bars(rows: Sequence[tuple[str, int]]) -> list[str]:
    most = max((count for _, count in rows), default=1)
    width = max((len(label) for label, _ in rows), default=0)
    return [
        f"  {label:>{width}} {'#' * -(-BAR * count // most):<{BAR}} {count}"
        for label, count in rows
    ]
