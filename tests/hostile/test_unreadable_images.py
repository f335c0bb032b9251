"""Images that cannot be read are left out and counted by every command that says so."""

import os
import shutil
import threading

import numpy as np
import pytest
from ember_reid.tools.common.feature_file import load_features
from ember_reid.tools.extract import command as extract

from ember_reid import cli


@pytest.fixture
def photos(tiny_market, tmp_path):
    """Three readable images, one of them with a name that is no UTF-8, and three others."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images = sorted((tiny_market / "bounding_box_test").glob("0*.jpg"))
    for name, image in zip(("a.jpg", "b.jpg", os.fsdecode(b"\xff.jpg")), images, strict=False):
        shutil.copy(image, folder / name)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    return folder


@pytest.fixture
def weights(tiny_run):
    return f"weights={tiny_run / 'checkpoints' / 'best.pt'}"


def test_embed_leaves_out_what_cannot_be_read(photos, weights, tmp_path, capsys):
    out = tmp_path / "features.npz"
    listed = photos / "list.csv"
    listed.write_text(f"path\na.jpg\n{'x' * 5000}.jpg\nb.jpg\nmissing.jpg\nempty.jpg\n")
    assert cli.main(["embed", weights, str(photos), "--out", str(out), "DEVICE=cpu"]) == 0
    output = capsys.readouterr().out
    assert "3 embeddings of 16 dimensions, 2 images left out" in output
    assert cli.main(["embed", weights, str(listed), "--out", str(tmp_path / "2.npz")]) == 0
    output = capsys.readouterr().out
    assert "2 embeddings of 16 dimensions, 3 images left out" in output
    assert output.count("left out: ") == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"\x00" * 1000])
def test_embed_replaces_a_damaged_part_of_an_interrupted_run(
    content, photos, weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(extract, "CHUNK", 1)
    out = tmp_path / "features.npz"
    words = ["embed", weights, str(photos / "a.jpg"), str(photos / "b.jpg"), "--out", str(out)]
    embed, calls = extract.embed_images, []

    def stop_at_the_second(images, embedder, batch_size):
        calls.append(images)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(images, embedder, batch_size)

    monkeypatch.setattr(extract, "embed_images", stop_at_the_second)
    assert cli.main(words) == 130
    (part,) = tmp_path.glob(".features.npz.*.parts/*.npz")
    part.write_bytes(content)
    monkeypatch.setattr(extract, "embed_images", embed)
    assert cli.main(words) == 0
    features, _ = load_features(out)
    assert len(features.paths) == 2
    assert np.allclose(np.linalg.norm(features.embeddings, axis=1), 1, atol=1e-5)


def test_the_doctor_counts_what_cannot_be_opened(photos, tmp_path, capsys):
    rows = [("a.jpg", 1, 1), ("b.jpg", 1, 2), ("empty.jpg", 2, 1), ("x" * 5000, 2, 2)]
    rows += [("pipe.jpg", 3, 1), ("missing.jpg", 3, 2)]
    lines = [f"{path},{pid},{camid},train" for path, pid, camid in rows]
    lines += ["a.jpg,9,1,query", "b.jpg,9,2,gallery"]
    (photos / "list.csv").write_text("path,pid,camid,split\n" + "\n".join(lines) + "\n")
    code = cli.main(["doctor", f"csv:{photos / 'list.csv'}", "--out", str(tmp_path / "x.html")])
    error = capsys.readouterr().err
    # The list names files that cannot be opened: the long name, the pipe and the missing one.
    assert code == 1 and error.count("\n") == 1 and len(error) < 1200
    assert "cannot be opened (File name too long) (2 more files are unusable)" in error


def test_a_pipe_as_a_list_does_not_block(tmp_path, weights, capsys):
    pipe = tmp_path / "list.csv"
    os.mkfifo(pipe)
    done = []

    def run():
        done.append(cli.main(["embed", weights, str(pipe), "--out", str(tmp_path / "x.npz")]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert done == [2]
    assert "is neither a folder nor a regular file" in capsys.readouterr().err
