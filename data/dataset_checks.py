"""Looks through a dataset before anything is trained on it: its files, identities, cameras and queries."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ember_reid.data.images import ImageError, num_cpus, open_image
from ember_reid.data.protocols import scoring_rule
from ember_reid.data.records import CROSS_CAMERA, JUNK, Record, Splits, check_test_splits

SUBSETS = ("train", "query", "gallery")
Progress = Callable[[int, int], None]  # told how many of how many are done
TINY = 20  # pixels of the shorter side
ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class FileFacts:
    """An image file: pixels, a digest of its bytes, and why it cannot be used ("" when it can)."""

    width: int
    height: int
    digest: str
    problem: str = ""


@dataclass(frozen=True)
class Finding:
    """Something to know; an "error" makes training fail."""

    level: str
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Settings that suit the data; `size` is (height, width), P identities x K images a batch."""

    size: tuple[int, int]
    num_identities: int
    num_instances: int
    protocol: str


def examine_file(path: Path) -> FileFacts:
    """Decode a file and take the digest of its bytes."""
    try:
        image = open_image(path)
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except ImageError as error:
        return FileFacts(0, 0, "", str(error))
    return FileFacts(*image.size, digest)


def examine_files(
    splits: Splits, *, progress: Callable[[int, int], None] | None = None
) -> dict[Path, FileFacts]:
    """Every file of the dataset once, in threads."""
    paths = list(dict.fromkeys(path for record in _all_records(splits) for path in record.paths))
    facts = {}
    with ThreadPoolExecutor(num_cpus()) as pool:
        for path, fact in zip(paths, pool.map(examine_file, paths), strict=True):
            facts[path] = fact
            if progress is not None:
                progress(len(facts), len(paths))
    return facts


def find_problems(splits: Splits, facts: dict[Path, FileFacts]) -> list[Finding]:
    """All findings, errors first."""
    findings = [
        *find_unusable_files(facts),
        *find_tiny(facts),
        *find_duplicates(splits, facts),
        *find_training_problems(splits.train),
        *find_test_problems(splits),
    ]
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def find_unusable_files(facts: dict[Path, FileFacts]) -> list[Finding]:
    broken = [fact.problem for fact in facts.values() if fact.problem]
    if not broken:
        return []
    text = f"{len(broken)} of {len(facts)} image files cannot be read; repair or remove them, or train without"
    return [Finding(ERROR, f"{text} them: DATALOADER.SKIP_BROKEN True", _some(broken))]


def find_tiny(facts: dict[Path, FileFacts]) -> list[Finding]:
    tiny = [
        f"{path} ({fact.width} x {fact.height})"
        for path, fact in facts.items()
        if not fact.problem and min(fact.width, fact.height) < TINY
    ]
    if not tiny:
        return []
    text = f"{len(tiny)} images are tiny: the shorter side is below {TINY} pixels"
    return [Finding(WARNING, text, _some(tiny))]


def find_duplicates(splits: Splits, facts: dict[Path, FileFacts]) -> list[Finding]:
    """Files of the same bytes: with two identities, in training and test, in query and gallery, or twice."""
    uses: dict[str, set[tuple[str, int, Path]]] = defaultdict(set)
    for subset in SUBSETS:
        for record in getattr(splits, subset):
            for path in record.paths:
                if facts[path].digest:
                    uses[facts[path].digest].add((subset, record.pid, path))
    collisions, leaks, found_themselves, repeats = [], [], [], []
    for group in uses.values():
        files = sorted({path for _, _, path in group})
        shown = " = ".join(str(path) for path in files[:3])
        subsets = {subset for subset, _, _ in group}
        if any(len(_pids(group, part)) > 1 for part in (("train",), ("query", "gallery"))):
            collisions.append(shown)
        if "train" in subsets and len(subsets) > 1:
            leaks.append(shown)
        if {"query", "gallery"} <= subsets and scoring_rule(splits.protocol) != CROSS_CAMERA:
            found_themselves.append(shown)
        if len(files) > 1:
            repeats.append(shown)
    # VehicleID's query and gallery are the same images on purpose: a draw divides them
    if splits.protocol == "one-per-identity":
        found_themselves = []
    cases = (
        (WARNING, collisions, "pictures carry two identities: one of the labels is wrong"),
        (WARNING, leaks, "pictures are trained on and tested on: scores will flatter"),
        (WARNING, found_themselves, "pictures are in query and gallery: such a query finds itself"),
        (NOTE, repeats, "pictures are there several times under different names"),
    )
    return [
        Finding(level, f"{len(some)} {text}", _some(some)) for level, some, text in cases if some
    ]


