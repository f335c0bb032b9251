import multiprocessing

import numpy as np
import pytest
import torch
from ember_reid.evaluate import rank_metrics, ranking
from ember_reid.evaluate.fast.device_ranking import count_ranks_torch
from ember_reid.evaluate.inputs import Ids
from ember_reid.evaluate.ranking import find_matches
from ember_reid.evaluate.reference import reference_scores

from tests.helpers.synthetic import random_ids

BACKENDS = ["python"] + (["cython"] if ranking.rank_cy is not None else [])


def one_query(distances, gallery_pids, gallery_camids=None, **options):
    """Scores of one query of identity 1 and camera 0; by default, the gallery has camera 1."""
    camids = [1] * len(gallery_pids) if gallery_camids is None else gallery_camids
    return rank_metrics(
        np.array([distances], np.float32), [1], gallery_pids, [0], camids, **options
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_hand_example(backend):
    # match, negative, match, negative: precision 1/1 and 2/3; the last of two matches has rank 3
    scores = one_query([0.1, 0.2, 0.3, 0.4], [1, 2, 1, 3], max_rank=3, backend=backend)
    assert scores.mAP == pytest.approx((1 + 2 / 3) / 2)
    assert scores.mINP == pytest.approx(2 / 3)
    assert scores.cmc.tolist() == [1, 1, 1]
    assert scores.num_valid == 1 and scores.valid.tolist() == [0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_own_camera_and_junk_are_excluded(backend):
    # Without the own-camera image (0.1) and the junk (0.2), the match (0.4) has rank 2.
    scores = one_query([0.1, 0.2, 0.3, 0.4], [1, -1, 2, 1], [0, 1, 0, 1], backend=backend)
    assert scores.mAP == 0.5 and scores.cmc[:2].tolist() == [0, 1]


def test_trapezoid_average_precision():
    # matches at positions 0 and 2: ((1 + 1) / 2 + (2/3 + 1/2) / 2) / 2
    scores = one_query([0.1, 0.2, 0.3], [1, 2, 1], average_precision="trapezoid")
    assert scores.mAP == pytest.approx((1 + (2 / 3 + 1 / 2) / 2) / 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gallery_pids, ap", [([1, 2], 1.0), ([2, 1], 0.5)])
def test_equal_distances_keep_gallery_order(backend, gallery_pids, ap):
    assert one_query([0.5, 0.5], gallery_pids, backend=backend).mAP == ap


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_gallery_pads_the_curve(backend):
    # Other compiled kernels leave entries of earlier queries at the end, so that their CMC falls.
    distances = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.2, 0.3]], np.float32)
    scores = rank_metrics(
        distances, [1, 2], [3, 1, 1, 2], [0, 0], [1, 1, 0, 1], max_rank=9, backend=backend
    )
    assert scores.cmc.tolist() == [0, 0.5, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gallery_of_one_and_queries_without_a_match(backend):
    scores = rank_metrics(np.array([[0.3], [0.1]]), [1, 2], [2], [0, 0], [1], backend=backend)
    assert scores.num_valid == 1 and scores.valid.tolist() == [1] and scores.mAP == 1.0


def random_case(seed):
    generator = np.random.default_rng(seed)
    num_query, num_gallery = generator.integers(1, 30), generator.integers(1, 250)
    distances = generator.random((num_query, num_gallery)).astype(
        [np.float32, np.float64][seed % 2]
    )
    if seed % 3 == 0:
        # Ties everywhere
        distances = np.round(distances * 8) / 8
    if seed % 7 == 0:
        distances[generator.random(distances.shape) < 0.1] = np.finfo(np.float32).max
    num_pids = [1, 2, 5, 40][seed % 4]
    return distances, *random_ids(
        generator, num_query, num_gallery, num_pids, [1, 3][seed % 5 > 0] + 1
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_reference(backend):
    compared = 0
    for seed in range(120):
        case = random_case(seed)
        try:
            scores = rank_metrics(*case, max_rank=20, backend=backend)
        except ValueError as error:
            assert "has a match" in str(error)
            continue
        cmc, ap, inp = reference_scores(*case, max_rank=20)
        np.testing.assert_allclose(scores.cmc, cmc, atol=1e-12)
        np.testing.assert_allclose(scores.ap, ap, atol=1e-12)
        np.testing.assert_allclose(scores.inp, inp, atol=1e-12)
        compared += 1
    assert compared > 100


@pytest.mark.skipif(ranking.rank_cy is None, reason="the kernel is not built")
@pytest.mark.parametrize("levels", [None, 300])
def test_kernel_equals_numpy_with_many_matches(levels):
    generator = np.random.default_rng(1)
    distances = generator.random((4, 5000), dtype=np.float32)
    if levels:
        distances = np.round(distances * levels) / levels
    ids = random_ids(generator, 4, 5000, 2)
    numpy_scores, kernel_scores = (rank_metrics(distances, *ids, backend=name) for name in BACKENDS)
    for name in ("cmc", "ap", "inp", "valid"):
        np.testing.assert_array_equal(getattr(kernel_scores, name), getattr(numpy_scores, name))


def test_counting_in_torch_equals_numpy():
    for seed in range(60):
        distances, *ids = random_case(seed)
        try:
            matches = find_matches(Ids(*ids))
        except ValueError:
            continue
        expected = ranking.count_ranks_python(distances, matches)
        found = count_ranks_torch(torch.from_numpy(distances.copy()), matches)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bad_distances_are_found_at_every_position(backend, value, dtype):
    # 150 columns: the vector loops of the kernel and its remainder
    ids = ([1], [1, *[2] * 149], [0], [1] * 150)
    for column in range(1, 150):
        distances = np.linspace(0.1, 0.9, 150, dtype=dtype)[None]
        distances[0, column] = value
        with pytest.raises(ValueError, match="distances contain NaN or infinity, first in row 0"):
            rank_metrics(distances, *ids, backend=backend)


def test_any_layout_and_type_gives_the_same():
    generator = np.random.default_rng(0)
    distances = generator.random((6, 40)).astype(np.float16)
    ids = random_ids(generator, 6, 40)
    expected = rank_metrics(distances.astype(np.float64), *ids).ap
    frozen = distances.astype(np.float32)
    frozen.setflags(write=False)
    wide = np.zeros((6, 80), np.float32)
    wide[:, ::2] = distances
    small_ids = [array.astype(np.int32) for array in ids]
    for variant in (
        distances,
        frozen,
        wide[:, ::2],
        np.asfortranarray(frozen),
        torch.from_numpy(distances),
    ):
        np.testing.assert_array_equal(rank_metrics(variant, *small_ids).ap, expected)
    bfloat = torch.from_numpy(distances).bfloat16()
    np.testing.assert_array_equal(
        rank_metrics(bfloat, *map(torch.from_numpy, ids)).ap, rank_metrics(bfloat.float(), *ids).ap
    )


def test_arguments_are_left_as_they_were():
    generator = np.random.default_rng(0)
    distances, ids = generator.random((6, 40)), random_ids(generator, 6, 40)
    before = [array.copy() for array in (distances, *ids)]
    rank_metrics(distances, *ids)
    for array, copy in zip((distances, *ids), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def _rank_in_child(queue):
    generator = np.random.default_rng(0)
    queue.put(rank_metrics(generator.random((50, 400)), *random_ids(generator, 50, 400)).mAP)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_hang():
    generator = np.random.default_rng(0)
    expected = rank_metrics(generator.random((50, 400)), *random_ids(generator, 50, 400)).mAP
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_rank_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=20) == expected
    child.join(timeout=20)


D = np.ones((2, 3), np.float32)
IDS = ([1, 2], [1, 2, 3], [0, 0], [1, 1, 1])


def bad_entry(value):
    return np.array([[0.1, 0.2, 0.3], [0.1, value, 0.3]], np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "distances, ids, options, message",
    [
        (
            np.ones(3),
            IDS,
            {},
            r"distances must be a matrix \[queries, gallery\], found shape \(3,\)\.",
        ),
        (np.ones((2, 3), int), IDS, {}, "distances must be floating point numbers, found int64."),
        (bad_entry(np.nan), IDS, {}, "distances contain NaN or infinity, first in row 1: such a"),
        (bad_entry(np.inf), IDS, {}, "distances contain NaN or infinity, first in row 1: such a"),
        (bad_entry(-np.inf), IDS, {}, "distances contain NaN or infinity, first in row 1: such a"),
        (np.ones((2, 0)), IDS, {}, "The gallery set is empty: there is nothing to rank."),
        (np.ones((0, 3)), IDS, {}, "The query set is empty: there is nothing to rank."),
        (D, ([1], *IDS[1:]), {}, r"query_pids must have shape \(2,\), .* found \(1,\)\."),
        (
            D,
            (*IDS[:3], [[1, 1, 1]]),
            {},
            r"gallery_camids must have shape \(3,\), .* found \(1, 3\)\.",
        ),
        (
            D,
            (["a", "b"], *IDS[1:]),
            {},
            "query_pids must be integers, found <U1; number the identities",
        ),
        (D, ([1.0, 2.0], *IDS[1:]), {}, "query_pids must be integers, found float64"),
        (D, (*IDS[:2], [1, 1], [1, 1, 1]), {}, "None of the 2 queries has a match in the gallery"),
        (
            D,
            ([-1, -1], [-1, -1, -1], *IDS[2:]),
            {},
            "None of the 2 queries has a match in the gallery",
        ),
        (D, IDS, {"max_rank": 0}, "max_rank must be a whole number of at least 1, found 0."),
        (D, IDS, {"max_rank": 10**9}, "max_rank must be at most 1000000, found 1000000000."),
        (D, IDS, {"max_rank": 2.5}, "max_rank must be a whole number of at least 1, found 2.5."),
        (
            D,
            IDS,
            {"average_precision": "11"},
            "average_precision must be one of mean, trapezoid, found '11'.",
        ),
    ],
)
def test_invalid_arguments_are_refused(distances, ids, options, message, backend):
    with pytest.raises(ValueError, match=message):
        rank_metrics(distances, *ids, backend=backend, **options)


def test_unknown_and_missing_backend(monkeypatch):
    with pytest.raises(
        ValueError, match="backend must be one of auto, cython, python, found 'gpu'."
    ):
        rank_metrics(D, *IDS, backend="gpu")
    monkeypatch.setattr(ranking, "rank_cy", None)
    with pytest.raises(
        ValueError, match="backend 'cython' needs the compiled kernel, which is not built"
    ):
        rank_metrics(D, *IDS, backend="cython")


def test_without_the_kernel_numpy_is_used_with_one_warning(monkeypatch, caplog):
    expected = rank_metrics(D, *IDS).ap
    monkeypatch.setattr(ranking, "rank_cy", None)
    monkeypatch.setitem(ranking._state, "warned", False)
    for _ in range(2):
        np.testing.assert_array_equal(rank_metrics(D, *IDS).ap, expected)
    assert [
        record.message for record in caplog.records if "kernel is not built" in record.message
    ] == [
        "The compiled ranking kernel is not built; numpy gives the same numbers, but slower "
        "(to build it, run `pip install -e .` with a C compiler)."
    ]
