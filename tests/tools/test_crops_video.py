"""Videos become crops: truncated files, kills, and a training run from rendered videos."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ember_reid.tools.crops.command import main
from ember_reid.tools.crops.frames import open_frames
from ember_reid.tools.quickstart_data.command import main as render
from PIL import Image

av = pytest.importorskip("av", reason="an optional integration: run `make test-extras`")
pytestmark = pytest.mark.extras
ROOT = Path(__file__).parents[2]
FRAMES = 60
SHADES = [4 * frame for frame in range(FRAMES)]


def write_video(path: Path, *, options: dict[str, str] | None = None) -> Path:
    """Frame k is gray with the value 4 k, 96 x 64 pixels, 10 per second."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.options = {"crf": "10", "g": "12"}
        for shade in SHADES:
            pixels = np.full((64, 96, 3), shade, np.uint8)
            pixels[10:50, 10:30] = np.random.default_rng(shade).integers(0, 256, (40, 20, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video with one track in all frames, and the index of the file in front."""
    folder = tmp_path_factory.mktemp("clip")
    lines = [f"{frame},1,10,10,20,40,1,1,1" for frame in range(1, FRAMES + 1)]
    (folder / "tracks.txt").write_text("\n".join(lines))
    return write_video(folder / "clip.mp4", options={"movflags": "faststart"})


def words(video: Path, tracks: Path, out: Path) -> list[str]:
    return ["--source", "cam", str(video), str(tracks), "--out", str(out)]


def test_frames_are_numbered_and_timed(clip):
    frames = open_frames(clip)
    assert (frames.count, frames.size, frames.rate) == (FRAMES, (96, 64), 10)
    read = list(frames.read({0, 17, 40}))
    assert len(read) == 41 and sum(frame is not None for frame in read) == 3
    for frame in read:
        if frame is not None:
            assert frame.pixels[60, 90].mean() == pytest.approx(SHADES[frame.index], abs=3)
            assert frame.time == pytest.approx(frame.index / 10)


def test_a_rotated_video_is_read_as_players_show_it(clip, tmp_path):
    rotated = tmp_path / "rotated.mp4"
    content = bytearray(clip.read_bytes())
    # The matrix in the track header: the identity becomes a rotation by 90 degrees.
    one, zero, minus = (value.to_bytes(4, "big", signed=True) for value in (65536, 0, -65536))
    w = (1 << 30).to_bytes(4, "big")
    identity = one + zero * 3 + one + zero * 3 + w
    turned = zero + one + zero + minus + zero * 4 + w
    start = content.index(identity, content.index(b"tkhd"))
    content[start : start + 36] = turned
    rotated.write_bytes(content)
    frames = open_frames(rotated)
    assert frames.size == (64, 96)
    (frame,) = (frame for frame in frames.read({5}) if frame is not None)
    # Clockwise: the textured rectangle of the rows 10 to 50 is now in the columns 14 to 54.
    assert frame.pixels[10:30, 14:54].std() > 40 > frame.pixels[40:, :].std()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_truncated_video_is_used_up_to_its_end(suffix, clip, tmp_path, capsys):
    video = tmp_path / f"cut.{suffix}"
    write_video(video, options={"movflags": "faststart"} if suffix == "mp4" else None)
    whole = video.read_bytes()
    video.write_bytes(whole[: 2 * len(whole) // 3])
    assert main(words(video, clip.parent / "tracks.txt", tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "can be read: the crops up to there are kept" in printed
    with (tmp_path / "out" / "crops.csv").open() as file:
        frames = [int(row["frame"]) for row in csv.DictReader(file)]
    assert frames == list(range(len(frames))) and 20 < len(frames) < 50
    assert "are in frames after the end of the video" in printed


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 5000])
def test_a_file_that_is_no_video_is_refused(content, clip, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(content)
    assert main(words(tmp_path / "bad.mp4", clip.parent / "tracks.txt", tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "bad.mp4 is not a video that can be read" in error and error.count("\n") == 1


def test_tracks_of_another_frame_rate_are_refused_or_converted(clip, tmp_path, capsys):
    tracks = tmp_path / "tracks.txt"
    tracks.write_text("\n".join(f"{frame},1,10,10,20,40" for frame in range(1, 121)))
    assert main(words(clip, tracks, tmp_path / "out")) == 2
    assert "has boxes up to frame 120" in (error := capsys.readouterr().err)
    assert "has 60 frames at 10 per second" in error
    assert main([*words(clip, tracks, tmp_path / "out"), "--tracks-rate", "20"]) == 0
    # Pairs of frames of the tracks are the same frame of the video.
    assert "60 repeat a track within a frame" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 60


def test_a_killed_command_continues_with_the_same_files(clip, tmp_path):
    # The same video often enough for a few seconds of work.
    command = [sys.executable, "-m", "tools.crops", "--ids", "separate", "--out"]
    sources = ["--source", "cam", str(clip), str(clip.parent / "tracks.txt")] * 4
    subprocess.run([*command, str(tmp_path / "whole"), *sources], cwd=ROOT, check=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, str(killed), *sources], cwd=ROOT)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(killed.rglob("*.jpg"))) < 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "crops.csv").exists()
    subprocess.run([*command, str(killed), *sources], cwd=ROOT, check=True)
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "whole", killed)
    ]
    # A draft may remain.
    assert names[0] == {name for name in names[1] if not name.name.startswith(".")}
    assert all((killed / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names[0])


def test_from_rendered_videos_to_scores(tmp_path, monkeypatch, capsys):
    from ember_reid import main as program

    options = "--videos --video-people 5 --video-frames 48".split()
    assert render([str(tmp_path / "data"), *options]) == 0
    videos = tmp_path / "data" / "videos"
    first = np.loadtxt(videos / "cam1.txt", delimiter=",")
    assert first[:, 0].max() <= 48 and set(first[:, 1]) <= set(range(1, 6))
    assert ((first[:, 8] >= 0) & (first[:, 8] <= 1)).all()
    # The tracks of visits are the same boxes; visits.csv names the person of each.
    visits = np.loadtxt(videos / "cam1_visits.txt", delimiter=",")
    owners = dict(
        line.rsplit(",", 1)
        for line in (videos / "visits.csv").read_text().splitlines()
        if line.startswith("cam1,")
    )
    assert (np.delete(visits, 1, axis=1) == np.delete(first, 1, axis=1)).all()
    assert [int(owners[f"cam1,{int(track)}"]) for track in visits[:, 1]] == first[:, 1].tolist()
    sources = [
        word
        for name in ("cam1", "cam2")
        for word in ("--source", name, str(videos / f"{name}.mp4"), str(videos / f"{name}.txt"))
    ]
    out = tmp_path / "crops"
    assert main([*sources, "--ids", "shared", "--out", str(out), "--per-track", "12"]) == 0
    assert json.loads((out / "crops.json").read_text())["splits"]["query"] >= 4
    with Image.open(next(out.rglob("*.jpg"))) as image:
        assert image.size[1] > image.size[0] > 15
    run = tmp_path / "run"
    settings = (
        f"DATASETS.NAMES ['csv:{out}/crops.csv'] INPUT.SIZE_TRAIN (64,32) INPUT.SIZE_TEST (64,32) "
        "MODEL.BACKBONE.NAME tiny SOLVER.MAX_EPOCHS 6 SOLVER.IMS_PER_BATCH 8 "
        "DATALOADER.NUM_INSTANCES 4 DATALOADER.NUM_WORKERS 0 LOG.TO () LOG.PROGRESS False "
        f"TEST.RE_RANKING False DEVICE cpu OUTPUT_DIR {run}"
    ).split()
    recipe = ROOT / "configs" / "quickstart" / "people.yml"
    assert program.main(["-c", str(recipe), *settings]) == 0
    (scores,) = json.loads((run / "results.json").read_text()).values()
    assert scores["num_valid"] >= 4 and 0 < scores["mAP"] <= 1
    shutil.rmtree(run)
