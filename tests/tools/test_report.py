import json
import re
import shutil
import subprocess
from argparse import Namespace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from ember_reid.tools.common.charts import Line, histogram, line_chart, ticks
from ember_reid.tools.report.command import main
from ember_reid.tools.report.page import RunReport, write_page
from ember_reid.tools.report.retrieval_analysis import (
    KINDS,
    Labeled,
    Nearest,
    analyze_retrieval,
    choose,
    find_nearest,
    find_suspects,
    quantile,
    score_camera_pairs,
    score_match_counts,
)
from ember_reid.tools.report.run_reader import (
    Run,
    describe_making,
    fingerprint,
    flatten,
    hash_config,
    read_run,
)
from PIL import Image

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


# ------------------------------------------------------------------------------------------------------ examination
def on_circle(degrees) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def labeled(degrees, pids, camids) -> Labeled:
    return Labeled(on_circle(degrees), np.array(pids), np.array(camids))


@pytest.fixture(scope="module")
def city() -> tuple[Labeled, Labeled]:
    """Eight identities, 40 degrees apart, under three cameras; the last query carries the label of its neighbor."""
    rng = np.random.default_rng(3)
    pids = np.repeat(np.arange(8), 3)
    camids = np.tile(np.arange(3), 8)
    query = Labeled(on_circle(pids * 40 + rng.normal(0, 3, 24)), pids.copy(), camids)
    query.pids[-1] = 6
    gallery = Labeled(
        on_circle(np.tile(pids, 2) * 40 + rng.normal(0, 3, 48)),
        np.tile(pids, 2),
        np.tile(camids, 2),
    )
    return query, gallery


def test_nearest_entries_by_hand():
    query = labeled([0.0, 90.0], [1, 2], [0, 0])
    gallery = labeled([0.0, 60.0, 60.0, 180.0], [1, 1, 2, -1], [0, 1, 1, 1])
    nearest = find_nearest(query, gallery)
    # The same picture's camera does not count, junk neither: cos 60 = 1/2; from 90 degrees to 60, cos 30.
    assert nearest.same == pytest.approx([0.5, 1 - np.cos(np.pi / 6)], abs=1e-6)
    assert nearest.different == pytest.approx([0.5, 1 - np.cos(np.pi / 6)], abs=1e-6)
    assert nearest.num_matches.tolist() == [1, 1]


def test_suspects_look_like_another_and_not_like_their_own():
    same = np.array([0.9, 0.6, 0.2, np.inf, 0.9, 0.4])
    nearest = Nearest(same, np.array([0.1, 0.2, 0.3, 0.1, 0.7, 0.1]), np.array([3, 3, 3, 0, 3, 3]))
    suspects, notes = find_suspects(nearest, 0.4, 0.5, count=5)
    # 2 has its match first, 3 no match at all, 4 a neighbor that is not near, 5 a match that is not far.
    assert suspects == [0, 1]
    assert notes[1] == (
        "Likely label error, or two who look alike: another identity is at 0.200, nearer than half of all true pairs (0.400); "
        "its own identity begins at 0.600, where nine in ten true pairs (0.500) are nearer."
    )
    assert find_suspects(nearest, 0.4, 0.5, count=1)[0] == [0]


def test_best_median_and_worst_are_apart():
    valid, ap = (
        np.array([10, 20, 30, 40, 50, 60, 70]),
        np.array([0.1, 0.9, 0.5, 0.4, 0.6, 0.8, 0.2]),
    )
    assert choose(valid, ap, count=2) == {"best": [20, 60], "median": [50, 30], "worst": [10, 70]}
    assert choose(valid[:1], ap[:1], count=6) == {"best": [10], "median": [], "worst": []}


def test_sizes_by_hand():
    scores = score_match_counts(np.array([1, 2, 4, 25]), np.array([1.0, 0.2, 0.4, 0.5]))
    assert scores == {"1": (1.0, 1), "2 to 4": (pytest.approx(0.3), 2), "20 or more": (0.5, 1)}


