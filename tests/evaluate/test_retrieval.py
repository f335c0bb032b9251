import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from ember_reid.evaluate import Rerank, evaluate_features, rank_metrics, retrieval
from ember_reid.evaluate.distances import distance_matrix
from ember_reid.evaluate.fast import tiles
from ember_reid.evaluate.fast.matmul_backends import PRODUCTS
from ember_reid.evaluate.fast.tiles import choose_product, full_precision

from tests.helpers.synthetic import clustered_features, random_ids


def case(seed=0, num_query=30, num_gallery=150, junk=True):
    generator = np.random.default_rng(seed)
    ids = random_ids(generator, num_query, num_gallery, junk=junk)
    query = clustered_features(generator, ids[0])
    gallery = clustered_features(generator, np.maximum(ids[1], 0))
    return query, gallery, ids


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "ROWS_CPU", 7)
    monkeypatch.setattr(retrieval, "COLUMNS", 33)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("backend", ["auto", "python"])
def test_equals_ranking_the_whole_matrix(small_tiles, metric, backend):
    for seed in range(4):
        query, gallery, ids = case(seed)
        wide = [features.astype(np.float64) for features in (query, gallery)]
        if metric == "cosine":
            wide = [features / np.linalg.norm(features, axis=1, keepdims=True) for features in wide]
        distances = ((wide[0][:, None] - wide[1][None]) ** 2).sum(axis=2)
        expected = rank_metrics(distances, *ids)
        scores = evaluate_features(query, gallery, *ids, metric=metric, backend=backend)
        np.testing.assert_allclose(scores.ap, expected.ap, atol=1e-12)
        np.testing.assert_allclose(scores.inp, expected.inp, atol=1e-12)
        np.testing.assert_allclose(scores.cmc, expected.cmc, atol=1e-12)
        assert scores.num_valid == expected.num_valid


def test_ties_across_tiles_keep_gallery_order(small_tiles):
    # Entries of +-1 and norm 4: products are exact in any order, so ties are ties in every tile.
    generator = np.random.default_rng(0)
    query, gallery = (generator.choice([-1.0, 1.0], (n, 16)).astype(np.float32) for n in (20, 300))
    gallery[200:250] = gallery[:50]
    ids = random_ids(generator, 20, 300)
    expected = rank_metrics(16 - query @ gallery.T, *ids)
    for metric in ("cosine", "euclidean"):
        np.testing.assert_array_equal(
            evaluate_features(query, gallery, *ids, metric=metric).ap, expected.ap
        )


def test_only_the_direction_counts_under_cosine():
    query, gallery, ids = case()
    stretched = gallery * np.random.default_rng(1).uniform(0.1, 10, (len(gallery), 1)).astype(
        np.float32
    )
    np.testing.assert_array_equal(
        evaluate_features(query * 3, stretched, *ids).ap, evaluate_features(query, gallery, *ids).ap
    )


def test_junk_has_no_influence():
    query, gallery, ids = case()
    kept = ids[1] != -1
    for rerank in (None, Rerank(k1=8, k2=3)):
        with_junk = evaluate_features(query, gallery, *ids, rerank=rerank)
        without = evaluate_features(
            query, gallery[kept], ids[0], ids[1][kept], ids[2], ids[3][kept], rerank=rerank
        )
        np.testing.assert_array_equal(with_junk.ap, without.ap)


def test_any_layout_and_type():
    query, gallery, ids = case()
    query, gallery = query.astype(np.float16), gallery.astype(np.float16)
    expected = evaluate_features(query.astype(np.float32), gallery.astype(np.float32), *ids).ap
    frozen = gallery.copy()
    frozen.setflags(write=False)
    turned = np.ascontiguousarray(gallery[::-1])[::-1]
    for variant in (
        gallery.astype(np.float64),
        frozen,
        turned,
        np.asfortranarray(gallery),
        torch.from_numpy(gallery),
    ):
        if isinstance(variant, torch.Tensor):
            found = evaluate_features(torch.from_numpy(query), variant.requires_grad_(), *ids).ap
        else:
            found = evaluate_features(query, variant, *ids).ap
        np.testing.assert_array_equal(found, expected)


