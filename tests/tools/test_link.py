"""Linking tracklets: constraints and the command."""

import csv
import errno
import json
import math
import shutil

import numpy as np
import pytest
from ember_reid.evaluate.agglomeration import NearPairs, average_linkage, silhouettes
from ember_reid.tools.common.inputs import read_images
from ember_reid.tools.link import main, output
from ember_reid.tools.link.constraints import Constraints, TravelTimes
from ember_reid.tools.link.tracklets import Tracklet, shift_times, spread

NEVER = Constraints([Tracklet("", str(k), (k,)) for k in range(64)], TravelTimes({})).conflict


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (("a", 0, 5), ("a", 5, 9), True),
        (("a", 0, 5), ("a", 5.1, 9), False),
        (("a", 0, 5), ("c", 2, 3), False),
        # From a to b: 10 to 60 seconds. From b to a: no limit.
        (("a", 0, 5), ("b", 15, 20), False),
        (("a", 0, 5), ("b", 14.9, 20), True),
        (("a", 0, 5), ("b", 65.1, 70), True),
        (("a", 0, 5), ("b", 2, 3), True),
        (("b", 0, 5), ("a", 6, 9), False),
        (("a", None, None), ("b", 2, 3), False),
        (("a", None, None), ("a", 2, 3), False),
    ],
)
def test_pairs_that_cannot_be_linked(one, other, conflict):
    tracklets = [
        Tracklet(camid, str(number), (number,), first, last)
        for number, (camid, first, last) in enumerate((one, other))
    ]
    constraints = Constraints(tracklets, TravelTimes({("a", "b"): (10, 60)}))
    assert constraints.conflict([0], [1]) == constraints.conflict([1], [0]) == conflict


def test_offsets_of_cameras_and_sources():
    tracklets = [
        Tracklet("a", "source000/1", (0,), 0.0, 1.0),
        Tracklet("a", "source001/1", (1,), 0.0, 1.0),
        Tracklet("b", "source002/1", (2,)),
    ]
    with pytest.raises(ValueError, match="'a' has 2 sources, .* give --offset source001 SECONDS"):
        shift_times(tracklets, {})
    shifted = shift_times(tracklets, {"a": 3.0, "source001": 60.0, "b": 1.0})
    assert [(item.first, item.last) for item in shifted] == [(3, 4), (63, 64), (None, None)]


def test_crops_are_spread_over_the_tracklet():
    assert spread(range(12), 3) == [2, 6, 10]
    assert spread(range(3), 0) == spread(range(3), 5) == [0, 1, 2]


@pytest.fixture(scope="module")
def best(tiny_run, tmp_path_factory):
    """A copy of the weights, so that another test's calibration is not found."""
    folder = tmp_path_factory.mktemp("link_weights")
    return shutil.copy(tiny_run / "checkpoints" / "best.pt", folder / "best.pt")


@pytest.fixture
def crops(tiny_market, tmp_path):
    """Three people in two cameras with the same image; the second visit of "x" to cam1 overlaps."""
    folder = tmp_path / "crops"
    folder.mkdir()
    images = [image.path for image in read_images([tiny_market / "query"])][:3]
    rows = [["path", "pid", "camid", "track", "time", "note"]]
    for person, image in zip("xyz", images, strict=True):
        shutil.copy(image, folder / f"{person}.jpg")
        for camera in ("cam1", "cam2"):
            for time in (0, 2):
                rows.append([f"{person}.jpg", person, camera, f"t{person}", time, "a, b"])
    rows.append(["x.jpg", "x", "cam1", "again", 1, ""])
    rows.append(["y.jpg", "-1", "cam1", "", "", ""])
    write(folder / "crops.csv", rows)
    return folder / "crops.csv"


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_link_writes_identities_crops_page_and_scores(crops, best, tmp_path, capsys):
    out = tmp_path / "linked"
    words = [str(crops), f"weights={best}", "--out", str(out), "--threshold", "1e-5", "--score"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    # The overlapping tracklet of x stays apart: 12 of 13 crops match, 3 of 5 pairs are found.
    assert "linked: IDF1 92.3%" in printed
    assert "pairs of tracklets: F1 75.0% (precision 100.0%, recall 60.0%)" in printed
    # Alone, 2 of 5 (x), 2 of 4 (y) and 2 of 4 (z) crops match.
    assert "every tracklet by itself: IDF1 46.2%" in printed
    links = read(out / "links.csv")
    assert [row["identity"] for row in links] == ["1", "1", "2", "2", "3", "3", "4"]
    assert links[0] == {
        "camid": "cam1",
        "track": "tx",
        "identity": "1",
        "confidence": links[0]["confidence"],
        "first": "0.0",
        "last": "2.0",
        "num_crops": "2",
    }
    assert float(links[0]["confidence"]) > 0.9
    rows = read(out / "crops.csv")
    assert len(rows) == 13 and {row["pid"] for row in rows} == {"1", "2", "3", "4"}
    assert all((out / row["path"]).samefile(crops.parent / row["path"][-5:]) for row in rows)
    assert rows[0]["note"] == "a, b" and {row["split"] for row in rows} >= {"train", "query"}
    page = (out / "index.html").read_text()
    assert "Identity 1: 2 tracklets in 2 cameras" in page and "cam1 again" in page
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["identities"], summary["tracklets"], summary["crops"]) == (4, 7, 13)
    assert summary["crops_without_track"] == 1
    # Without times, all crops of x are one identity.
    assert main([*words, "--no-times"]) == 0
    assert "linked: IDF1 100.0%" in capsys.readouterr().out
    assert {row["first"] for row in read(out / "links.csv")} == {""}


