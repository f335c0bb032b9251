import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ember_reid.engine import load_model
from ember_reid.engine.deploy.build import build_deployed_network, read_inference_config
from ember_reid.engine.deploy.export import write_network
from ember_reid.tools.common.feature_file import load_features
from ember_reid.tools.common.inputs import read_images
from ember_reid.tools.extract.command import Job, embed_share, main


@pytest.fixture(scope="module")
def best(tiny_run):
    return tiny_run / "checkpoints" / "best.pt"


@pytest.fixture
def photos(tiny_market, tmp_path):
    """Four images, one of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((tiny_market / "query").glob("*.jpg"))[:3]:
        shutil.copy(path, folder)
    (folder / "zz.jpg").write_bytes(b"no image")
    return folder


def run(best, out, *words):
    return main(
        [
            "TEST.WEIGHT",
            str(best),
            "DEVICE",
            "cpu",
            *map(str, words),
            "--out",
            str(out),
            "--no-progress",
        ]
    )


def test_embeddings_are_those_of_the_network_and_broken_images_are_listed(
    best, photos, tmp_path, capsys
):
    out = tmp_path / "features.npz"
    assert run(best, out, photos, "--ids", "prefix", "--batch", "2") == 0
    said = capsys.readouterr().out
    assert (
        "zz.jpg cannot be decoded as an image" in said
        and "3 embeddings" in said
        and "1 images left out" in said
    )
    features, metadata = load_features(out)
    model = load_model(best, device="cpu")
    paths = sorted(photos.glob("0*.jpg"))
    assert features.paths.tolist() == [str(path) for path in paths]
    assert features.pids.tolist() == [path.name[:4] for path in paths]
    assert metadata == model.metadata and features.broken.tolist() == [str(photos / "zz.jpg")]
    assert np.allclose(features.embeddings, model.embed(paths).numpy(), atol=1e-6)
    # No parts remain.
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_run_continues(best, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ember_reid.tools.extract.command.CHUNK", 1)
    out = tmp_path / "features.npz"
    from ember_reid.tools.extract import command as extract

    embed, calls = extract.embed_images, []

    def stop_at_the_third(images, *rest):
        calls.append(images[0].path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(images, *rest)

    monkeypatch.setattr("ember_reid.tools.extract.command.embed_images", stop_at_the_third)
    assert run(best, out, photos) == 130
    assert "run the same command again" in capsys.readouterr().err and not out.exists()
    assert run(best, out, photos) == 0
    # Two before the interruption; the interrupted one and the last one after it.
    assert len(calls) == 5 and calls[2] == calls[3]
    assert len(load_features(out)[0].paths) == 3
    assert (
        run(best, out, photos) == 0 and "already contains these images" in capsys.readouterr().out
    )
    assert len(calls) == 5
    # Other images are a different job.
    assert run(best, out, photos, "--ids", "folder") == 0 and len(calls) == 9


def test_the_shares_of_several_processes_make_the_same_file(best, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("ember_reid.tools.extract.command.CHUNK", 1)
    alone, shared = tmp_path / "alone.npz", tmp_path / "shared.npz"
    assert run(best, alone, photos) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    # Rank 0 collects.
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run(best, shared, photos) == 0
    one, two = load_features(alone)[0], load_features(shared)[0]
    assert one.paths.tolist() == two.paths.tolist() and np.array_equal(
        one.embeddings, two.embeddings
    )


def test_two_processes_make_the_same_file(best, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ember_reid.tools.extract.command.CHUNK", 1)
    # New processes do not know the tiny network of these tests.
    exported = tmp_path / "person.ts"
    network, metadata = build_deployed_network(
        read_inference_config(None, ["TEST.WEIGHT", str(best)])
    )
    write_network(network, metadata, exported, format="torchscript")
    alone, shared = tmp_path / "alone.npz", tmp_path / "shared.npz"
    assert run(exported, alone, photos, "--trust") == 0
    expected = capsys.readouterr().out
    assert run(exported, shared, photos, "--trust", "--processes", "2") == 0
    assert capsys.readouterr().out == expected.replace(str(alone), str(shared))
    one, two = load_features(alone)[0], load_features(shared)[0]
    assert one.paths.tolist() == two.paths.tolist() and one.reasons.tolist() == two.reasons.tolist()
    assert np.allclose(one.embeddings, two.embeddings, atol=1e-6) and not list(tmp_path.glob(".*"))


def test_a_process_that_failed_is_one_line(best, photos, tmp_path, monkeypatch, capsys):
    def spawn(function, args, nprocs):
        raise torch.multiprocessing.ProcessRaisedException(
            "Traceback ...\nOSError: the disk is full\n", 1, 7
        )

    monkeypatch.setattr("torch.multiprocessing.spawn", spawn)
    assert run(best, tmp_path / "x.npz", photos, "--processes", "2") == 2
    assert capsys.readouterr().err == (
        "extract: a process failed: OSError: the disk is full; "
        "run the same command again to continue\n"
    )


def test_a_process_whose_parent_is_gone_stops(best, photos, tmp_path, monkeypatch):
    gone = SimpleNamespace(is_alive=lambda: False)
    monkeypatch.setattr("ember_reid.tools.extract.command.parent_process", lambda: gone)
    job = Job(read_images([photos]), None, [], False, False, 2, False, 1, folder=tmp_path)
    embed_share(job, load_model(best, device="cpu"), 0, 1)
    assert not list(tmp_path.glob("*.npz"))


def test_lists_and_folders_are_read_once_and_in_order(photos, tmp_path):
    names = sorted(path.name for path in photos.iterdir())
    table = tmp_path / "list.csv"
    table.write_text(f"path,pid,camid\nphotos/{names[1]},bella,barn\n")
    images = read_images([table, photos], ids="folder")
    assert [image.path.name for image in images] == [names[1], names[0], *names[2:]]
    assert (images[0].pid, images[0].camid) == ("bella", "barn") and images[1].pid == "photos"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images: give files"),
        (["nowhere/"], "nowhere does not exist"),
        ([__file__], "is neither a folder nor a CSV file nor an image"),
        (["EMPTY"], "there is no image in"),
        (["LIST"], "line 1: no column path; found: file"),
        (["PHOTOS", "--ids", "face"], "--ids is 'face', it must be one of none, folder, prefix"),
        (["PHOTOS", "--batch", "0"], "--batch is 0, it must be at least 1"),
        (["BROKEN"], "none of the 1 images can be read"),
    ],
)
def test_user_errors_are_one_line(best, photos, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\na.jpg\n")
    given = {
        "EMPTY": tmp_path / "empty",
        "LIST": tmp_path / "list.csv",
        "PHOTOS": photos,
        "BROKEN": photos / "zz.jpg",
    }
    assert run(best, tmp_path / "x.npz", *(given.get(word, word) for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("extract: ") and message in error and error.count("\n") == 1


def test_a_file_of_another_kind_is_not_replaced(best, photos, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", a=torch.zeros(1).numpy())
    assert run(best, tmp_path / "mine.npz", photos) == 2
    assert "--out names a file of another kind" in capsys.readouterr().err
