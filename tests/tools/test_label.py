"""Proposed identities, the page that corrects them in a browser, and the command."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from ember_reid.data.datasets.custom import load_csv
from ember_reid.evaluate import ClusterSettings
from ember_reid.tools.common.inputs import ImageFile, read_images
from ember_reid.tools.label.command import main, name_cameras
from ember_reid.tools.label.output import order_identities, write_labels
from ember_reid.tools.label.proposal import Proposal, propose, score_labels
from ember_reid.tools.label.score import score_proposal
from PIL import Image
from scipy import sparse

from tests.helpers.browser import CHROMIUM, run_in_browser


def distances_of(pairs, num):
    """A symmetric sparse matrix with an explicit diagonal of zeros."""
    both = {**pairs, **{(column, row): value for (row, column), value in pairs.items()}}
    both |= {(index, index): 0.0 for index in range(num)}
    rows, columns = zip(*both, strict=True)
    values = np.array(list(both.values()), np.float32)
    return sparse.csr_array((values, (rows, columns)), (num, num))


def test_confidences_that_can_be_computed_by_hand():
    # Identity 0: images 0, 1, 2. Identity 1: images 3 and 4. Image 5 has none.
    pairs = {(0, 1): 0.25, (0, 2): 0.5, (1, 2): 0.25, (3, 4): 0.5, (2, 3): 0.5, (4, 5): 0.75}
    proposal = score_labels(distances_of(pairs, 6), np.array([0, 0, 0, 1, 1, -1]))
    # Image 2: (0.5 + 0.75) / 2 to its own identity, 0.5 / 2 to the other one.
    # Image 3: 0.5 to its own, 0.5 / 3 to the other one. Image 5: 0 - 0.25 / 2.
    expected = [0.625, 0.75, 0.375, 0.5 - 0.5 / 3, 0.5, -0.125]
    assert proposal.confidence == pytest.approx(expected)
    assert proposal.next_identity.tolist() == [1, 0]
    assert proposal.next_similarity == pytest.approx([0.5 / 6] * 2)
    assert order_identities(proposal) == [1, 0]


def test_groups_of_points_are_found_and_tracklets_stay_together():
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(3, 8), 6, axis=0)
    points = (centers + 0.05 * rng.normal(size=centers.shape)).astype(np.float32)
    settings = ClusterSettings("dbscan", 0.5, 2)
    proposal = propose(points, settings, k1=6, k2=2)
    assert proposal.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert (proposal.confidence > 0.5).all()
    tracks = np.full(18, -1)
    tracks[[0, 17]] = 4
    merged = propose(points, settings, k1=6, k2=2, tracks=tracks)
    assert merged.labels.tolist() == [0] * 6 + [1] * 6 + [0] * 6
    with pytest.raises(ValueError, match="no identity was found: 9 images within --radius 0.5"):
        propose(points, ClusterSettings("dbscan", 0.5, 9), k1=6, k2=2)
    with pytest.raises(ValueError, match="all 6 images have one identity at --radius 0.5"):
        propose(points[:6], settings, k1=6, k2=2)


def test_corrections_are_counted():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, -1])
    scores = score_proposal(["a", "a", "b", "a", "a", "c", "c", "c"], labels)
    # Identities 0 and 1 are both a's; one image of b is in identity 0.
    assert (scores.num_merges, scores.num_moved, scores.num_without) == (1, 1, 1)
    # Pairs: 3 + 1 + 1 predicted, 6 + 3 true, 1 + 1 + 1 matched.
    assert scores.pairs.precision == 3 / 5 and scores.pairs.recall == 3 / 9
    assert "F1 42.9%; corrections: 1 merges, 1 images of others, 1 images" in scores.describe()


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_market):
    """The page of 32 images of 8 people in two cameras; four images are in wrong places.

    Person 1 is in identities 1 and 2, persons 2 and 3 are in identity 3, and an image of person 4
    has no identity. All other identities are right.
    """
    images = [
        ImageFile(path, camid=path.name[5:7])
        for path in sorted((tiny_market / "bounding_box_train").glob("*.jpg"))
    ]
    labels = np.array([0, 0, 1, 1] + [2] * 8 + [3] * 3 + [-1] + sorted([4, 5, 6, 7] * 4))
    proposal = Proposal(
        labels, np.linspace(0, 0.9, 32), np.array([1, 0, 3, 2, -1, -1, -1, -1]), np.full(8, 0.25)
    )
    folder = tmp_path_factory.mktemp("page") / "labels"
    write_labels(folder, images, proposal, test_share=0.25, max_thumbnails=31)
    return folder / "index.html"


CORRECTIONS = """
const report = {};
const press = (key, more = {}) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const section = group => document.querySelector(`[data-group="${group}"]`);
const box = group => section(group).querySelector("input");
const tile = image => document.querySelector(`[data-image="${image}"]`);
const status = () => byId("status").textContent;
report.start = [status(), byId("page").textContent, byId("merge").disabled];
report.order = [...document.querySelectorAll(".group")].map(one => one.dataset.group).join(" ");
// Merge identities 1 and 2 with the mouse.
section(0).querySelector(".near").click();
report.selected = status();
byId("merge").click();
report.merged = [status(), section(0).querySelectorAll(".tile").length];
// Split identity 3: the keyboard reaches its fourth image, Shift extends the selection.
box(2).focus();
for (let step = 0; step < 5; step++) press("ArrowRight");
document.activeElement.click();
tile(11).dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
report.range = chosenImages.size;
press("Escape");
report.nothing = chosenImages.size;
for (const image of [8, 9, 10, 11]) tile(image).click();
press("s");
report.split = [status(), section(8).querySelectorAll(".tile").length];
// The last image of person 4 joins the others.
box(3).click();
tile(15).click();
press("m");
// Leave out identity 5 by its focus, bring it back, and leave it out again.
box(4).focus();
press("x");
report.rejected = status();
press("z", { ctrlKey: true });
report.undone = [status(), box(4).checked];
box(4).focus();
press("ArrowDown");
report.next = document.activeElement.closest(".group").dataset.group;
press("ArrowUp");
press("x");
let saved;
URL.createObjectURL = blob => { saved = blob; return "#"; };
HTMLAnchorElement.prototype.click = function () { report.download = this.download; };
press("s", { ctrlKey: true });
report.isSaved = isSaved;
const entries = performance.getEntriesByType("resource");
report.fetched = entries.filter(entry => !entry.name.startsWith("data:")).length;
report.fits = document.documentElement.scrollWidth <= innerWidth;
document.title = JSON.stringify({ ...report, csv: csvText(), saved: saved.type });
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_corrections_in_a_browser_give_a_list_to_train_on(page, tmp_path, train, tiny_market):
    found = json.loads(run_in_browser(page, CORRECTIONS, tmp_path, width=500))
    assert found["start"] == ["8 identities, 31 images, 1 left out", "page 1 of 1", True]
    assert found["order"] == "0 1 2 3 4 5 6 7 -1"
    assert found["selected"].endswith("selected: 2 identities, 0 images")
    assert found["merged"] == ["Merged into Identity 1. 7 identities, 31 images, 1 left out", 4]
    assert found["range"] == 4 and found["nothing"] == 0
    assert found["split"] == ["Identity 9 is new. 8 identities, 31 images, 1 left out", 4]
    assert found["rejected"] == "4 images left out. 7 identities, 28 images, 4 left out"
    assert found["undone"] == ["Undone. 8 identities, 32 images, 0 left out", False]
    assert found["next"] == "5" and found["download"] == "labels.csv" and found["isSaved"]
    assert found["fetched"] == 0 and found["fits"] and found["saved"] == "text/csv"
    path = tmp_path / "saved.csv"
    path.write_text(found["csv"])
    splits = load_csv(path)
    assert len(splits.train) == 20 and len({record.pid for record in splits.train}) == 5
    # Two of seven identities are tested: two queries each, one per camera.
    assert len(splits.query) == 4 and len(splits.gallery) == 4
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    people = {row["pid"]: set() for row in rows}
    for row in rows:
        people[row["pid"]].add(row["path"].rpartition("/")[2][:4])
    assert sorted(map(sorted, people.values())) == [[f"{n:04d}"] for n in (1, 2, 3, 4, 6, 7, 8)]
    words = ["DATASETS.NAMES", f"['csv:{path}']", "SOLVER.MAX_EPOCHS", "1"]
    folder = train(tmp_path / "run", *words, "SOLVER.IMS_PER_BATCH", "8")
    assert "2 iterations per epoch" in (folder / "log.txt").read_text()
    assert list(json.loads((folder / "results.json").read_text())) == ["saved"]


