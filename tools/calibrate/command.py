"""Find a decision threshold and estimate its error rates on identities outside the training set.

    python -m tools.calibrate TEST.WEIGHT runs/quickstart/checkpoints/best.pt
    python -m tools.calibrate weights=runs/quickstart/checkpoints/best.pt --fmr 0.01 --fit logistic

Prints the results and writes FILE.calibration.json: the `threshold` for the chosen false-match rate
(two images up to this distance are accepted as the same identity), FNMR at FMR, TPIR at FPIR, and
the probability of the same identity by distance. If the recipe holds out identities
(TEST.VALIDATION), these are used, otherwise those of the first test set. See
docs/how-to/calibrate.md.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.data.build import build_splits
from ember_reid.data.records import JUNK, Splits
from ember_reid.engine.build import (
    build_benchmarks,
    build_device,
    build_trained_model,
    read_test_config,
)
from ember_reid.engine.deploy.detect import check_checkpoint
from ember_reid.engine.files import replace_text
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.evaluate import QueryGallery, identification_scores, verification_scores
from ember_reid.tools.calibrate.calibration import (
    FITS,
    Histograms,
    collect_histograms,
    fit_probability,
    half_open_gallery,
    intervals,
)
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo

# Minimum number of false matches for a reliable threshold.
FEW = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument(
        "--fmr",
        type=float,
        default=0.001,
        help="false-match rate of the threshold (default %(default)s)",
    )
    parser.add_argument("--fit", choices=FITS, default="isotonic", help="default: %(default)s")
    parser.add_argument(
        "--prior",
        type=float,
        default=0.5,
        help="expected share of pairs of the same identity, for the probabilities "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        help="confidence of the intervals (default %(default)s)",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        help="resamples of the bootstrap (default %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the weights' name + .calibration.json"
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    path, calibration = calibrate(options)
    for line in describe(calibration):
        echo(line)
    echo(path)


def calibrate(arguments: argparse.Namespace) -> tuple[Path, dict]:
    """Embed the held-out identities, measure, and write; return the file and its content."""
    for name in ("fmr", "prior", "confidence"):
        if not 0 < getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}, it must be between 0 and 1")
    if arguments.resamples < 10:
        raise ValueError(f"--resamples is {arguments.resamples}, it must be at least 10")
    named = dict(zip(arguments.overrides[::2], arguments.overrides[1::2], strict=False)).get(
        "TEST.WEIGHT"
    )
    if named:
        check_checkpoint(Path(named))
    cfg = read_test_config(arguments.config, arguments.overrides)
    device = build_device(cfg)
    corpus = build_splits(cfg, train=cfg.TEST.VALIDATION > 0)
    name, splits = next(iter((corpus.validation or corpus.tests).items()))
    check_pairs(name, splits)
    model = build_trained_model(cfg, device)
    benchmark = build_benchmarks(cfg, {name: splits}, model, device)[name]
    embedded = EmbeddingBatch(*(tensor.cpu() for tensor in benchmark.embed()))
    weights = Path(cfg.TEST.WEIGHT)
    calibration = {
        "dataset": name,
        "identities": "held out of training (TEST.VALIDATION)"
        if corpus.validation
        else "of the test set",
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        **measure(embedded, len(benchmark.query), arguments, metric=cfg.TEST.METRIC, seed=cfg.SEED),
    }
    path = arguments.out or weights.with_name(weights.name + ".calibration.json")
    replace_text(path, json.dumps(calibration, indent=2, allow_nan=False) + "\n")
    return path, calibration


def check_pairs(name: str, splits: Splits) -> None:
    """Raise ValueError if no pair has the same identity, or no pair has different ones."""
    gallery = {(record.pid, record.camid) for record in splits.gallery if record.pid != JUNK}
    cameras_by_pid: dict[int, set[int]] = {}
    for pid, camid in gallery:
        cameras_by_pid.setdefault(pid, set()).add(camid)
    if not any(cameras_by_pid.get(record.pid, set()) - {record.camid} for record in splits.query):
        raise ValueError(
            f"no identity of {name} appears under two different cameras ({len(splits.query)} "
            f"queries, {len(splits.gallery)} gallery entries), so there is no pair to calibrate "
            "on; name another test set with DATASETS.TESTS"
        )
    if len({record.pid for record in splits.query} | set(cameras_by_pid)) < 2:
        raise ValueError(
            f"{name} has a single identity; calibration also needs pairs of different identities"
        )


def measure(embedded: EmbeddingBatch, num_query: int, arguments, *, metric: str, seed: int) -> dict:
    """Measure the content of the file. The first `num_query` rows are the queries."""
    sets = QueryGallery.split(
        embedded.embeddings, embedded.pids.numpy(), embedded.camids.numpy(), num_query
    )
    fmrs = tuple(sorted({arguments.fmr, 1e-4, 1e-3, 1e-2, 1e-1}))
    exact = verification_scores(*sets, metric=metric, fprs=fmrs)
    histograms = collect_histograms(sets, metric=metric)
    bootstrap = {
        "confidence": arguments.confidence,
        "num_resamples": arguments.resamples,
        "seed": seed,
    }
    threshold_bounds, fnmr_bounds = intervals(histograms, fmrs, **bootstrap)
    rows = [
        {
            "fmr": rate,
            "threshold": float(exact.threshold[k]),
            "threshold_interval": [float(bound[k]) for bound in threshold_bounds],
            "fnmr": float(1 - exact.tpr[k]),
            "fnmr_interval": [float(bound[k]) for bound in fnmr_bounds],
            "false_matches": int(np.floor(rate * exact.num_different)),
        }
        for k, rate in enumerate(fmrs)
        if rate == arguments.fmr or rate * exact.num_different >= 1
    ]
    chosen = next(row for row in rows if row["fmr"] == arguments.fmr)
    return {
        "metric": metric,
        "unit": "1 - cosine" if metric == "cosine" else "squared Euclidean distance",
        "threshold": chosen["threshold"],
        "false_match_rate": arguments.fmr,
        "warning": _warn(chosen),
        "num_identities": histograms.num_identities,
        "num_same_pairs": exact.num_same,
        "num_different_pairs": exact.num_different,
        "confidence": arguments.confidence,
        "fnmr_at_fmr": rows,
        "tpir_at_fpir": _identification(sets, metric=metric, **bootstrap),
        "probability": _probability(histograms, arguments),
    }


def _warn(row: dict) -> str:
    if row["false_matches"] >= FEW:
        return ""
    return (
        f"a false-match rate of {row['fmr']:g} is {row['false_matches']} of these pairs, so the "
        "threshold rests on very few of them: choose a higher --fmr or calibrate on more identities"
    )


def _identification(
    sets: QueryGallery, *, metric: str, confidence: float, num_resamples: int, seed: int
) -> list[dict]:
    """TPIR at FPIR with every second identity removed from the gallery; [] if none remains."""
    kept = half_open_gallery(sets.query_pids, sets.gallery_pids, seed=seed)
    half_open = sets._replace(
        gallery=sets.gallery[kept],
        gallery_pids=sets.gallery_pids[kept],
        gallery_camids=sets.gallery_camids[kept],
    )
    try:
        scores = identification_scores(
            *half_open,
            metric=metric,
            fpirs=(0.001, 0.01, 0.1),
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
    except ValueError:
        return []
    return [
        {
            "fpir": float(scores.fpir[k]),
            "tpir": float(scores.tpir[k]),
            "tpir_interval": [float(scores.low[k]), float(scores.high[k])],
            "threshold": float(scores.threshold[k]),
        }
        for k in range(len(scores.fpir))
        if scores.fpir[k] * scores.num_unmated >= 1
    ]


def _probability(histograms: Histograms, arguments) -> dict:
    distances, probabilities = fit_probability(
        histograms, method=arguments.fit, prior=arguments.prior
    )
    return {
        "method": arguments.fit,
        "prior": arguments.prior,
        "distances": distances.tolist(),
        "probabilities": probabilities.tolist(),
    }


def describe(calibration: dict) -> list[str]:
    """The calibration for a terminal."""
    percent = f"{calibration['confidence']:.0%}"
    lines = [
        f"{calibration['dataset']} ({calibration['identities']}): {calibration['num_identities']} "
        f"identities, {calibration['num_same_pairs']:,} same and "
        f"{calibration['num_different_pairs']:,} different pairs",
        f"threshold {calibration['threshold']:.4f} ({calibration['unit']}) at a false-match rate "
        f"of {calibration['false_match_rate']:g}",
        f"   FMR      threshold   FNMR   ({percent} interval)",
    ]
    for row in calibration["fnmr_at_fmr"]:
        low, high = row["fnmr_interval"]
        lines.append(
            f"{row['fmr']:>9g}   {row['threshold']:>7.4f}   {row['fnmr']:6.2%}  ({low:.2%} to "
            f"{high:.2%})"
        )
    if calibration["tpir_at_fpir"]:
        lines.append(
            f"   FPIR     threshold   TPIR   ({percent} interval), every second identity unknown"
        )
    for row in calibration["tpir_at_fpir"]:
        low, high = row["tpir_interval"]
        lines.append(
            f"{row['fpir']:>9g}   {row['threshold']:>7.4f}   {row['tpir']:6.2%}  ({low:.2%} to "
            f"{high:.2%})"
        )
    if calibration["warning"]:
        lines.append(f"warning: {calibration['warning']}")
    return lines


main = Command("calibrate", __doc__ or "", add_options, run).main