def test_camera_pairs_by_hand():
    query = labeled([0.0, 90.0], [1, 2], [0, 1])
    gallery = labeled([10.0, 5.0, 80.0, 20.0], [1, 2, 2, 1], [1, 1, 0, 0])
    # Camera 1 asks, camera 2 answers: id 2 at 5 degrees comes before id 1 at 10: AP 1/2. Camera 2 asks 1: id 2 is first: 1.
    assert score_camera_pairs(query, gallery) == {(0, 1): (0.5, 1), (1, 0): (1.0, 1)}
    whole = score_camera_pairs(query, gallery, rule="all")
    # At home, camera 1 answers with one picture of each: id 1 at 20 degrees is nearest.
    assert whole[0, 0] == (1.0, 1) and set(whole) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_an_examination(city):
    found = analyze_retrieval(*city, name="city", count=2, top=5)
    assert [ranked.choice for ranked in found.lists] == ["best"] * 2 + ["median"] * 2 + [
        "worst"
    ] * 2 + ["suspect"]
    assert (
        found.lists[-1].index == 23
        and found.lists[-1].pid == 6
        and not found.lists[-1].answers[0].correct
    )
    assert list(found.notes) == [23] and found.lists[4].index == 23
    assert found.cmc[0] == pytest.approx(23 / 24, abs=0.05)
    assert found.histograms.same.sum() == 24 * 4 and found.histograms.different.sum() == 24 * 42
    assert 0 < quantile(found.histograms, 0.5) < 0.2
    assert set(found.camera_pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}
    with pytest.raises(ValueError):
        analyze_retrieval(city[0], city[1].take(np.array([], dtype=np.int64)))


# ------------------------------------------------------------------------------------------------------------ charts
def test_ticks_are_round():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.3, 7.2) == [2, 4, 6]
    assert ticks(-3, 3) == [-2, 0, 2]
    assert ticks(0, 3.5e-4) == [0, 0.0001, 0.0002, 0.0003]


def test_lines_end_in_the_corners():
    chart = line_chart("mAP", [Line("a<b", ((0.0, 0.0), (10.0, 1.0)))], x="epoch", percent=True)
    assert '<polyline points="46.0,186.0 350.0,10.0"' in chart and "a&lt;b: 100% at 10" in chart
    only = line_chart(
        "mAP", [Line("a", ((6.0, 0.5),))], x="epoch", percent=True
    )  # epochs count from 0
    assert '<circle cx="350.0" cy="98.0"' in only
    assert (
        line_chart("nothing", [Line("a", ()), Line("b", ((1.0, float("nan")),))], x="epoch") == ""
    )


def test_histograms_are_shares():
    chart = histogram("d", [0, 1, 2], {"same": [3, 1], "different": [0, 10]}, x="distance")
    # The highest share is 1 (different, second bin): 10 px from the top; 3/4 of the same pairs: 186 - 0.75 * 176 = 54.
    assert (
        chart.count("<polygon") == 2
        and "46.0,54.0 198.0,54.0" in chart
        and "198.0,10.0 350.0,10.0" in chart
    )
    assert histogram("d", [0, 1], {"same": [0]}, x="distance") == ""


# ------------------------------------------------------------------------------------------------------ a run's files
def test_a_run_is_read(tiny_run):
    run = read_run(tiny_run)
    assert [row["epoch"] for row in run.tests["market1501"]] == [1, 2] and run.train[-1][
        "iteration"
    ] == 8
    assert run.results["market1501"]["num_query"] == 4 and len(run.weights_hash) == 64
    found = fingerprint(run)
    assert found["Batch"] == "8 images = 4 identities x 2, 1 forward pass(es) a step, pairs global"
    assert (
        found["Weights (SHA-256)"] == f"{run.weights_hash[:16]}  best.pt" and found["Seed"] == "1"
    )
    assert found["Checkpoint chosen on"] == "the test set" and "1 process(es)" in found["Run"]
    assert (
        found["Scored by"] == "cosine, cross-camera, embedding after the neck"
        and found["Begun from"] == "none"
    )
    (start,) = run.starts
    assert found["Commit"] == start["commit"] and f"torch {start['torch']}, " in found["Versions"]
    assert f"processor {start['processor']}, cores {start['cores']}, GPU none" in found["Machine"]
    assert found["Started"] == f"{start['time']} after iteration 0"


