r"""Link the tracklets of several cameras: one identity per individual.

    python -m tools.link crops/crops.csv weights=runs/quickstart/checkpoints/best.pt \
        --out linked --threshold 0.3
    python -m tools.link crops/crops.csv weights=runs/quickstart/checkpoints/best.pt \
        --out linked --threshold 0.3 --travel travel.csv --offset cam2 1.5 --score

CROPS.csv has the columns path, camid and track, as tools.crops writes it, and if known, time and
pid. A tracklet is all rows with one camera and one track. Its embedding is the mean of its crops.
Two tracklets of one camera that overlap in time are different individuals. FILE of --travel has the
columns from, to, min_seconds and max_seconds: how long it takes from one camera to another.

Writes OUT/links.csv (the identity of each tracklet), OUT/crops.csv (the list with the linked
identities, to train on), OUT/index.html and OUT/summary.json. See docs/how-to/link.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.evaluate.agglomeration import average_linkage, find_near_pairs, silhouettes
from ember_reid.tools.common.cli import Command, add_recipe, check_at_least, echo
from ember_reid.tools.common.inputs import ImageFile, split_overrides
from ember_reid.tools.common.model_arguments import add_trust_argument
from ember_reid.tools.common.stored_network import choose_threshold, open_network
from ember_reid.tools.extract.chunks import embed_chunks
from ember_reid.tools.link.constraints import (
    Constraints,
    TravelTimes,
    check_camera,
    read_travel_times,
)
from ember_reid.tools.link.output import PAGE, Links, check_folder, write_links
from ember_reid.tools.link.score import score_links
from ember_reid.tools.link.tracklets import (
    CropList,
    Tracklet,
    group_tracklets,
    parse_seconds,
    read_crops,
    shift_times,
    spread,
)


@dataclass(frozen=True, eq=False)
class _Embedded:
    """Tracklets with at least one readable crop.

    Attributes:
        tracklets: N tracklets.
        embeddings: float32 [N, D] of unit length.
        num_without: tracklets without a readable crop.
        problems: one line per image that cannot be read.
    """

    tracklets: list[Tracklet]
    embeddings: np.ndarray
    num_without: int
    problems: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--threshold",
        default="auto",
        metavar="DISTANCE",
        help="largest mean cosine distance of two groups of tracklets that become one identity "
        "(default: the calibrated one, see tools.calibrate)",
    )
    parser.add_argument(
        "--travel",
        type=Path,
        metavar="FILE",
        help="CSV with the columns from, to, min_seconds, max_seconds; an empty cell is no limit",
    )
    parser.add_argument(
        "--offset",
        nargs=2,
        action="append",
        default=[],
        metavar=("CAMERA", "SECONDS"),
        help="added to the times of a camera, or of a source such as source001; several possible",
    )
    parser.add_argument("--no-times", action="store_true", help="ignore the column time")
    parser.add_argument(
        "--per-track",
        type=int,
        default=16,
        metavar="N",
        help="crops per tracklet that are embedded, spread over it; 0: all (default %(default)s)",
    )
    parser.add_argument(
        "--score", action="store_true", help="compare with the identities in the column pid"
    )
    parser.add_argument(
        "--show", type=int, default=50, help="identities on the page (default %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="images at a time (default %(default)s)"
    )
    add_trust_argument(parser)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CROPS.csv | KEY VALUE",
        help="the list of crops, TEST.WEIGHT FILE, and other keys",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    for line in link(options):
        echo(line)


def link(options: argparse.Namespace) -> Iterator[str]:
    """Link the tracklets of a list and write the files; yields lines for the user.

    Raises:
        FileNotFoundError, ValueError: options or files that cannot be used.
    """
    check_at_least(options, per_track=0, show=0, batch=1)
    keys, sources = split_overrides(options.words)
    if len(sources) != 1:
        raise ValueError(
            f"give one list of crops, found {len(sources)}: CROPS.csv TEST.WEIGHT FILE"
        )
    crops = read_crops(Path(sources[0]))
    tracklets, travel = _read_times(crops, options)
    check_folder(options.out, crops.path)
    embedder, network = open_network(keys, recipe=options.config, trust=options.trust)
    threshold = choose_threshold(options.threshold, network)
    if threshold is None:
        raise ValueError(
            "there is no calibrated threshold for this network: run tools.calibrate, or give "
            "--threshold DISTANCE"
        )
    embedded = embed_tracklets(
        crops, tracklets, embedder, per_track=options.per_track, batch_size=options.batch
    )
    yield from embedded.problems
    links, num_pairs = _link(crops, embedded, threshold, travel)
    summary: dict[str, object] = {
        "identities": int(links.labels.max()) + 1,
        "tracklets": len(links.tracklets),
        "tracklets_without_image": embedded.num_without,
        "tracklets_without_time": sum(item.first is None for item in links.tracklets),
        "crops": sum(len(item.rows) for item in links.tracklets),
        "crops_without_track": sum(not row["track"] for row in crops.rows),
        "near_pairs": num_pairs,
        "threshold": threshold,
        "network": embedder.metadata.fingerprint,
    }
    if options.score:
        summary["scores"] = scores = score_links(crops, links.tracklets, links.labels)
        apart = score_links(crops, links.tracklets, np.arange(len(links.tracklets)))
        summary["scores_of_unlinked_tracklets"] = apart
    write_links(options.out, links, summary, max_identities=options.show)
    if options.score:
        yield _describe("linked", scores)
        yield _describe("every tracklet by itself", apart)
    for key in ("without_image", "without_time"):
        if summary[f"tracklets_{key}"]:
            yield f"tracklets {key.replace('_', ' any ')}: {summary[f'tracklets_{key}']}"
    yield (
        f"{options.out / PAGE}: {summary['tracklets']} tracklets, {summary['identities']} "
        f"identities, threshold {threshold:.4f}"
    )


def _read_times(crops: CropList, options: argparse.Namespace) -> tuple[list[Tracklet], TravelTimes]:
    """The tracklets, with times on one clock, and the travel times."""
    if options.no_times and (options.travel or options.offset):
        raise ValueError("--no-times excludes --travel and --offset")
    tracklets = group_tracklets(crops, use_times=not options.no_times)
    cameras = {tracklet.camid for tracklet in tracklets}
    known = cameras | {tracklet.source for tracklet in tracklets} - {""}
    offsets: dict[str, float] = {}
    for camera, seconds in options.offset:
        check_camera(camera, known, "--offset")
        offsets[camera] = parse_seconds(seconds, f"--offset {camera}")
    travel = read_travel_times(options.travel, cameras) if options.travel else TravelTimes({})
    return shift_times(tracklets, offsets), travel


def embed_tracklets(
    crops: CropList,
    tracklets: Sequence[Tracklet],
    embedder: Embedder,
    *,
    per_track: int,
    batch_size: int,
) -> _Embedded:
    """The normalized mean embedding of each tracklet.

    Args:
        per_track: number of crops per tracklet; 0: all.

    Raises:
        ValueError: no image can be read.
    """
    chosen = [
        (owner, crops.path.parent / crops.rows[row]["path"])
        for owner, tracklet in enumerate(tracklets)
        for row in spread(tracklet.rows, per_track)
    ]
    sums = np.zeros((len(tracklets), embedder.metadata.embedding_dim))
    problems: list[str] = []
    images = [ImageFile(path) for _, path in chosen]
    for start, part in embed_chunks(images, embedder, batch_size):
        owners = [chosen[start + position][0] for position in part["positions"]]
        np.add.at(sums, owners, part["embeddings"])
        problems += [
            f"left out: {chosen[start + position][1]}: {reason}"
            for position, reason in zip(part["broken"], part["reasons"], strict=True)
        ]
    lengths = np.linalg.norm(sums, axis=1)
    kept = np.flatnonzero(lengths)
    if not len(kept):
        raise ValueError(f"none of the {len(chosen)} images can be read; {problems[0]}")
    embeddings = (sums[kept] / lengths[kept, None]).astype(np.float32)
    return _Embedded(
        [tracklets[owner] for owner in kept.tolist()],
        embeddings,
        len(tracklets) - len(kept),
        problems,
    )


def _link(
    crops: CropList, embedded: _Embedded, threshold: float, travel: TravelTimes
) -> tuple[Links, int]:
    """The identities of the tracklets, and the number of near pairs."""
    pairs = find_near_pairs(embedded.embeddings, 2 * threshold)
    conflict = Constraints(embedded.tracklets, travel).conflict
    labels = average_linkage(len(embedded.tracklets), pairs, threshold=threshold, conflict=conflict)
    confidence = silhouettes(labels, pairs, threshold=threshold, conflict=conflict)
    return Links(crops, embedded.tracklets, labels, confidence), len(pairs)


def _describe(name: str, scores: dict[str, dict[str, float]]) -> str:
    detections, pairs = scores["detections"], scores["pairs"]
    return (
        f"{name}: IDF1 {detections['idf1']:.1%} (precision {detections['idp']:.1%}, recall "
        f"{detections['idr']:.1%}); pairs of tracklets: F1 {pairs['f1']:.1%} (precision "
        f"{pairs['precision']:.1%}, recall {pairs['recall']:.1%})"
    )


main = Command(
    "link", __doc__ or "", add_options, run, interrupted="interrupted; run it again"
).main
