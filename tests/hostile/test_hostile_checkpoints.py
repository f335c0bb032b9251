"""Checkpoints with changed values, and with damaged bytes, for every command that reads them."""

import shutil

import pytest
import torch
from ember_reid.engine.integrity import compute_checksums
from ember_reid.tools.convert import main as convert
from ember_reid.tools.extract import main as extract
from hypothesis import given
from hypothesis import strategies as st

from ember_reid import main
from tests.hostile import strategies
from tests.hostile.harness import check, check_training


def save(content, path, *, update_checksums) -> bool:
    """Save as a run would; with the checksums of the changed tensors, if they can be computed."""
    if update_checksums and isinstance(content, dict) and "checksums" in content:
        rest = {key: value for key, value in content.items() if key != "checksums"}
        try:
            content = {**rest, "checksums": compute_checksums(rest)}
        except (RuntimeError, NotImplementedError, MemoryError, TypeError):
            content = rest
    try:
        torch.save(content, path)
    except (RuntimeError, NotImplementedError, OverflowError, MemoryError):
        return False
    return True


def draw_checkpoint(data, content, path) -> bool:
    changed = data.draw(strategies.changed_contents(content, strategies.checkpoint_values))
    return save(changed, path, update_checksums=data.draw(st.booleans()))


def commands(path, folder, recipe, images):
    """Command lines that read a checkpoint, by name."""
    test = ["-t", "TEST.WEIGHT", str(path), "OUTPUT_DIR", str(folder / "out"), "DEVICE", "cpu"]
    image = str(next(iter(images.glob("*.jpg"))))
    embed = ["TEST.WEIGHT", str(path), "DEVICE", "cpu", image, "--out", str(folder / "a.npz")]
    other = ["-c", str(recipe), "-o", str(folder / "converted.pt")]
    return {
        "test": (main.main, test),
        "test with recipe": (main.main, [*test, "-c", str(recipe)]),
        "extract": (extract, [*embed, "--no-progress"]),
        "convert": (convert, [str(path), *other]),
    }


@pytest.mark.parametrize("name", ["test", "test with recipe", "extract", "convert"])
@given(data=st.data())
def test_changed_values(name, data, checkpoint, fresh, tiny_recipe, tiny_market):
    folder = fresh("checkpoints")
    path = folder / "last.pt"
    if draw_checkpoint(data, checkpoint, path):
        images = tiny_market / "query"
        command, words = commands(path, folder, tiny_recipe, images)[name]
        check(f"checkpoint values, {name}", command, words)


@pytest.mark.parametrize("name", ["test", "test with recipe", "convert"])
@given(data=st.data())
def test_damaged_bytes(name, data, tiny_run, fresh, tiny_recipe, tiny_market):
    folder = fresh("checkpoints")
    path = folder / "best.pt"
    source = (tiny_run / "checkpoints" / "best.pt").read_bytes()
    path.write_bytes(data.draw(strategies.changed_bytes(source)))
    command, words = commands(path, folder, tiny_recipe, tiny_market / "query")[name]
    check(f"checkpoint bytes, {name}", command, words)


@given(data=st.data(), keeps_previous=st.booleans())
def test_resuming(data, keeps_previous, tiny_run, checkpoint, fresh, tiny_recipe):
    folder = fresh("resumed") / "run"
    shutil.copytree(tiny_run, folder)
    if not keeps_previous:
        (folder / "checkpoints" / "previous.pt").unlink()
    if draw_checkpoint(data, checkpoint, folder / "checkpoints" / "last.pt"):
        words = ["-c", str(tiny_recipe), "--resume", "OUTPUT_DIR", str(folder)]
        check_training("checkpoint values, resume", words)