def test_distance_matrix():
    query, gallery, _ = case()
    inner = query.astype(np.float64) @ gallery.T.astype(np.float64)
    norms = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    np.testing.assert_allclose(distance_matrix(query, gallery), 1 - inner / norms, atol=1e-6)
    squared = ((query[:, None] - gallery[None]) ** 2).sum(axis=2)
    as_torch = distance_matrix(
        torch.from_numpy(query), torch.from_numpy(gallery), metric="euclidean"
    )
    np.testing.assert_allclose(as_torch.numpy(), squared, rtol=1e-4)


def test_every_product_is_the_product():
    left, right = torch.randn(5, 40), torch.randn(9, 40)
    for product in PRODUCTS.values():
        torch.testing.assert_close(product(left, right), left @ right.t())
    assert choose_product(torch.device("cpu"), 1e12) in PRODUCTS.values()


def test_full_precision_is_restored():
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with full_precision():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_the_plan_is_logged_and_a_small_budget_changes_nothing(caplog):
    query, gallery, ids = case(num_query=200, num_gallery=3000)
    expected = evaluate_features(query, gallery, *ids).ap
    with caplog.at_level(logging.INFO, "ember"):
        found = evaluate_features(query, gallery, *ids, memory_gib=0.001).ap
    np.testing.assert_allclose(found, expected, atol=1e-6)
    blocks = [record.args[1] for record in caplog.records if "blocks of" in record.message]
    assert len(blocks) == 1 and 16 <= blocks[0] < 200


PEAK = """
import json, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from ember_reid.evaluate import Rerank, evaluate_features
from ember_reid.evaluate.fast import k_reciprocal
if QUANTIZED:
    k_reciprocal.prefer_integers = lambda device, work: True
def features(n, seed):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))
def ids(n):
    return np.arange(n) % 500
def run(num_query, num_gallery):
    cameras = np.zeros(num_query, int), np.ones(num_gallery, int)
    evaluate_features(
        features(num_query, 0), features(num_gallery, 1), ids(num_query), ids(num_gallery),
        *cameras, memory_gib=BUDGET, rerank=RERANK,
    )
run(20, 600)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(NUM_QUERY, NUM_GALLERY)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in another unit")
@pytest.mark.parametrize(
    "num_query, num_gallery, rerank, budget, quantized",
    [
        (2000, 20000, "None", 0.01, False),
        (500, 9500, "Rerank()", 0.03, False),
        (500, 9500, "Rerank()", 0.09, True),
    ],
)
def test_peak_memory_stays_within_the_budget(num_query, num_gallery, rerank, budget, quantized):
    code = (
        PEAK.replace("BUDGET", str(budget))
        .replace("RERANK", rerank)
        .replace("QUANTIZED", str(quantized))
    )
    code = code.replace("NUM_QUERY", str(num_query)).replace("NUM_GALLERY", str(num_gallery))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    features = (num_query + num_gallery) * 32 * 4
    matrix = num_query * num_gallery * 4
    peak = json.loads(done.stdout) * 1024 - features
    # The plan does not include the ids and the ranks of the matches.
    assert peak < budget * 2**30 + 2**22
    # Codes are small relative to the matrix only with more dimensions.
    assert quantized or peak < matrix


SHARED = """
import sys
import numpy as np, torch, torch.distributed as dist
from ember_reid.evaluate import Rerank, evaluate_features
from ember_reid.evaluate.fast import k_reciprocal
from ember_reid.evaluate.fast import tiles
torch.set_num_threads(1)
tiles.ROWS_CPU = 16
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
data = np.load(sys.argv[3])
ids = [data[name] for name in ("qp", "gp", "qc", "gc")]
small = Rerank(k1=8, k2=3)
for rerank, backend in ((None, "auto"), (small, "auto"), (small, "python")):
    shared = evaluate_features(
        data["q"], data["g"], *ids, rerank=rerank, backend=backend, distributed=True
    )
    alone = evaluate_features(data["q"], data["g"], *ids, rerank=rerank)
    for name in ("cmc", "ap", "inp", "valid"):
        ours, theirs = getattr(shared, name), getattr(alone, name)
        assert np.allclose(ours, theirs, atol=1e-6), (rerank, name, ours, theirs)
