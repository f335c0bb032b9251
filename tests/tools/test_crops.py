"""Crops along tracks: filters by hand, splits, resuming, and errors in one line."""

import csv
import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ember_reid.data import DATASETS
from ember_reid.tools.crops import writer
from ember_reid.tools.crops.command import main
from ember_reid.tools.crops.selection import (
    OVERLAP,
    SMALL,
    TRUNCATED,
    Candidate,
    Filters,
    Placed,
    filter_frame,
    max_overlaps,
    sharpness,
    split_track,
)
from ember_reid.tools.crops.split import split_crops
from PIL import Image

SIZE = (100, 80)


def box(left, top, right, bottom, track="1"):
    return Placed(0, track, left, top, right, bottom)


def test_overlap_is_intersection_over_union():
    # 10 x 10 boxes shifted by 5: 50 / 150. The third touches nobody.
    boxes = [box(0, 0, 10, 10), box(5, 0, 15, 10), box(50, 50, 60, 60)]
    assert max_overlaps(boxes) == pytest.approx([1 / 3, 1 / 3, 0])
    assert max_overlaps(boxes[:1]) == [0]


def test_boxes_are_clipped_and_filtered():
    filters = Filters(min_width=5, min_height=5, min_visible=0.5, max_overlap=0.3)
    dropped = Counter()
    boxes = [
        box(-4, 0, 6, 20, "60 % visible"),
        box(-6, 30, 4, 50, "40 % visible"),
        box(20, 20, 24, 60, "4 wide"),
        box(40, 0, 50, 10, "a"),
        box(45, 0, 55, 10, "b"),
        box(60.4, 60.6, 70.4, 70.6, "rounded"),
    ]
    kept = filter_frame(boxes, SIZE, filters, dropped)
    assert [(c.track, c.left, c.top, c.right, c.bottom) for c in kept] == [
        ("60 % visible", 0, 0, 6, 20),
        ("rounded", 60, 61, 70, 71),
    ]
    assert dropped == {TRUNCATED: 1, SMALL: 1, OVERLAP: 2}


def test_sharpness_is_the_variance_of_the_laplacian():
    # A single white pixel: the Laplacian is -4 * 255 there and 255 at its four neighbors, which
    # are in the interior [3, 3]; the other four are 0.
    pixels = np.zeros((5, 5, 3), np.uint8)
    pixels[2, 2] = 255
    values = np.array([-4, 1, 1, 1, 1, 0, 0, 0, 0]) * 255.0
    assert sharpness(pixels) == pytest.approx(values.var(), rel=1e-5)
    assert sharpness(np.full((5, 5, 3), 7, np.uint8)) == pytest.approx(0, abs=1e-6)
    assert sharpness(np.zeros((2, 9, 3), np.uint8)) == 0


def test_a_track_is_divided_into_parts_of_similar_length():
    track = [Candidate(index, "1", 0, 0, 9, 9) for index in range(7)]
    parts = [[candidate.index for candidate in part] for part in split_track(track, 3)]
    assert parts == [[0, 1], [2, 3], [4, 5, 6]]
    assert len(split_track(track, 0)) == len(split_track(track, 9)) == 7


