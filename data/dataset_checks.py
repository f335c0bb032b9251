"""Check files, identities, cameras and queries of a dataset before training; suggest settings."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ember_reid.data.images import GIB, ImageError, num_cpus, open_image, show_path
from ember_reid.data.protocols import SCORING_RULES
from ember_reid.data.records import (
    CROSS_CAMERA,
    JUNK,
    SUBSETS,
    Record,
    Splits,
    cameras_by_pid,
    check_test_splits,
)

# Called with the number of finished files and of all files.
Progress = Callable[[int, int], None]
# Pixels of the shorter side.
TINY = 20
ERROR, WARNING, NOTE = "error", "warning", "note"
# An input size fits if its aspect ratio differs from that of the images by at most this factor.
MAX_STRETCH = 1.5
# Re-ranking usually lowers the scores if the median query has fewer matches.
FEW_MATCHES = 3
# Sparse entries of 12 bytes per image in k-reciprocal re-ranking, all tables together.
RERANK_ENTRIES = 200


@dataclass(frozen=True)
class FileFacts:
    """An image file: its size, a digest of its bytes, and why it is unusable ("" if it is not)."""

    width: int
    height: int
    digest: str
    problem: str = ""


@dataclass(frozen=True)
class Finding:
    """A problem of the data; with the level "error" training fails."""

    level: str
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Suggested settings: size (height, width), a batch of P identities x K images, protocol."""

    size: tuple[int, int]
    num_identities: int
    num_instances: int
    protocol: str


def examine_file(path: Path) -> FileFacts:
    """Decode a file and compute the digest of its bytes."""
    try:
        image = open_image(path)
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except ImageError as error:
        return FileFacts(0, 0, "", str(error))
    width, height = image.size
    return FileFacts(width, height, digest)


def examine_files(splits: Splits, *, progress: Progress | None = None) -> dict[Path, FileFacts]:
    """Examine every file of the dataset once, in threads."""
    paths = list(dict.fromkeys(path for record in splits.records() for path in record.paths))
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
        *find_few_matches(splits),
    ]
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def find_unusable_files(facts: dict[Path, FileFacts]) -> list[Finding]:
    """Files that cannot be decoded."""
    broken = [fact.problem for fact in facts.values() if fact.problem]
    if not broken:
        return []
    text = (
        f"{len(broken)} of {len(facts)} image files cannot be read; repair or remove them, or train"
        " without them: DATALOADER.SKIP_BROKEN True"
    )
    return [Finding(ERROR, text, _some(broken))]


def find_tiny(facts: dict[Path, FileFacts]) -> list[Finding]:
    """Images with a shorter side of fewer than `TINY` pixels."""
    tiny = [
        f"{show_path(path)} ({fact.width} x {fact.height})"
        for path, fact in facts.items()
        if not fact.problem and min(fact.width, fact.height) < TINY
    ]
    if not tiny:
        return []
    text = f"{len(tiny)} images are tiny: the shorter side is below {TINY} pixels"
    return [Finding(WARNING, text, _some(tiny))]


def find_duplicates(splits: Splits, facts: dict[Path, FileFacts]) -> list[Finding]:
    """Files with the same bytes.

    These are duplicates with two identities, in training and test, in query and gallery (where a
    query would find itself), and repeated files.
    """
    uses: dict[str, set[tuple[str, int, Path]]] = defaultdict(set)
    for subset in SUBSETS:
        for record in getattr(splits, subset):
            for path in record.paths:
                if facts[path].digest:
                    uses[facts[path].digest].add((subset, record.pid, path))
    collisions, leaks, found_themselves, repeats = [], [], [], []
    for group in uses.values():
        files = sorted({path for _, _, path in group})
        shown = " = ".join(show_path(path) for path in files[:3])
        subsets = {subset for subset, _, _ in group}
        if any(len(_pids(group, part)) > 1 for part in (("train",), ("query", "gallery"))):
            collisions.append(shown)
        if "train" in subsets and len(subsets) > 1:
            leaks.append(shown)
        if {"query", "gallery"} <= subsets and SCORING_RULES[splits.protocol] != CROSS_CAMERA:
            found_themselves.append(shown)
        if len(files) > 1:
            repeats.append(shown)
    # In the protocol of VehicleID, query and gallery are random subsets of the same images.
    if splits.protocol == "one-per-identity":
        found_themselves = []
    cases = (
        (WARNING, collisions, "images have two identities: one of the labels is wrong"),
        (WARNING, leaks, "images are in training and test: scores will be too optimistic"),
        (
            WARNING,
            found_themselves,
            "images are in query and gallery: these queries find themselves",
        ),
        (NOTE, repeats, "images occur several times under different names"),
    )
    return [
        Finding(level, f"{len(some)} {text}", _some(some)) for level, some, text in cases if some
    ]


def _pids(group: Iterable[tuple[str, int, Path]], subsets: tuple[str, ...]) -> set[int]:
    return {pid for subset, pid, _ in group if subset in subsets and pid != JUNK}


def find_training_problems(train: Sequence[Record]) -> list[Finding]:
    """Too few identities, identities with a single image, identities of a single camera."""
    if not train:
        return [
            Finding(ERROR, "there are no training images: the data can be used for testing only")
        ]
    counts = Counter(record.pid for record in train)
    cameras = cameras_by_pid(train)
    findings = []
    if len(counts) < 2:
        findings.append(
            Finding(ERROR, "there is only one training identity; at least two are needed")
        )
    single = sum(n == 1 for n in counts.values())
    if single:
        text = f"{single} of {len(counts)} training identities have one image, which batches repeat"
        findings.append(Finding(WARNING if 2 * single > len(counts) else NOTE, text))
    if len({record.camid for record in train}) > 1:
        alone = sum(len(seen) == 1 for seen in cameras.values())
        if alone:
            text = f"{alone} of {len(counts)} training identities are seen by one camera only"
            findings.append(Finding(WARNING if 2 * alone > len(counts) else NOTE, text))
    return findings