def _pids(group: Iterable[tuple[str, int, Path]], subsets: tuple[str, ...]) -> set[int]:
    return {pid for subset, pid, _ in group if subset in subsets and pid != JUNK}


def find_training_problems(train: Sequence[Record]) -> list[Finding]:
    if not train:
        return [Finding(ERROR, "there are no training images: it can be tested on only")]
    counts = Counter(record.pid for record in train)
    cameras = cameras_by_pid(train)
    findings = []
    if len(counts) < 2:
        findings.append(
            Finding(ERROR, "there is only one training identity; at least two are needed")
        )
    single = sum(n == 1 for n in counts.values())
    if single:
        text = (
            f"{single} of {len(counts)} training identities have a single image: a batch repeats it"
        )
        findings.append(Finding(WARNING if 2 * single > len(counts) else NOTE, text))
    if len({record.camid for record in train}) > 1:
        alone = sum(len(seen) == 1 for seen in cameras.values())
        if alone:
            text = f"{alone} of {len(counts)} training identities are seen by one camera only"
            findings.append(Finding(WARNING if 2 * alone > len(counts) else NOTE, text))
    return findings


def find_test_problems(splits: Splits) -> list[Finding]:
    """Whether the splits can be tested on, and which queries have no match and why."""
    try:
        checked = check_test_splits(splits)
    except ValueError as error:
        return [Finding(ERROR, str(error))]
    cameras = cameras_by_pid(record for record in splits.gallery if record.pid != JUNK)
    absent = [r for r in splits.query if r.pid not in cameras]
    findings = []
    if absent:
        pids = sorted({record.pid for record in absent})
        text = f"{len(absent)} of {len(splits.query)} queries show an identity that the gallery does not have"
        findings.append(Finding(WARNING, text, tuple(f"identity {pid}" for pid in pids[:5])))
    if scoring_rule(checked.protocol) == CROSS_CAMERA:
        own = [r for r in splits.query if cameras.get(r.pid) == {r.camid}]
        if own:
            text = (
                f"{len(own)} of {len(splits.query)} queries have matches in their own camera only"
            )
            findings.append(Finding(WARNING, text, _some(str(record.paths[0]) for record in own)))
    elif checked.protocol != splits.protocol:
        text = "no query has a match under another camera, so images of its own camera will count"
        findings.append(Finding(WARNING, f'{text} (protocol "{checked.protocol}")'))
    return findings


def advise(splits: Splits, facts: dict[Path, FileFacts]) -> Advice:
    """Input size from the aspect ratios, P x K from the counts, the protocol from the cameras."""
    counts = Counter(record.pid for record in splits.train)
    typical = median(counts.values()) if counts else 4
    instances = 4 if typical >= 4 else 2
    identities = 16
    while identities > max(len(counts), 1):
        identities //= 2
    try:
        protocol = check_test_splits(splits).protocol
    except ValueError:
        protocol = splits.protocol
    sizes = [(fact.height, fact.width) for fact in facts.values() if not fact.problem]
    return Advice(suggest_size(sizes), identities, instances, protocol)


def suggest_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """A usual input size for images of (height, width): upright, square or lying, small for small images."""
    if not sizes:
        return 256, 128
    ratio = median(height / width for height, width in sizes)
    pixels = median(height * width for height, width in sizes)
    size = (256, 128) if ratio > 1.5 else (128, 256) if ratio < 1 / 1.5 else (224, 224)
    return (size[0] // 2, size[1] // 2) if 4 * pixels < size[0] * size[1] else size


def cameras_by_pid(records: Iterable[Record]) -> dict[int, set[int]]:
    cameras: dict[int, set[int]] = {}
    for record in records:
        cameras.setdefault(record.pid, set()).add(record.camid)
    return cameras


def histogram(values: Iterable[int]) -> list[tuple[str, int]]:
    """How many values lie in 1, 2-3, 4-7, 8-15, ...; empty bins at the ends are left out."""
    bins = Counter(value.bit_length() - 1 for value in values if value > 0)
    rows = []
    for power in range(min(bins, default=0), max(bins, default=-1) + 1):
        low, high = 2**power, 2 ** (power + 1) - 1
        rows.append((str(low) if low == high else f"{low}-{high}", bins[power]))
    return rows


def _all_records(splits: Splits) -> list[Record]:
    return [*splits.train, *splits.query, *splits.gallery]


def _some(texts: Iterable[str], number: int = 5) -> tuple[str, ...]:
    texts = list(texts)
    more = (f"... and {len(texts) - number} more",) if len(texts) > number else ()
    return (*texts[:number], *more)
