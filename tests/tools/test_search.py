import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from ember_reid.evaluate import rerank_distances
from ember_reid.tools.common.feature_file import load_features, save_features
from ember_reid.tools.extract.command import main as extract
from ember_reid.tools.search.command import _describe_query, main
from ember_reid.tools.search.knn import (
    Nearest,
    build_faiss,
    check_faiss,
    nearest,
    nearest_faiss,
    open_faiss,
    reach_recall,
    rerank,
)


def directions(count, dim=6, seed=0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


@pytest.fixture(scope="module")
def best(tiny_run, tmp_path_factory):
    """A copy of the weights, so that calibration files can lie beside it."""
    return shutil.copy(
        tiny_run / "checkpoints" / "best.pt", tmp_path_factory.mktemp("weights") / "best.pt"
    )


@pytest.fixture(scope="module")
def features(best, tiny_market, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "features.npz"
    words = [
        "TEST.WEIGHT",
        str(best),
        "DEVICE",
        "cpu",
        str(tiny_market / "bounding_box_test"),
        "--ids",
        "prefix",
    ]
    assert extract([*words, "--out", str(out), "--no-progress"]) == 0
    return out


@pytest.fixture
def photos(tiny_market):
    return sorted((tiny_market / "bounding_box_test").glob("*.jpg"))[2:4]


def saved_queries(folder):
    return json.loads((folder / "search.json").read_text())["queries"]


@pytest.mark.parametrize("tile", [1, 7, 100])
def test_tiles_give_what_one_sorted_matrix_gives(tile):
    query, gallery = directions(4, seed=1), directions(30)
    # Ties
    gallery[20:] = gallery[:10]
    found = nearest(query, gallery, 5, tile=tile)
    distances = 1 - query @ gallery.T
    order = distances.argsort(dim=1, stable=True)[:, :5]
    assert torch.allclose(found.distances, distances.gather(1, order), atol=1e-6)
    assert torch.allclose(found.distances, distances.gather(1, found.indices), atol=1e-6)
    assert nearest(query, gallery, 99).indices.shape == (4, 30)


def test_ties_go_to_the_lower_position():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert nearest(gallery[1:2], gallery, 3, tile=2).indices.tolist() == [[1, 2, 0]]


def test_reranking_permutes_the_nearest_and_keeps_their_cosine_distances():
    query, gallery = directions(3, seed=1), directions(40)
    found = nearest(query, gallery, 12)
    ranked = rerank(query, gallery, found)
    assert torch.equal(ranked.indices.sort(dim=1).values, found.indices.sort(dim=1).values)
    assert torch.allclose(
        ranked.distances, (1 - query @ gallery.T).gather(1, ranked.indices), atol=1e-6
    )


def test_reranking_within_everything_is_reranking():
    query, gallery = directions(1, seed=1), directions(40)
    expected = rerank_distances(query, gallery)[0]
    ranked = rerank(query, gallery, nearest(query, gallery, 40)).indices[0]
    assert torch.allclose(expected[ranked], expected.sort().values, atol=1e-5)
    assert not torch.equal(ranked, nearest(query, gallery, 40).indices[0])


def test_an_image_finds_itself_and_the_page_has_no_external_resources(
    features, photos, tmp_path, capsys
):
    out = tmp_path / "found"
    assert main([str(features), *map(str, photos), "--top", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Without a threshold, no query is unknown" in said and str(out / "index.html") in said
    for path, query in zip(photos, saved_queries(out), strict=True):
        first = query["matches"][0]
        assert (
            len(query["matches"]) == 3
            and first["path"] == str(path)
            and first["pid"] == path.name[:4]
        )
        assert (
            first["distance"] == pytest.approx(0, abs=1e-5)
            and first["same"] is None
            and query["known"] is None
        )
    page = (out / "index.html").read_text()
    assert (
        not re.search(r"https?://|<script|<link", page)
        and page.count("data:image/jpeg;base64,") == 2 * 4
    )


def test_queries_beyond_the_threshold_are_unknown(features, photos, tmp_path, best):
    def known(*words):
        assert main([str(features), str(photos[0]), "--out", str(tmp_path), *words]) == 0
        return saved_queries(tmp_path)[0]["known"]

    assert known("--threshold", "0.01") is True
    assert known("--threshold", "none") is None
    calibration = best.with_name("best.pt.calibration.json")
    try:
        calibration.write_text('{"threshold": 0.25, "metric": "cosine"}')
        assert known() is True
        assert json.loads((tmp_path / "search.json").read_text())["threshold"] == 0.25
        same = [match["same"] for match in saved_queries(tmp_path)[0]["matches"]]
        assert same == [
            match["distance"] <= 0.25 for match in saved_queries(tmp_path)[0]["matches"]
        ]
        calibration.write_text('{"threshold": 0.25, "metric": "euclidean"}')
        assert known() is None
    finally:
        calibration.unlink()


def test_a_query_gets_the_identity_of_the_first_entry_within_the_threshold(features):
    found, _ = load_features(features)
    # A possible order after re-ranking.
    ranked = Nearest(torch.tensor([[0.5, 0.3, 0.1]]), torch.tensor([[0, 2, 1]]))

    def decide(threshold, top=3):
        return _describe_query(
            "query.jpg", found, ranked, 0, top=top, closest=0.1, threshold=threshold
        )

    assert (
        decide(0.4)["decision"] == f"{found.pids[2]} at 0.300"
        and decide(0.4, top=1)["known"] is True
    )
    assert decide(0.4, top=1)["decision"] == f"{found.pids[2]} at 0.300"
    assert [match["same"] for match in decide(0.4)["matches"]] == [False, True, True]
    assert decide(0.05)["decision"] == "unknown (the nearest is at 0.100)"
    assert decide(None)["decision"] == f"{found.pids[0]} at 0.500"


def test_an_unseen_identity_is_unknown(features, tmp_path):
    found, _ = load_features(features)
    save_features(tmp_path / "stranger.npz", replace(found, embeddings=-found.embeddings))
    words = [
        str(features),
        str(tmp_path / "stranger.npz"),
        "--threshold",
        "0",
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    assert {query["known"] for query in saved_queries(tmp_path)} == {False}
    assert all(
        query["decision"].startswith("unknown (the nearest is at ")
        for query in saved_queries(tmp_path)
    )


@pytest.mark.extras
def test_faiss_reports_its_recall_of_exact_search(features, photos, tmp_path, capsys):
    gallery = directions(400)
    index = open_faiss(gallery.numpy(), tmp_path / "index")
    reached = reach_recall(index, gallery[:3], gallery, 5, wanted=1, num_samples=50)
    assert (
        reached.recall == 1
        and reached.num_queries == 53
        and reached.num_probed <= reached.num_cells == 10
    )
    index.nprobe = index.nlist
    assert torch.equal(
        nearest_faiss(index, gallery[:3], 5).indices, nearest(gallery[:3], gallery, 5).indices
    )
    assert open_faiss(gallery.numpy(), tmp_path / "index").ntotal == 400
    # An index of other embeddings of equal shape is not used.
    open_faiss(-gallery.numpy(), tmp_path / "index")
    assert len(list(tmp_path.glob("index.*.faiss"))) == 2
    file = min(tmp_path.glob("index.*.faiss"), key=lambda path: path.stat().st_mtime_ns)
    file.write_bytes(b"damaged")
    assert open_faiss(gallery.numpy(), tmp_path / "index").ntotal == 400
    words = [
        str(features),
        str(photos[0]),
        "--out",
        str(tmp_path),
        "--top",
        "3",
        "--faiss",
        "--rerank",
        "4",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "faiss finds 100.00% of the exact 4 nearest" in said and "in 1 of 1 cells" in said


@pytest.mark.extras
def test_faiss_searches_as_many_cells_as_the_recall_needs():
    gallery = directions(4000, dim=16)
    index = build_faiss(gallery.numpy())
    query = directions(20, dim=16, seed=1)
    reached = [reach_recall(index, query, gallery, 10, wanted=wanted) for wanted in (0.1, 0.9, 1)]
    assert (
        reached[0].num_probed
        == 8
        < reached[1].num_probed
        < reached[2].num_probed
        <= index.nlist
        == 102
    )
    # The recall, computed by a loop over the queries; gallery entries that find themselves do not
    # count.
    alone = reach_recall(index, query, gallery, 10, wanted=0.9, num_samples=0)
    exact, found = (
        nearest(query, gallery, 10).indices.tolist(),
        nearest_faiss(index, query, 10).indices.tolist(),
    )
    hits = sum(len(set(a) & set(b)) for a, b in zip(exact, found, strict=True))
    assert alone.recall == pytest.approx(hits / 200) and alone.recall >= 0.9
    # Each image can only find itself.
    assert reach_recall(index, query[:0], gallery[:1], 1, num_samples=1).recall == 1


def test_missing_faiss_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match="--faiss needs faiss, which is not installed: python -m pip install faiss-cpu",
    ):
        check_faiss()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["nowhere.npz", "x.jpg"],
            "nowhere.npz does not exist; python -m tools.extract writes such files",
        ),
        (["FEATURES", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["FEATURES", "BROKEN"], "cannot be decoded as an image"),
        (["FEATURES", "OTHER"], "embeddings of two networks do not compare"),
        (
            ["FEATURES", "PHOTO", "--weights", "gone.pt"],
            "gone.pt, does not exist; name it with --weights FILE",
        ),
        (
            ["FEATURES", "PHOTO", "--threshold", "near"],
            "--threshold is near, it must be auto, none, or a cosine",
        ),
        (["FEATURES", "PHOTO", "--top", "0"], "--top is 0, it must be at least 1"),
        (["FEATURES", "PHOTO", "--recall", "99"], "--recall is 99, it is a fraction in 0..1"),
        (["FEATURES", "PHOTO", "--rerank", "-1"], "--rerank is -1, it must be at least 1"),
        (["FEATURES", "FEATURES", "PHOTO"], "must be the only query"),
        (["PHOTO", "PHOTO"], "is not a file of tools.extract"),
    ],
)
def test_user_errors_are_one_line(features, photos, tmp_path, capsys, words, message):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    found, metadata = load_features(features)
    save_features(
        tmp_path / "other.npz",
        replace(found, card=replace(metadata, fingerprint="f" * 16).to_json()),
    )
    given = {
        "FEATURES": features,
        "PHOTO": photos[0],
        "BROKEN": tmp_path / "broken.jpg",
        "OTHER": tmp_path / "other.npz",
    }
    assert (
        main([*(str(given.get(word, word)) for word in words), "--out", str(tmp_path / "out")]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("search: ") and message in error and error.count("\n") == 1