def test_identities_of_several_cameras_are_tested_and_others_train():
    pids = ["a", "a", "a", "a", "b", "c", "c", "-1"]
    cameras = ["x", "x", "x", "y", "x", "x", "y", "x"]
    splits = split_crops(pids, cameras, test_share=1.0, seed=0)
    # The middle crop of camera x is the query; b has one camera only; c has one crop per camera.
    assert splits[:4] == ["gallery", "query", "gallery", "gallery"]
    assert splits[4] == "train" and splits[5:] == ["query", "gallery", "gallery"]
    halves = split_crops(pids, cameras, test_share=0.5, seed=3)
    assert {s for s, p in zip(halves, pids, strict=True) if p == "b"} == {"train"}
    assert Counter(halves)["train"] in (3, 5)
    assert split_crops(["a", "a", "b"], ["x"] * 3, test_share=1, seed=0) == [
        "gallery",
        "query",
        "train",
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two folders of 12 noisy frames, and tracks of three people as MOTChallenge files."""
    root = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(0)
    for camera in ("cam1", "cam2"):
        (root / camera).mkdir()
        lines = []
        for frame in range(1, 13):
            pixels = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / camera / f"{frame}.png")
            lines += [f"{frame},{k},{5 + 30 * k},{frame},20,40,1,1,1" for k in range(3)]
        (root / f"{camera}.txt").write_text("\n".join(lines))
    return root


def run(scene, out, *more):
    sources = [
        word
        for camera in ("cam1", "cam2")
        for word in ("--source", camera, str(scene / camera), str(scene / f"{camera}.txt"))
    ]
    return main([*sources, "--ids", "shared", "--out", str(out), *more])


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def crops(scene, tmp_path_factory):
    """The crops of `scene`, four per track."""
    out = tmp_path_factory.mktemp("crops") / "out"
    assert run(scene, out, "--per-track", "4", "--frame-rate", "5") == 0
    return out


def test_the_list_is_a_dataset_of_this_program(crops, scene, capsys):
    with (crops / "crops.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 4
    row = rows[0]
    frame = int(row["frame"])
    assert frame in (0, 1, 2) and float(row["time"]) == pytest.approx(frame / 5)
    assert (row["camid"], row["track"], row["width"], row["height"]) == (
        "cam1",
        "source000/0",
        "20",
        "40",
    )
    with Image.open(crops / row["path"]) as image:
        assert image.size == (20, 40)
        saved = np.asarray(image).astype(float)
    pixels = np.asarray(Image.open(scene / "cam1" / f"{frame + 1}.png")).astype(float)
    cut = pixels[frame + 1 : frame + 41, 5:25]
    # JPEG of noise at quality 95.
    assert np.abs(saved - cut).mean() < 12 < np.abs(saved - pixels[:40, 30:50]).mean()
    splits = DATASETS["csv"](crops / "crops.csv")
    # Of three people in both cameras, two are tested: one query per camera and person.
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (8, 4, 12)
    assert run(scene, crops, "--per-track", "4", "--frame-rate", "5") == 0
    assert "crops.csv: exists already" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_interrupted_work_continues_with_the_same_files(
    error, scene, crops, tmp_path, monkeypatch, capsys
):
    written = []

    def fail(path, content):
        if len(written) == 14:
            raise error
        written.append(path)
        return write(path, content)

    write = writer.write_file
    out = tmp_path / "out"
    options = ("--per-track", "4", "--frame-rate", "5")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_file", fail)
        assert run(scene, out, *options) != 0
    message = capsys.readouterr().err.strip()
    if isinstance(error, OSError):
        assert message.endswith("the crops so far are kept: call the command again")
        assert "No space left" in message and "\n" not in message
    # A line that was not written to its end is ignored.
    journal = out / "unfinished" / "source001.jsonl"
    journal.write_text(journal.read_text() + '[3, {"path": "sou')
    monkeypatch.setattr(writer, "write_file", fail)
    written.clear()
    assert run(scene, out, *options) == 0
    # 10 crops, and the two files at the end, which another module writes.
    assert len(written) == 24 - 14
    assert content(out) == content(crops)


def test_other_options_are_refused_and_overwrite_replaces(scene, crops, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(crops, out)
    assert run(scene, out, "--per-track", "2") == 2
    assert "has crops of other frames, tracks or options" in capsys.readouterr().err
    assert run(scene, out, "--per-track", "2", "--overwrite") == 0
    assert len(list(out.rglob("*.jpg"))) == 2 * 3 * 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    assert run(scene, tmp_path / "mine", "--overwrite") == 2
    assert "is not empty and has no crops of this command" in capsys.readouterr().err


def single(scene, tmp_path, text, *more, name="tracks.txt"):
    (tmp_path / name).write_text(text)
    source = ["--source", "cam", str(scene / "cam1"), str(tmp_path / name)]
    return main([*source, "--out", str(tmp_path / "out"), *more])


def test_every_dropped_box_is_counted(scene, tmp_path, capsys):
    lines = ["1,1,5,5,20,40", "1,1,6,5,20,40", "2,1,500,5,20,40", "3,1,5,5,9,40", "3,1,5,5,0,9"]
    lines += ["4,-1,5,5,20,40", "5,1,90,5,20,40", "6,1,5,5,20,40,1,1,0.1"]
    assert single(scene, tmp_path, "\n".join(lines)) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "cam: 1 crops; boxes left out: 1 are cut off by the frame, 1 are hidden, 1 are outside the "
        "frame, 1 are too small, 1 have no area, 1 have no track, 1 repeat a track within a frame"
    )


def test_boxes_without_any_track_become_images_without_identity(scene, tmp_path):
    assert single(scene, tmp_path, "1,-1,5,5,20,40\n1,-1,50,5,20,40\n") == 0
    with (tmp_path / "out" / "crops.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["pid"], row["split"], row["track"]) for row in rows] == [("-1", "gallery", "")] * 2


def test_tracks_of_another_frame_rate(scene, tmp_path, capsys):
    text = "\n".join(f"{frame},1,5,5,20,40" for frame in range(1, 25, 2))
    assert single(scene, tmp_path, text, "--frame-rate", "10") == 2
    assert "has boxes up to frame 23" in (error := capsys.readouterr().err)
    assert "has 12 frames at 10 per second" in error and not (tmp_path / "out" / "work").exists()
    rates = ("--frame-rate", "10", "--tracks-rate", "20")
    assert single(scene, tmp_path, text, *rates) == 0
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 12
    assert single(scene, tmp_path, text, "--ignore-beyond", "--overwrite") == 0
    assert "6 are in frames after the end of the video" in capsys.readouterr().out


def test_identities_of_tracks_can_be_given(scene, tmp_path):
    (tmp_path / "ids.csv").write_text("camera,track,pid\ncam,1,bella\n")
    text = "1,1,5,5,20,40\n1,2,50,5,20,40\n"
    assert single(scene, tmp_path, text, "--identities", str(tmp_path / "ids.csv")) == 0
    with (tmp_path / "out" / "crops.csv").open() as file:
        assert [row["pid"] for row in csv.DictReader(file)] == ["bella", "-1"]


def test_labels_never_decide_where_files_are_written(scene, tmp_path):
    entry = {"image_id": 1, "bbox": [5, 5, 20, 40], "track_id": "../../evil", "category_id": 1}
    images = [{"id": 1, "file_name": "../../1.png"}]
    text = json.dumps({"images": images, "annotations": [entry]})
    assert single(scene, tmp_path, text, name="tracks.json") == 0
    (image,) = tmp_path.rglob("*.jpg")
    assert image.relative_to(tmp_path / "out").parts[0] == "source000"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "tracks.json"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--every", "0"], "--every is 0, it must be at least 1"),
        (["--test-share", "2"], "--test-share is 2, it must be in 0..1"),
        (["--min-sharpness", "-1"], "--min-sharpness is -1, it must be at least 0"),
        (["--labels", "cow"], "no box passed the filters; nothing was written"),
        (["--format", "coco"], "is not JSON"),
        (["--source", "b", "nowhere", "x"], "there are 2 sources: give --ids shared if equal"),
    ],
)
def test_wrong_options_end_in_one_line(more, message, scene, tmp_path, capsys):
    assert single(scene, tmp_path, "1,1,5,5,20,40\n", *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_tracks_of_another_image_size_are_refused(scene, tmp_path, capsys):
    images = [{"id": 1, "file_name": "1.png", "width": 50, "height": 40}]
    text = json.dumps({"images": images, "annotations": []})
    assert single(scene, tmp_path, text, name="tracks.json") == 2
    assert "is for frames of 50 x 40 pixels" in capsys.readouterr().err
