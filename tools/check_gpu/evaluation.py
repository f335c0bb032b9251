"""Part 5: scores from features on the GPU are those on the CPU."""

import time

import numpy as np
import torch
from ember_reid.evaluate import (
    Rerank,
    evaluate_features,
    expand_features,
    identification_scores,
    verification_scores,
)
from ember_reid.tools.benchmark.evaluate import SHAPES, TestSet, create_test_set
from ember_reid.tools.benchmark.machine import synchronize
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import Setting

TOLERANCE = 1e-5
FPRS = (0.01, 0.1)


def check(setting: Setting, result: Result) -> None:
    """Compare all kinds of scores, also where TF32 is on for everything else."""
    shape = SHAPES["tiny" if setting.rehearse else "market1501"]
    data = create_test_set(shape, 32 if setting.rehearse else 512, torch.device("cpu"))
    expected = _scores(data)
    there = data._replace(
        query=data.query.to(setting.device), gallery=data.gallery.to(setting.device)
    )
    precision = torch.get_float32_matmul_precision()
    for name in ("highest", "high"):
        torch.set_float32_matmul_precision(name)
        synchronize()
        started = time.perf_counter()
        found = _scores(there)
        result.record(f"time, {name}", f"{time.perf_counter() - started:.2f} s")
        for kind, values in expected.items():
            gap = float(np.abs(values - found[kind]).max())
            result.at_most(f"{kind}, GPU - CPU, matmul precision {name}", gap, TOLERANCE)
    torch.set_float32_matmul_precision(precision)


def _scores(data: TestSet) -> dict[str, np.ndarray]:
    """mAP, mINP and CMC, or rates, of each kind."""

    def retrieval(query, gallery, rerank: Rerank | None = None) -> np.ndarray:
        scores = evaluate_features(query, gallery, *data.ids, rerank=rerank)
        return np.array([scores.mAP, scores.mINP, *scores.cmc])

    # Features of -1 and 1 have integer products, many of which are equal.
    ties = data.query.sign(), data.gallery.sign()
    labeled = (data.query, data.gallery, *data.ids)
    # Open-set rates need queries without a match: the first identity is not in the gallery.
    query_pids, gallery_pids, *camids = data.ids
    others = np.where(gallery_pids == query_pids[0], gallery_pids.max() + 1, gallery_pids)
    opened = (data.query, data.gallery, query_pids, others, *camids)
    return {
        "plain": retrieval(data.query, data.gallery),
        "re-ranked": retrieval(data.query, data.gallery, Rerank()),
        "query expansion": retrieval(*expand_features(data.query, data.gallery)),
        "ties": retrieval(*ties),
        "verification": np.asarray(verification_scores(*labeled, fprs=FPRS).tpr),
        "identification": np.asarray(identification_scores(*opened, fpirs=FPRS).tpir),
    }
