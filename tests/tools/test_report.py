"""The report: the page, its filters in a browser, and the command."""

import re
import shutil
from argparse import Namespace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ember_reid.tools.report.command import main
from ember_reid.tools.report.page import RunReport, write_page
from ember_reid.tools.report.retrieval_analysis import KINDS, analyze_retrieval
from ember_reid.tools.report.run_reader import Run
from PIL import Image

from tests.helpers.browser import CHROMIUM, run_in_browser
from tests.helpers.labeled_points import noisy_city


# The page
class Tags(HTMLParser):
    """Collects every URL that a browser would fetch, and checks that tags are nested correctly."""

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
        "cross_domain": {},
        "calibration": {},
        "weights": None,
        "weights_hash": "",
        "machine": "",
        "starts": (),
    }
    return Run(**(kept | changes))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two runs; the second has all optional parts."""
    found = analyze_retrieval(*noisy_city(), name="city", count=2, top=5)
    wanted = {("query", r.index) for r in found.lists} | {
        ("gallery", a.index) for r in found.lists for a in r.entries
    }
    images = {key: (f"{key[0]}_{key[1]}.jpg", Image.new("RGB", (16, 32), "teal")) for key in wanted}
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
        RunReport(second, (found,), {"city": images}, {"city": heats}),
    ]
    write_page(path, reports)
    return path


def test_the_page_is_well_formed_and_has_no_external_resources(page):
    text = page.read_text()
    tags = Tags(text)
    assert tags.fetched and all(
        source.startswith("data:image/jpeg;base64,") for source in tags.fetched
    )
    assert not re.search(r"https?:|//[a-z]|@import|<link|fetch\(", text)
    assert "default-src 'none'" in text and 'name="viewport"' in text
    assert "first&lt;1&gt;" in text and "no &lt;network&gt;" in text and "<network>" not in text


def test_the_page_shows_all_results(page):
    text = page.read_text()
    assert (
        "teacher &lt;r101&gt;</td><td>90.00%</td><td>95.00%</td><td>42.50</td>"
        "<td>6.5</td><td>1.00</td>" in text
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
        and "Likely label error, or two similar identities" in text
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
    # The camera table's diagonal is empty.
    assert "<th>1</th><td></td><td style=" in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_filters_the_lists(page, tmp_path):
    probe = """
    const shown = () => lists.filter(l => l.offsetParent !== null);
    const seen = () => shown().map(l => l.dataset.kind).join(" ");
    const press = value => document.querySelector(`button[data-value="${value}"]`).click();
    const report = [seen()];
    press("best"); press("median"); report.push(seen(), location.hash);
    words.value = "query_23"; words.dispatchEvent(new Event("input")); report.push(seen());
    words.value = ""; camera.value = "0"; camera.dispatchEvent(new Event("input"));
    report.push(seen());
    camera.value = ""; press("second"); report.push(seen());
    const fetched = performance.getEntriesByType("resource");
    report.push(fetched.filter(e => !e.name.startsWith("data:")).length);
    report.push(document.documentElement.scrollWidth <= innerWidth);
    document.title = report.join("|");
    """
    title = run_in_browser(page, probe, tmp_path, width=500).split("|")
    everything = "best best median median worst worst suspect"
    first_camera = [
        kind
        for kind, camera in _kinds_and_cameras(page)
        if kind in ("worst", "suspect") and camera == "0"
    ]
    assert title[0] == everything and title[1] == "worst worst suspect"
    # Query 23 is the worst one as well.
    assert title[2] == "#kind=worst%2Csuspect" and title[3] == "worst suspect"
    assert title[4] == " ".join(first_camera) and title[5] == ""
    # No requests, and no horizontal overflow.
    assert title[6:] == ["0", "true"]


def _kinds_and_cameras(page) -> list[tuple[str, str]]:
    return re.findall(r'data-kind="(\w+)" data-camera="(\d+)"', page.read_text())


# The command
@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "tiny")


def test_the_command_analyzes_the_network(copy, capsys):
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


def test_the_page_states_that_data_or_weights_are_missing(copy, tmp_path, capsys):
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


def test_training_ends_with_a_report(train, tmp_path, monkeypatch):
    """The report runs in this process, which knows the network "tiny"; its command is checked."""

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
        (["nowhere"], "nowhere is not a folder; give the OUTPUT_DIR of a run"),
        (["SEED", "1"], "no run is given, for example: python -m tools.report runs/x"),
        (["x", "--count", "0"], "--count is 0, it must be at least 1"),
    ],
)
def test_argument_errors_are_one_line(capsys, words, message):
    assert main(words) == 2
    assert capsys.readouterr().err == f"report: {message}\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.json", '{"market1501": [1]}', "the scores of a dataset must be an object"),
        ("results.json", '{"m": {"mAP": [1]}}', "scores must be numbers"),
        ("results.json", "[" * 5000, "results.json is damaged"),
        ("distillation.json", '{"rows": [{"name": "x", "mAP": "1"}]}', "`mAP` must be a number"),
        ("metrics.jsonl", '{"epoch": "x"}\n{}', "metrics.jsonl, line 1 is not a row of metrics"),
        ("config.yml", "a: " + "[" * 200, "config.yml"),
    ],
)
def test_errors_of_damaged_files_are_one_line(copy, capsys, name, text, message):
    (copy / name).write_text(text)
    assert main([str(copy), "--plain"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and len(error) < 1200