def test_the_page_has_no_external_resources_and_escapes_names(page, tmp_path):
    text = page.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|<link|fetch\(", text)
    assert text.count("data:image/jpeg;base64,") == 31 and "default-src 'none'" in text
    assert "1 images have no thumbnail here" in text
    name = tmp_path / "a<script>'\u2028,\".jpg"
    Image.new("RGB", (8, 16)).save(name)
    proposal = Proposal(np.zeros(1, np.int64), np.zeros(1), np.full(1, -1), np.zeros(1))
    write_labels(tmp_path / "out", [ImageFile(name)], proposal, test_share=0.0, max_thumbnails=9)
    text = (tmp_path / "out" / "index.html").read_text()
    assert "a<script>" not in text and "camid" not in (tmp_path / "out/labels.csv").read_text()
    assert load_csv(tmp_path / "out" / "labels.csv").train[0].paths[0].samefile(name)


# The command


def test_the_command_proposes_identities(tiny_run, tiny_market, tmp_path, capsys):
    weights = ["TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt"), "DEVICE", "cpu"]
    folder = shutil.copytree(tiny_market / "bounding_box_train", tmp_path / "crops")
    rows = ["path,camid,tracklet"]
    rows += [f"crops/{p.name},{p.name[5:7]},{p.name[:7]}" for p in sorted(folder.iterdir())]
    (tmp_path / "crops.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "labels"
    options = ["--out", str(out), "--k1", "4", "--k2", "1", "--radius", "0.4"]
    assert main([str(tmp_path / "crops.csv"), *weights, *options]) == 0
    line = re.search(
        r"index.html: 32 images, \d+ identities, (\d+) images without identity",
        capsys.readouterr().out,
    )
    with open(out / "labels.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["path", "pid", "camid", "split", "confidence"]
    pids = {row["path"].rpartition("/")[2]: row["pid"] for row in found}
    assert found[0]["path"].startswith("../crops/") and len(pids) == 32 - int(line[1]) > 8
    # The two images of a tracklet have one identity, or both have none.
    tracks = {}
    for name, pid in pids.items():
        tracks.setdefault(name[:7], []).append(pid)
    assert all(len(track) == 2 and len(set(track)) == 1 for track in tracks.values())
    assert len(load_csv(out / "labels.csv").train) > 4
    # A second time, the folder has files.
    assert main([str(folder), *weights, *options]) == 2
    assert "labels, which already contains index.html; name a new folder" in capsys.readouterr().err
    options[1] = str(tmp_path / "scored")
    words = [str(folder), *weights, *options, "--ids", "prefix", "--score", "--min-images", "2"]
    assert main(words) == 0
    assert "pairs of images: precision " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--out", "new"], "no images: give files, folders or CSV files"),
        (["empty", "--out", "new"], "there is no image in empty"),
        (["crops", "--out", "file.txt"], "--out is file.txt, a file; it must be a folder"),
        (["crops", "--out", "new", "--radius", "2"], "--radius is 2.0, it must be in 0..1"),
        (["crops", "--out", "new", "--algorithm", "kmeans"], "must be one of dbscan, hdbscan"),
        (["crops", "--out", "new", "--min-images", "1"], "--min-images is 1, it must be at least"),
        (["crops/one.jpg", "--out", "new"], "identities need at least two images, found 1"),
        (["list.csv", "--out", "new"], "2 of 3 images cannot be read; --skip-broken leaves them"),
        (["crops", "--out", "new", "weights=file.txt"], "file.txt"),
        (["crops", "--out", "new", "--score"], "--score needs the true identity of every image"),
    ],
)
def test_errors_are_one_line(words, message, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "crops"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("one", "two", "three", "four")):
        color = (60 * number, 200 - 60 * number, 20)
        Image.new("RGB", (16, 32), color).save(f"crops/{name}.jpg")
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "list.csv").write_text("path\ncrops/one.jpg\nfile.jpg\nmissing.jpg\n")
    (tmp_path / "file.jpg").write_text("no image")
    if not any("weights" in word for word in words):
        words = [*words, "TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt")]
    assert main([*words, "DEVICE", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("label: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_folders_in_a_folder_are_cameras(tmp_path):
    for name in ("night/gate/1.jpg", "night/door/a/2.jpg", "loose/3.jpg", "loose/x/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    sources = [str(tmp_path / "night"), str(tmp_path / "loose")]
    images = name_cameras(read_images(sources), sources)
    assert {image.path.name: image.camid for image in images} == {
        **{"1.jpg": "gate", "2.jpg": "door", "3.jpg": "", "4.jpg": ""}
    }


def test_a_list_may_have_tracks(tmp_path):
    (tmp_path / "list.csv").write_text("path,track,camid\na.jpg,t1,c1\nb.jpg,,c1\n")
    assert [image.track for image in read_images([tmp_path / "list.csv"])] == ["t1", ""]