def test_what_a_run_was_made_with_is_its_own_and_names_what_changed():
    starts = (
        {"time": "A", "iteration": 0, "commit": "abc", "torch": "2.14", "cores": "2"},
        {"time": "B", "iteration": 8, "commit": "abc", "torch": "2.15", "cores": "2", "CUDA": "13"},
    )
    assert describe_making(starts) == {
        "Commit": "abc",
        "Versions": "torch 2.14, then 2.15",
        "Machine": "cores 2, CUDA none, then 13",
        "Started": "A after iteration 0; B after iteration 8",
    }
    assert "not recorded" in describe_making(())["Versions"]


def test_the_recipes_hash_does_not_depend_on_where_it_is_written():
    recipe = {"OUTPUT_DIR": "a", "SOLVER": {"BASE_LR": 1.0}}
    assert hash_config(recipe) == hash_config(recipe | {"OUTPUT_DIR": "b"})
    assert hash_config(recipe) != hash_config({"SOLVER": {"BASE_LR": 2.0}})
    assert flatten(recipe) == {"OUTPUT_DIR": "a", "SOLVER.BASE_LR": 1.0}


def test_damaged_files(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="holds no run: there is neither config.yml nor results.json in it"
    ):
        read_run(tmp_path)
    row = {"what": "train", "epoch": 1, "iteration": 1, "values": {"loss": 1.0}}
    (tmp_path / "config.yml").write_text("SEED: 1\n")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + '\n{"what": "tra')
    assert len(read_run(tmp_path).train) == 1  # a last line that was cut off
    (tmp_path / "metrics.jsonl").write_text("nonsense\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1 is not a line of metrics"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"results.json is damaged: it must contain a dict"):
        read_run(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "made_with.json").write_text("[{")
    with pytest.raises(ValueError, match=r"made_with.json is damaged: "):
        read_run(tmp_path)


