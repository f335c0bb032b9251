"""Mistakes and hostile files: one line, exit code 2, nothing trained, written or executed."""

import os
import pickle
import shutil
import struct
import zlib

import pytest
import torch
import yaml
from ember_reid.config import get_defaults
from PIL import Image

from ember_reid import main


@pytest.fixture
def market(tiny_market, tmp_path):
    """A copy of the tiny data set, to be damaged."""
    return shutil.copytree(tiny_market, tmp_path / "market1501")


@pytest.fixture
def complain(tiny_recipe, tmp_path, capfd):
    """complain(words) -> the error line of main.py, which must exit with 2 and write nothing."""

    def run(*words: str, before: tuple[str, ...] | None = None) -> str:
        output = tmp_path / "output"
        arguments = before if before is not None else ("-c", str(tiny_recipe))
        assert main.main([*arguments, *words, "OUTPUT_DIR", str(output)]) == 2
        err = capfd.readouterr().err
        assert err.startswith("main.py: ") and err.count("\n") == 1 and "Traceback" not in err
        assert not output.exists()
        return err

    return run


def names(root) -> tuple[str, str]:
    return "DATASETS.NAMES", f"('market1501:{root}',)"


def first_image(market):
    return sorted((market / "bounding_box_train").iterdir())[0]


# configuration


def test_an_unknown_key_suggests_similar_ones(complain):
    assert (
        "unknown key SOLVER.BASE_LRR" in (line := complain("SOLVER.BASE_LRR", "1"))
        and "SOLVER.BASE_LR" in line
    )


def test_all_errors_are_reported_at_once(complain):
    line = complain("SOLVER.IMS_PER_BATCH", "7", "DEVICE", "tpu", "SOLVER.STEPS", "(9, 3)")
    assert "7 is not divisible by DATALOADER.NUM_INSTANCES 2" in line
    assert (
        "DEVICE is 'tpu', allowed: auto, cpu, cuda" in line
        and "SOLVER.STEPS (9, 3) must be in increasing order" in line
    )


def test_key_without_value(complain):
    assert "has no value" in complain("SOLVER.BASE_LR")


def test_a_missing_recipe_is_refused(complain, tiny_recipe):
    wrong = tiny_recipe.with_name("tinny.yml")
    assert "does not exist; near it: tiny.yml" in complain(before=("-c", str(wrong)))


