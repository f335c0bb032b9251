"""Ranked lists: selection and order checked by hand, drawings, and a self-contained page."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import save_checkpoint
from ember_reid.engine.montage import (
    BLUE,
    FRAME,
    GAP,
    GREEN,
    RED,
    TILE,
    describe,
    draw_montage,
    draw_ranked_list,
)
from ember_reid.engine.ranked_lists import ListOptions, ranked_lists
from ember_reid.evaluate import QueryGallery, rank_metrics
from ember_reid.modeling import build_model
from ember_reid.tools.quickstart_data.command import make
from ember_reid.tools.quickstart_data.layouts import Parameters
from ember_reid.tools.visualize.command import main
from ember_reid.tools.visualize.page import write_page
from PIL import Image

# Queries at 0, 10 and 20 on a line, and gallery entries next to them: distances are differences.
QUERY = np.array([[0.0], [10.0], [20.0]])
QUERY_PIDS, QUERY_CAMIDS = [1, 2, 3], [0, 0, 0]
GALLERY = np.array([[0.5], [1.0], [2.0], [11.0], [13.0], [20.0], [29.0], [12.0]])
GALLERY_PIDS = [1, 1, 4, 2, 4, 3, 3, -1]
GALLERY_CAMIDS = [0, 1, 1, 1, 1, 0, 1, 2]
SETS = QueryGallery(QUERY, GALLERY, QUERY_PIDS, GALLERY_PIDS, QUERY_CAMIDS, GALLERY_CAMIDS)


def lists(**options):
    return ranked_lists(SETS, ListOptions(metric="euclidean", **options))


def colors(index: int) -> Image.Image:
    return Image.new("RGB", (64, 128), (200, 200, 10 * index))


def test_own_camera_and_junk_are_left_out():
    first = lists(queries="best", count=1)[0]
    assert (first.index, first.pid, first.camid, first.choice) == (0, 1, 0, "best")
    # 0 is of the same camera, 7 is junk.
    assert [answer.index for answer in first.entries] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert [answer.correct for answer in first.entries] == [True, False, False, False, False, False]
    assert first.entries[0].distance == pytest.approx(1.0)
    assert (first.ap, first.num_matches) == (1.0, 1)


def test_the_all_protocol_keeps_the_own_camera():
    first = lists(queries="best", count=1, protocol="all")[0]
    assert [answer.index for answer in first.entries[:2]] == [0, 1]
    assert first.num_matches == 2


def test_best_and_worst_are_ordered_by_average_precision():
    # Query 2 at 20 has its only match at 29, behind 13 (distance 7) and 11 (9, a tie that
    # the earlier entry wins).
    best, worst = lists(queries="best"), lists(queries="worst")
    assert [ranked.index for ranked in best] == [0, 1, 2]
    assert [ranked.index for ranked in worst] == [2, 0, 1]
    assert worst[0].ap == pytest.approx(1 / 3)
    assert [answer.index for answer in worst[0].entries[:3]] == [4, 3, 6]


def test_random_queries_follow_the_seed_and_are_not_repeated():
    chosen = [ranked.index for ranked in lists(queries="random", seed=5)]
    assert sorted(chosen) == [0, 1, 2]
    assert chosen == [ranked.index for ranked in lists(queries="random", seed=5)]
    assert (
        len({tuple(r.index for r in lists(queries="random", seed=seed)) for seed in range(10)}) > 1
    )


def test_average_precision_agrees_with_the_scores():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(30, 8)), rng.normal(size=(120, 8))
    pids, gallery_pids = rng.integers(1, 9, 30), rng.integers(-1, 9, 120)
    camids, gallery_camids = rng.integers(0, 3, 30), rng.integers(0, 3, 120)
    sets = QueryGallery(query, gallery, pids, gallery_pids, camids, gallery_camids)
    ranked = ranked_lists(sets, ListOptions(queries="best", count=30))
    unit = [
        features / np.linalg.norm(features, axis=1, keepdims=True) for features in (query, gallery)
    ]
    scores = rank_metrics(
        (1 - unit[0] @ unit[1].T).astype(np.float32),
        pids,
        gallery_pids,
        camids,
        gallery_camids,
        backend="python",
    )
    assert len(ranked) == scores.num_valid
    assert sorted(one.ap for one in ranked) == pytest.approx(sorted(scores.ap), abs=1e-6)


def test_top_cuts_the_list_and_not_the_score():
    ranked = lists(queries="worst", count=1, top=2)[0]
    assert len(ranked.entries) == 2 and not any(answer.correct for answer in ranked.entries)
    assert ranked.ap == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": "first"}, "queries is 'first', it must be one of best, worst, random"),
        ({"metric": "dot"}, "metric is 'dot', it must be one of cosine, euclidean"),
        ({"protocol": "none"}, "protocol is 'none', it must be one of cross-camera, all"),
    ],
)
def test_unknown_choices_name_the_known_ones(options, message):
    arguments = {"metric": "euclidean", **options}
    with pytest.raises(ValueError, match=f"^{message}$"):
        ranked_lists(SETS, ListOptions(**arguments))


def test_a_gallery_without_a_match_is_an_error():
    with pytest.raises(ValueError, match="None of the 3 queries has a match in the gallery of 8"):
        ranked_lists(SETS._replace(query_pids=[7, 8, 9]), ListOptions())


def test_arrays_that_do_not_fit_are_an_error():
    with pytest.raises(
        ValueError, match=r"gallery_pids has the shape \(7,\), 8 features need \(8,\)"
    ):
        ranked_lists(SETS._replace(gallery_pids=GALLERY_PIDS[1:]), ListOptions())


def test_frames_tell_right_from_wrong():
    ranked = lists(queries="worst", count=1)[0]
    strip = draw_ranked_list(ranked, colors, colors)
    step, row = TILE[0] + 2 * FRAME + GAP, 20 + GAP + FRAME + 40
    lefts = [GAP] + [2 * GAP + step * place for place in range(1, len(ranked.entries) + 1)]
    frames = [strip.getpixel((left + 1, row)) for left in lefts]
    assert frames == [BLUE] + [GREEN if answer.correct else RED for answer in ranked.entries]
    inside = [strip.getpixel((left + FRAME + 30, row)) for left in lefts]
    assert inside == [
        (200, 200, 10 * index) for index in (2, *(answer.index for answer in ranked.entries))
    ]


def test_description_names_the_choice():
    assert describe(lists(queries="worst")[0]) == (
        "worst query: identity 3 under camera 1, AP 33.3%, 1 match under other cameras"
    )


def test_montage_stacks_strips():
    three = lists(queries="best")
    strip, montage = draw_ranked_list(three[0], colors, colors), draw_montage(three, colors, colors)
    assert montage.height == 3 * strip.height and montage.width >= strip.width


def test_the_page_contains_its_images_and_no_external_resources(tmp_path):
    page = tmp_path / "index.html"
    write_page(page, lists(queries="best"), colors, colors, title="A < B", facts=["one & two"])
    text = page.read_text()
    assert (
        "<title>A &lt; B</title>" in text and "<p>one &amp; two</p>" in text and "viewport" in text
    )
    assert not re.search(r"https?://|<script|<link", text)
    sources = re.findall(r'<img src="([^"]+)"', text)
    shown = sum(1 + len(ranked.entries) for ranked in lists(queries="best"))
    assert len(sources) == shown and all(
        source.startswith("data:image/jpeg;base64,") for source in sources
    )
    image = Image.open(BytesIO(b64decode(sources[0].split(",")[1])))
    assert image.size == (64, 128)
    right = sum(answer.correct for ranked in lists(queries="best") for answer in ranked.entries)
    assert (
        text.count('<figure class="right">') == right and text.count('<figure class="query">') == 3
    )


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A tiny data set and an untrained network's checkpoint for it."""
    root = tmp_path_factory.mktemp("visualize")
    few = Parameters(seed=7, train_ids=1, test_ids=3, distractors=2, junk=2, frames=2)
    make(root / "data", ["market1501"], few, workers=1)
    options = ["DATASETS.NAMES", f"('market1501:{root / 'data' / 'market1501'}',)", "DEVICE", "cpu"]
    options += ["MODEL.BACKBONE.NAME", "resnet18", "MODEL.BACKBONE.WEIGHTS", "none"]
    options += ["INPUT.SIZE_TEST", "(64, 32)", "DATALOADER.NUM_WORKERS", "0"]
    cfg = load_config(None, options)
    path = root / "run" / "checkpoints" / "best.pt"
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=1, pretrained=False)
    save_checkpoint(path, {"config": cfg.dump(), "num_classes": 1, "model": model.state_dict()})
    return path