def find_test_problems(splits: Splits) -> list[Finding]:
    """Whether the splits can be tested on, and which queries have no match, with the reason."""
    try:
        checked = check_test_splits(splits)
    except ValueError as error:
        return [Finding(ERROR, str(error))]
    cameras = cameras_by_pid(record for record in splits.gallery if record.pid != JUNK)
    absent = [r for r in splits.query if r.pid not in cameras]
    findings = []
    if absent:
        pids = sorted({record.pid for record in absent})
        text = (
            f"{len(absent)} of {len(splits.query)} queries have an identity that is not in the"
            " gallery"
        )
        findings.append(Finding(WARNING, text, tuple(f"identity {pid}" for pid in pids[:5])))
    if SCORING_RULES[checked.protocol] == CROSS_CAMERA:
        own = [r for r in splits.query if cameras.get(r.pid) == {r.camid}]
        if own:
            text = (
                f"{len(own)} of {len(splits.query)} queries have matches in their own camera only"
            )
            findings.append(
                Finding(WARNING, text, _some(show_path(record.paths[0]) for record in own))
            )
    elif checked.protocol != splits.protocol:
        text = "no query has a match under another camera, so images of its own camera will count"
        findings.append(Finding(WARNING, f'{text} (protocol "{checked.protocol}")'))
    return findings


def find_few_matches(splits: Splits) -> list[Finding]:
    """Whether queries have so few matches that re-ranking is likely to lower the scores.

    k-reciprocal re-ranking averages over the neighbors of an image. With one match per query most
    of these neighbors are other identities.
    """
    cross_camera = SCORING_RULES[splits.protocol] == CROSS_CAMERA
    views = Counter((r.pid, r.camid) for r in splits.gallery if r.pid != JUNK)
    totals: Counter[int] = Counter()
    for (pid, _), number in views.items():
        totals[pid] += number
    matches = [totals[r.pid] - (views[r.pid, r.camid] if cross_camera else 0) for r in splits.query]
    matched = [number for number in matches if number]
    if not matched or median(matched) >= FEW_MATCHES:
        return []
    text = (
        f"the median query has {median(matched):g} matches in the gallery: re-ranking"
        " (TEST.RE_RANKING) is likely to lower the scores"
    )
    return [Finding(NOTE, text)]


def find_size_mismatch(facts: dict[Path, FileFacts], size: tuple[int, int]) -> list[Finding]:
    """Whether resizing to `size` (height, width) distorts the median image by over MAX_STRETCH."""
    sizes = _readable_sizes(facts)
    if not sizes:
        return []
    ratio = median(height / width for height, width in sizes)
    stretch = ratio / (size[0] / size[1])
    if 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
        return []
    height, width = suggest_size(sizes)
    text = (
        f"the median image is {ratio:.2f} times as high as wide, the input size {size[0]} x"
        f" {size[1]} (height x width) distorts it; {height} x {width} fits"
    )
    return [Finding(WARNING, text)]


def estimate_reranking_gib(num_images: int, *, tiles_gib: float) -> float:
    """Memory of k-reciprocal re-ranking, in GiB.

    Args:
        num_images: query and gallery together.
        tiles_gib: the limit for tiles of distances (TEST.MEMORY_GIB). Small data needs less: never
            more than the whole float32 matrix.
    """
    matrix_gib = 4 * num_images**2 / GIB
    return 12 * RERANK_ENTRIES * num_images / GIB + min(tiles_gib, matrix_gib)


def advise(splits: Splits, facts: dict[Path, FileFacts]) -> Advice:
    """Input size from the images, P x K from the counts, the protocol from the cameras."""
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
    return Advice(suggest_size(_readable_sizes(facts)), identities, instances, protocol)


def suggest_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """An input size (height, width) for images of these sizes (height, width).

    It has the median aspect ratio (at most 4 : 1) and about as many pixels as is usual: 256 x 128,
    or 224 x 224 if the images are nearly square; a quarter of that for small images. Both sides are
    multiples of 32, or of 16 for small images.
    """
    if not sizes:
        return 256, 128
    ratio = min(max(median(height / width for height, width in sizes), 1 / 4), 4)
    pixels = 224 * 224 if 1 / 1.5 <= ratio <= 1.5 else 256 * 128
    height = 32 * round(math.sqrt(pixels * ratio) / 32)
    width = 32 * round(math.sqrt(pixels / ratio) / 32)
    is_small = 4 * median(height * width for height, width in sizes) < pixels
    return (height // 2, width // 2) if is_small else (height, width)


def _readable_sizes(facts: dict[Path, FileFacts]) -> list[tuple[int, int]]:
    return [(fact.height, fact.width) for fact in facts.values() if not fact.problem]


def histogram(values: Iterable[int]) -> list[tuple[str, int]]:
    """Counts of the values in 1, 2-3, 4-7, 8-15, ...; empty bins at the ends are left out."""
    bins = Counter(value.bit_length() - 1 for value in values if value > 0)
    rows = []
    for power in range(min(bins, default=0), max(bins, default=-1) + 1):
        low, high = 2**power, 2 ** (power + 1) - 1
        rows.append((str(low) if low == high else f"{low}-{high}", bins[power]))
    return rows


def _some(texts: Iterable[str], number: int = 5) -> tuple[str, ...]:
    texts = list(texts)
    more = (f"... and {len(texts) - number} more",) if len(texts) > number else ()
    return (*texts[:number], *more)