def test_travel_times_and_offsets(crops, best, tmp_path, capsys):
    travel = tmp_path / "travel.csv"
    travel.write_text("from,to,min_seconds,max_seconds\ncam1,cam2,5,\ncam2,cam1,5,\n")
    words = [str(crops), f"weights={best}", "--out", str(tmp_path / "linked")]
    words += ["--threshold", "1e-5", "--travel", str(travel)]
    assert main(words) == 0
    assert "7 tracklets, 7 identities" in capsys.readouterr().out
    # cam1 ends at 2 seconds; cam2 starts at 7.5 seconds.
    assert main([*words, "--offset", "cam2", "7.5"]) == 0
    assert "7 tracklets, 4 identities" in capsys.readouterr().out


def test_images_that_cannot_be_read_are_left_out(crops, best, tmp_path, capsys):
    (crops.parent / "z.jpg").write_bytes(b"not an image")
    words = [str(crops), f"weights={best}", "--out", str(tmp_path / "linked")]
    assert main([*words, "--threshold", "1e-5", "--per-track", "1", "--score"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("left out:") == 2 and "tracklets without any image: 2" in printed
    # 8 crops match; 13 have an identity, of which 9 are linked.
    assert f"IDF1 {16 / 22:.1%}" in printed


def test_the_folder_is_replaced_completely_or_not_at_all(
    crops, best, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "linked"
    words = [str(crops), f"weights={best}", "--out", str(out), "--threshold", "1e-5"]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(output, "_write_page", fail)
        assert main([*words, "--no-times"]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "linked"]
    (out / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main(words) == 2
    assert "which contains notes.txt, not a result of this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ("path,pid\na.jpg,1\n", [], "line 1: no column camid, track; found: path, pid"),
        ("path,camid,track\na.jpg,c,\n", [], "has no tracklets: the column track is empty"),
        ("path,camid,track\na.jpg,c\n", [], "line 2: it must have 3 cells"),
        ("path,camid,track,time\na.jpg,c,1,noon\n", [], "line 2: time is 'noon', it must be a num"),
        ("path,camid,track,time\na.jpg,c,1,inf\n", [], "line 2: time is 'inf', it must be a num"),
        (None, ["--offset", "cam3", "1"], "--offset names the camera 'cam3'; the tracklets have"),
        (None, ["--offset", "cam1", "x"], "--offset cam1 is 'x', it must be a number of seconds"),
        (None, ["--no-times", "--offset", "cam1", "1"], "--no-times excludes --travel"),
        (None, ["--per-track", "-1"], "--per-track is -1, it must be at least 0"),
        (None, ["weights=no.pt"], "no.pt"),
        (None, ["more.csv"], "give one list of crops, found 2"),
        (None, ["--out", "crops"], "--out is crops, the folder of crops.csv"),
        ("path,camid,track\nno.jpg,c,1\n", ["WEIGHTS"], "none of the 1 images can be read"),
        ("path,camid,track\nno.jpg,c,1\n", ["WEIGHTS", "--threshold", "none"], "run tools.calibr"),
    ],
)
def test_errors_are_one_line(rows, words, message, crops, best, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if rows is not None:
        crops.write_text(rows)
    words = [f"weights={best}" if word == "WEIGHTS" else word for word in words]
    threshold = [] if "--threshold" in words else ["--threshold", "1e-5"]
    assert main([str(crops), "--out", "linked", *threshold, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "linked").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,to\n", "line 1: no column min_seconds, max_seconds"),
        ("cam1,cam9,0,1\n", "line 2 names the camera 'cam9'; the tracklets have cam1, cam2"),
        ("cam1,cam2,soon,1\n", "line 2: min_seconds is 'soon', it must be a number of seconds"),
        ("cam1,cam2,5,1\n", "line 2: min_seconds 5 is above max_seconds 1"),
        ("cam1,cam2,0,1\ncam1,cam2,0,2\n", "line 3: a second line from cam1 to cam2"),
    ],
)
def test_errors_in_travel_times(text, message, crops, tmp_path, capsys):
    path = tmp_path / "travel.csv"
    header = "" if text.startswith("from") else "from,to,min_seconds,max_seconds\n"
    path.write_text(header + text)
    assert main([str(crops), "--out", str(tmp_path / "linked"), "--travel", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_silhouettes_are_finite_at_threshold_zero():
    pairs = NearPairs(np.array([0]), np.array([1]), np.array([0.0]))
    labels = average_linkage(3, pairs, threshold=0.0, conflict=NEVER)
    assert labels.tolist() == [0, 0, 1]
    found = silhouettes(labels, pairs, threshold=0.0, conflict=NEVER)
    assert all(map(math.isfinite, found))