# ----------------------------------------------------------------------------------------------------------- the page
class Tags(HTMLParser):
    """Every attribute that a browser would fetch, and whether tags are closed in their order."""

    VOID = {"meta", "img", "input", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.fetched = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.fetched += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def make_run(name: str, **changes) -> Run:
    rows = tuple(
        {"epoch": e, "iteration": 10 * e, "loss": 5.0 / e, "lr": 1e-3, "accuracy": 0.1 * e}
        for e in range(1, 5)
    )
    scores = {
        "mAP": 0.5,
        "mINP": 0.25,
        "Rank-1": 0.75,
        "Rank-5": 1.0,
        "Rank-10": 1.0,
        "num_valid": 24,
        "num_gallery": 48,
    }
    kept = {
        "name": name,
        "folder": None,
        "config": {"SEED": 1, "OUTPUT_DIR": name, "SOLVER": {"BASE_LR": 1e-3}},
        "train": rows,
        "tests": {
            "city": (
                {"epoch": 2, "iteration": 20, "mAP": 0.4},
                {"epoch": 4, "iteration": 40, "mAP": 0.5},
            )
        },
        "results": {"city": scores, "village": scores | {"mAP": 0.125}},
        "distillation": {},
        "calibration": {},
        "weights": None,
        "weights_hash": "",
        "machine": "",
        "starts": (),
    }
    return Run(**(kept | changes))


@pytest.fixture(scope="module")
def page(city, tmp_path_factory):
    """Two runs, the second with everything a run may have."""
    found = analyze_retrieval(*city, name="city", count=2, top=5)
    wanted = {("query", r.index) for r in found.lists} | {
        ("gallery", a.index) for r in found.lists for a in r.answers
    }
    pictures = {
        key: (f"{key[0]}_{key[1]}.jpg", Image.new("RGB", (16, 32), "teal")) for key in wanted
    }
    heats = {found.lists[0].index: [Image.new("RGB", (16, 32), "red")] * 2}
    row = {
        "name": "teacher <r101>",
        "mAP": 0.9,
        "rank1": 0.95,
        "parameters": 42_500_000,
        "gflops": 6.5,
        "milliseconds": 1,
    }
    calibration = {"threshold": 0.25, "false_match_rate": 0.001}
    second = make_run(
        "second",
        distillation={"dataset": "city", "rows": [row]},
        calibration=calibration,
        config={"SEED": 2},
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    reports = [
        RunReport(make_run("first<1>"), problem="no <network>"),
        RunReport(second, (found,), {"city": pictures}, {"city": heats}),
    ]
    write_page(path, reports)
    return path


def test_the_page_is_whole_and_fetches_nothing(page):
    text = page.read_text()
    tags = Tags(text)
    assert tags.fetched and all(
        source.startswith("data:image/jpeg;base64,") for source in tags.fetched
    )
    assert not re.search(r"https?:|//[a-z]|@import|<link|fetch\(", text)
    assert "default-src 'none'" in text and 'name="viewport"' in text
    assert "first&lt;1&gt;" in text and "no &lt;network&gt;" in text and "<network>" not in text


def test_the_page_shows_what_there_is(page):
    text = page.read_text()
    assert (
        "teacher &lt;r101&gt;</td><td>90.00%</td><td>95.00%</td><td>42.50</td><td>6.5</td><td>1.00</td>"
        in text
    )
    assert "<b>Fingerprint</b>: seed 2, scored by " in text and text.count("<td>Versions</td>") == 3
    assert (
        "With the network: mAP " in text and "Scores of the weights at the end of the run" in text
    )
    assert "<td>village</td><td>12.50%</td>" in text and "<td>SEED</td><td>1</td><td>2</td>" in text
    assert "up to a distance of 0.2500, at a false-match rate of 0.001." in text
    assert re.findall(r'data-kind="(\w+)"', text) == ["best"] * 2 + ["median"] * 2 + [
        "worst"
    ] * 2 + ["suspect"]
    assert (
        "likely label error: identity 6 under camera 3" in text
        and "Likely label error, or two who look alike" in text
    )
    assert text.count("<summary>Heatmaps</summary>") == 1 and "query_23.jpg" in text
    for title in (
        "Loss",
        "Learning rate",
        "mAP on city",
        "CMC",
        "Distances of pairs (share of pairs)",
    ):
        assert f"<figcaption>{title}</figcaption>" in text
    assert "<th>1</th><td></td><td style=" in text  # the camera table's diagonal is empty


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_filters_the_lists(page, tmp_path):
    probe = """<script>
    const seen = () => lists.filter(l => l.offsetParent !== null).map(l => l.dataset.kind).join(" ");
    const press = value => document.querySelector(`button[data-value="${value}"]`).click();
    const report = [seen()];
    press("best"); press("median"); report.push(seen(), location.hash);
    words.value = "query_23"; words.dispatchEvent(new Event("input")); report.push(seen());
    words.value = ""; camera.value = "0"; camera.dispatchEvent(new Event("input")); report.push(seen());
    camera.value = ""; press("second"); report.push(seen());
    report.push(performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length);
    report.push(document.documentElement.scrollWidth <= innerWidth);
    document.title = report.join("|");
    </script>"""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</body>", probe + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    flags.append(f"--user-data-dir={tmp_path / 'profile'}")
    command = [CHROMIUM, *flags, "--window-size=500,900", "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL).group(1).split("|")
    everything = "best best median median worst worst suspect"
    first_camera = [
        kind
        for kind, camera in _kinds_and_cameras(page)
        if kind in ("worst", "suspect") and camera == "0"
    ]
    assert title[0] == everything and title[1] == "worst worst suspect"
    assert (
        title[2] == "#kind=worst%2Csuspect" and title[3] == "worst suspect"
    )  # query 23 is the worst one as well
    assert title[4] == " ".join(first_camera) and title[5] == ""
    assert title[6:] == ["0", "true"]  # nothing fetched; nothing sticks out to the right


def _kinds_and_cameras(page) -> list[tuple[str, str]]:
    return re.findall(r'data-kind="(\w+)" data-camera="(\d+)"', page.read_text())


# -------------------------------------------------------------------------------------------------------- the command
@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "tiny")


def test_the_command_looks_at_the_network(copy, capsys):
    assert main([str(copy), "--count", "1", "--top", "3", "--heatmaps"]) == 0
    assert capsys.readouterr().out.endswith(f"{copy / 'report.html'}\n")
    text = (copy / "report.html").read_text()
    kinds = re.findall(r'data-kind="(\w+)"', text)
    assert kinds[:3] == ["best", "median", "worst"] and set(kinds) <= set(KINDS)
    assert "Analysis of market1501" in text and "0009_c1s1_000001_00.jpg" in text
    assert "With best.pt: mAP " in text and "trained on market1501:" in text
    assert text.count("<summary>Heatmaps</summary>") == len(kinds)
    assert "Distances and images are missing" not in text
    Tags(text)


def test_without_data_or_weights_the_page_says_what_is_missing(copy, tmp_path, capsys):
    out = tmp_path / "two.html"
    assert (
        main([str(copy), str(copy), "DATASETS.NAMES", "market1501:/nowhere", "--out", str(out)])
        == 0
    )
    text = out.read_text()
    assert (
        text.count("Distances and images are missing: ") == 2
        and "/nowhere" in text
        and "Side by side" in text
    )
    shutil.rmtree(copy / "checkpoints")
    assert main([str(copy)]) == 0
    assert "There is no checkpoints/best.pt or last.pt" in (copy / "report.html").read_text()
    assert main([str(copy), "--plain"]) == 0
    assert 'class="warning">' not in (copy / "report.html").read_text()


def test_training_writes_it_at_its_end(train, tmp_path, monkeypatch):
    """The program is started in this process, which knows the network "tiny"; its command is what is checked."""

    def start(command, *, stdout):
        assert "from ember_reid.tools.report import main" in command[2]
        assert (Path(command[3]) / "ember_reid" / "__init__.py").is_file()
        return Namespace(returncode=main(command[4:]))

    monkeypatch.setattr(
        "ember_reid.engine.run.output_folder.subprocess", Namespace(run=start, DEVNULL=None)
    )
    folder = train(tmp_path / "run", "LOG.REPORT", "True", "SOLVER.MAX_EPOCHS", "1")
    assert "Analysis of market1501" in (folder / "report.html").read_text()
    fails = Namespace(run=lambda *words, **options: Namespace(returncode=2), DEVNULL=None)
    monkeypatch.setattr("ember_reid.engine.run.output_folder.subprocess", fails)
    failed = train(tmp_path / "failed", "LOG.REPORT", "True", "SOLVER.MAX_EPOCHS", "1")
    assert (
        "the report was not written; try: python -m tools.report"
        in (failed / "log.txt").read_text()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no folder; name the OUTPUT_DIR of a run"),
        (["SEED", "1"], "no run is named: python -m tools.report runs/x"),
        (["x", "--count", "0"], "--count is 0, it must be at least 1"),
    ],
)
def test_mistakes_end_in_one_line(capsys, words, message):
    assert main(words) == 2
    assert capsys.readouterr().err == f"report: {message}\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.json", '{"market1501": [1]}', "the scores of a dataset must be an object"),
        ("results.json", '{"m": {"mAP": [1]}}', "scores must be numbers"),
        ("results.json", "[" * 5000, "results.json is damaged"),
        ("distillation.json", '{"rows": [{"name": "x", "mAP": "1"}]}', "`mAP` must be a number"),
        ("metrics.jsonl", '{"epoch": "x"}\n{}', "metrics.jsonl, line 1 is not a line of metrics"),
        ("config.yml", "a: " + "[" * 200, "config.yml"),
    ],
)
def test_odd_files_are_one_line(copy, capsys, name, text, message):
    (copy / name).write_text(text)
    assert main([str(copy), "--plain"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and len(error) < 1200