# with 8-bit codes, and if only one of the two machines is fast with them
for who in ({0, 1}, {1}):
    k_reciprocal.prefer_integers = lambda device, work: rank in who
    quantized = evaluate_features(data["q"], data["g"], *ids, rerank=small, distributed=True)
    assert np.allclose(quantized.ap, shared.ap, atol=1e-6)
dist.destroy_process_group()
"""


def test_processes_share_the_work(tmp_path):
    query, gallery, ids = case(num_query=50, num_gallery=170)
    np.savez(tmp_path / "data.npz", q=query, g=gallery, qp=ids[0], gp=ids[1], qc=ids[2], gc=ids[3])
    arguments = [str(tmp_path / "meet"), None, str(tmp_path / "data.npz")]
    children = []
    for rank in range(2):
        arguments[1] = str(rank)
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", SHARED, *arguments], stderr=subprocess.PIPE, text=True
            )
        )
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors


Q, G = np.eye(2, 4, dtype=np.float32), np.eye(3, 4, dtype=np.float32)
IDS = ([0, 1], [0, 1, 2], [0, 0], [1, 1, 1])


def broken(array, row, value):
    array = array.copy()
    array[row, 1] = value
    return array


@pytest.mark.parametrize(
    "query, gallery, options, message",
    [
        (
            Q[0],
            G,
            {},
            r"query features must be a matrix \[images, dimensions\], found shape \(4,\)\.",
        ),
        (
            Q,
            G[:, :3],
            {},
            "query and gallery features must have the same dimensions, found 4 and 3.",
        ),
        (Q[:, :0], G[:, :0], {}, "query features have 0 dimensions and cannot be compared."),
        (Q, G[:0], {}, "The gallery set is empty"),
        (
            broken(Q, 1, np.nan),
            G,
            {},
            "query features contain NaN or infinity, first in row 1: their",
        ),
        (
            Q,
            broken(G, 2, np.inf),
            {},
            "gallery features contain NaN or infinity, first in row 2: their",
        ),
        (
            Q,
            G * 1e25,
            {},
            "Features are so large that their squared norms overflow float32: scale them down.",
        ),
        (Q.astype(str), G, {}, "query features must be floating point numbers, found <U32."),
        (
            torch.eye(2, 4, dtype=torch.bool),
            G,
            {},
            "query features must be floating point numbers, found torch.bool.",
        ),
        ([[1, 2], [3]], G, {}, "query features must be an array of numbers"),
        (Q, G, {"metric": "l1"}, "metric must be one of cosine, euclidean, found 'l1'."),
        (Q, G, {"memory_gib": 0}, "memory_gib must be above zero, found 0; None sets no limit."),
        (Q, G, {"memory_gib": "2"}, "memory_gib must be a number of GiB or None, found '2'."),
        (Q, G, {"max_rank": -1}, "max_rank must be a whole number of at least 1, found -1."),
    ],
)
def test_invalid_arguments_are_refused(query, gallery, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_features(query, gallery, *IDS, **options)


@pytest.mark.parametrize("rerank", [None, Rerank()])
def test_a_budget_that_cannot_work_names_one_that_does(rerank):
    query, gallery, ids = case(num_query=100, num_gallery=2000)
    with pytest.raises(
        ValueError, match="beyond the features, and memory_gib allows 1e-06: set it to"
    ) as caught:
        evaluate_features(query, gallery, *ids, rerank=rerank, memory_gib=1e-6)
    named = float(str(caught.value).rsplit("set it to ", 1)[1].split()[0])
    evaluate_features(query, gallery, *ids, rerank=rerank, memory_gib=named)