def test_python_recipes_are_refused(complain, tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\ncfg = None\n")
    assert "only .yml and .yaml files are read" in complain(before=("-c", str(evil)))
    assert not (tmp_path / "executed").exists()


def test_yaml_tags_are_refused(complain, tmp_path):
    evil = tmp_path / "evil.yml"
    evil.write_text(
        f"OUTPUT_DIR: !!python/object/apply:os.system ['touch {tmp_path / 'executed'}']\n"
    )
    assert "is not plain YAML" in complain(before=("-c", str(evil)))
    assert not (tmp_path / "executed").exists()


def test_a_missing_device_is_refused(complain, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "DEVICE is cuda, but torch finds no CUDA device" in complain("DEVICE", "cuda")


# data


def test_missing_folder(complain, tmp_path):
    assert f"{tmp_path / 'nowhere'}" in complain(*names(tmp_path / "nowhere"))


def test_empty_folder(complain, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "bounding_box_train" in complain(*names(tmp_path / "empty"))


def test_file_name_that_does_not_parse(complain, market):
    shutil.copy(first_image(market), market / "bounding_box_train" / "holiday.jpg")
    assert "holiday.jpg" in complain(*names(market))


def test_fewer_identities_than_a_batch_needs(complain):
    line = complain("SOLVER.IMS_PER_BATCH", "32")
    assert (
        "a batch needs 16 identities (32 images / 2 of each), but the training data has 8" in line
    )


@pytest.mark.parametrize(
    "size, reason", [(0, "is empty (0 bytes)"), (200, "cannot be decoded as an image")]
)
def test_broken_image_is_named(complain, market, size, reason):
    image = first_image(market)
    image.write_bytes(image.read_bytes()[:size])
    line = complain(*names(market))
    assert f"{image} {reason}" in line and "DATALOADER.SKIP_BROKEN True" in line


def test_a_loader_process_names_the_broken_image_too(tiny_recipe, market, tmp_path, capfd):
    image = first_image(market)
    image.write_bytes(image.read_bytes()[:200])
    words = (
        "DATALOADER.CACHE",
        "none",
        "DATALOADER.NUM_WORKERS",
        "1",
        "OUTPUT_DIR",
        str(tmp_path / "o"),
    )
    assert main.main(["-c", str(tiny_recipe), *names(market), *words]) == 2
    err = capfd.readouterr().err
    assert f"{image} cannot be decoded" in err and err.count("\n") == 1 and "Traceback" not in err


def test_skip_broken_continues_and_counts(tiny_recipe, market, tmp_path, capfd):
    gray, palette, broken, empty = sorted((market / "bounding_box_train").iterdir())[:4]
    Image.open(gray).convert("L").save(gray)
    with Image.open(palette) as image:
        image.convert("P").save(palette, format="PNG")
    broken.write_bytes(b"no image")
    empty.write_bytes(b"")
    words = (
        "DATALOADER.SKIP_BROKEN",
        "True",
        "SOLVER.MAX_EPOCHS",
        "1",
        "OUTPUT_DIR",
        str(tmp_path / "o"),
    )
    words += ("SOLVER.IMS_PER_BATCH", "4")
    assert main.main(["-c", str(tiny_recipe), *names(market), *words]) == 0
    out, err = capfd.readouterr()
    assert "left out 2 of 50 image files" in out and err == ""


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "size, reason", [((60000, 60000), "pixels"), ((0, 0), "decoded"), ((16, 32), "decoded")]
)
def test_images_of_extreme_size_are_refused(complain, market, size, reason):
    image = first_image(market)
    image.write_bytes(png_of(*size))
    line = complain(*names(market))
    assert str(image) in line and reason in line


def test_lists_do_not_lead_outside_or_break_the_line(complain, tmp_path, market):
    data = tmp_path / "own"
    data.mkdir()
    shutil.copy(first_image(market), data / "a.jpg")
    for name in ("../market1501/query/x.jpg", '"a\nb.jpg"', "\x00\x1b[31m.jpg"):
        rows = f"a.jpg,1,0,train\n{name},1,1,train\na.jpg,2,0,query\na.jpg,2,1,gallery\n"
        (data / "list.csv").write_text(f"path,pid,camid,split\n{rows}")
        line = complain("DATASETS.NAMES", f"('csv:{data / 'list.csv'}',)")
        # Python 3.10 stops at a NUL by itself.
        assert "list.csv, line" in line or "line contains NUL" in line
        assert line[:-1].isprintable()


def test_a_list_may_name_any_file_but_only_images_are_read(complain, tmp_path, market):
    shutil.copy(first_image(market), tmp_path / "a.jpg")
    rows = "a.jpg,1,0,train\n/etc/passwd,1,1,train\na.jpg,2,0,query\na.jpg,2,1,gallery\n"
    (tmp_path / "list.csv").write_text(f"path,pid,camid,split\n{rows}")
    line = complain(
        "DATASETS.NAMES", f"('csv:{tmp_path / 'list.csv'}',)", "SOLVER.IMS_PER_BATCH", "2"
    )
    assert "/etc/passwd cannot be decoded as an image" in line and "root:" not in line


# checkpoints and folders


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_with_code_are_refused(complain, tmp_path, tiny_recipe):
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        save({"format": "ember-reid/1", "model": Bomb(tmp_path / "executed")}, tmp_path / "evil.pt")
        for before in (("-t",), ("-t", "-c", str(tiny_recipe))):
            line = complain("TEST.WEIGHT", str(tmp_path / "evil.pt"), before=before)
            assert "is not read, because" in line or "is damaged or not a torch file" in line
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "config", ["!!python/object/apply:os.getcwd []", "- a list", 3, None], ids=str
)
def test_checkpoints_with_a_strange_configuration(complain, tmp_path, config):
    torch.save({"format": "ember-reid/1", "model": {}, "config": config}, tmp_path / "odd.pt")
    line = complain("TEST.WEIGHT", str(tmp_path / "odd.pt"), before=("-t",))
    assert "the checkpoint's configuration" in line


def test_weights_of_another_network(complain, tiny_run, tiny_recipe):
    best = str(tiny_run / "checkpoints" / "best.pt")
    words = ("MODEL.BACKBONE.NAME", "resnet18", "TEST.WEIGHT", best)
    line = complain(*words, before=("-t", "-c", str(tiny_recipe)))
    assert best in line and "missing" in line and "unexpected" in line


def test_testing_needs_an_existing_checkpoint(complain, tmp_path):
    assert "TEST.WEIGHT" in complain(before=("-t",))
    assert "does not exist" in complain("TEST.WEIGHT", str(tmp_path / "no.pt"), before=("-t",))


def test_an_output_folder_with_a_run_is_refused(tiny_run, tiny_recipe, capfd):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    assert main.main(["-c", str(tiny_recipe), "OUTPUT_DIR", str(tiny_run)]) == 2
    err = capfd.readouterr().err
    assert "already contains a run" in err and "--resume" in err and "OVERWRITE True" in err
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_an_output_folder_that_is_a_file_is_refused(tiny_recipe, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    assert main.main(["-c", str(tiny_recipe), "OUTPUT_DIR", str(tmp_path / "file")]) == 2
    assert "is a file; name a folder" in capfd.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_resume_without_a_checkpoint(complain):
    assert "start without --resume" in complain("--resume")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b""], ids=["half", "empty"]
)
def test_resume_from_two_damaged_checkpoints(tiny_run, tiny_recipe, tmp_path, capfd, damage):
    folder = shutil.copytree(tiny_run, tmp_path / "copy")
    for name in ("last.pt", "previous.pt"):
        path = folder / "checkpoints" / name
        path.write_bytes(damage(path.read_bytes()))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main.main(["-c", str(tiny_recipe), "--resume", "OUTPUT_DIR", str(folder)]) == 2
    assert "last.pt is damaged or not a torch file" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_overwrite_deletes_only_the_old_run(tiny_run, tmp_path, train):
    folder = shutil.copytree(tiny_run, tmp_path / "copy")
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints" / ".last.pt.1.tmp").write_text("left by a killed run")
    train(folder, "OVERWRITE", "True", "SOLVER.MAX_EPOCHS", "1")
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.pt",
        "last.pt",
    ]


def test_the_defaults_are_plain_yaml():
    assert yaml.safe_load(get_defaults().dump())["SOLVER"]["BASE_LR"] == 3.5e-4