def test_the_command_needs_a_checkpoint_and_nothing_else(untrained, capsys):
    assert (
        main(
            ["TEST.WEIGHT", str(untrained), "--queries", "best,worst", "--count", "2", "--top", "4"]
        )
        == 0
    )
    folder = untrained.parent.parent / "ranked"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        str(folder / "index.html"),
        str(folder / "ranked.png"),
    ]
    text = (folder / "index.html").read_text()
    assert re.findall(r"<h2>(\w+) query", text) == ["best", "best", "worst", "worst"]
    assert text.count('<figure class="right">') + text.count('<figure class="wrong">') == 4 * 4
    assert "All 18 queries with a match" in text and "Ranked results on market1501" in text
    with Image.open(folder / "ranked.png") as montage:
        assert montage.format == "PNG" and montage.height > 4 * TILE[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "visualize: no checkpoint to test: set TEST.WEIGHT runs/x/checkpoints/best.pt\n"),
        (["TEST.WEIGHT", "nowhere.pt"], "visualize: weight file nowhere.pt does not exist\n"),
        (
            ["--queries", "best,top"],
            "visualize: --queries is 'best,top', "
            "it must be a comma-separated list of best, worst, random\n",
        ),
        (["--count", "0"], "visualize: --count is 0, it must be at least 1\n"),
    ],
)
def test_user_errors_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    assert capsys.readouterr().err == message
