"""A disk that is full during each kind of write: one line, nothing damaged, nothing lost.

A limit on the size of files (RLIMIT_FSIZE) makes a write fail in the kernel like a full disk does,
and needs no special rights. Files that exist already keep their content.
"""

import logging
import resource
import shutil
from contextlib import contextmanager

# Its import writes to shared memory, and warns if it cannot.
import joblib  # noqa: F401
import pytest
import torch
from ember_reid.engine import checkpoint_writer
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.writers import CsvWriter, JsonLinesWriter, TensorBoardWriter
from ember_reid.engine.run import output_folder

from ember_reid import cli, main
from tests.hostile import harness


@contextmanager
def full_disk(limit: int = 0):
    """Within the block, files cannot grow beyond `limit` bytes."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)


def fill_disk_during(monkeypatch, owner, name: str, *, after: int = 0) -> None:
    """The disk is full while `owner.name` runs, except in its first `after` calls."""
    original, calls = getattr(owner, name), []

    def run(*args, **kwargs):
        calls.append(args)
        if len(calls) <= after:
            return original(*args, **kwargs)
        with full_disk():
            return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, run)


def assert_same_run(ours, theirs) -> None:
    """Equal weights bit for bit, and equal scores."""
    a, b = (load_checkpoint(run / "checkpoints" / "last.pt")["model"] for run in (ours, theirs))
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert (ours / "results.json").read_text() == (theirs / "results.json").read_text()


SLOW = pytest.mark.faults
WRITES = {
    "config": (main, "prepare_output_folder", 0),
    "environment": (main, "record_start", 0),
    "first metrics": (JsonLinesWriter, "write", 0),
    "metrics": (JsonLinesWriter, "write", 4),
    "table": (CsvWriter, "write", 4),
    "first checkpoint": (checkpoint_writer, "save_checkpoint", 0),
    "checkpoint": (checkpoint_writer, "save_checkpoint", 2),
    "results": (main, "write_results", 0),
}
FAST_WRITES = ("metrics", "results")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in FAST_WRITES else SLOW) for kind in WRITES]
)
def test_a_training_continues_to_the_same_bits(
    kind, tiny_run, tiny_recipe, tmp_path, monkeypatch, capfd
):
    folder, (owner, name, after) = tmp_path / "run", WRITES[kind]
    words = ["-c", str(tiny_recipe), "OUTPUT_DIR", str(folder)]
    with monkeypatch.context() as patch:
        fill_disk_during(patch, owner, name, after=after)
        assert main.main(words) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and ("File too large" in err or "is the disk full?" in err)
    assert not list(folder.rglob(".*"))
    checkpoints = list(folder.glob("checkpoints/*.pt"))
    for path in checkpoints:
        load_checkpoint(path)
    continued = ["--resume"] if checkpoints else ["OVERWRITE", "True"]
    assert main.main([*words, *continued]) == 0
    assert_same_run(folder, tiny_run)


@pytest.mark.parametrize("limit", [0, 1000, 3000, 4500, 8000, 20000, 41000])
@SLOW
def test_any_full_disk_leaves_a_run_that_can_be_continued(
    limit, tiny_run, tiny_recipe, tmp_path, capfd
):
    """Whichever file is too large first."""
    folder = tmp_path / "run"
    words = ["-c", str(tiny_recipe), "OUTPUT_DIR", str(folder)]
    with full_disk(limit):
        outcome = harness.run(main.main, words, seconds=120)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert not list(folder.rglob(".*"))
    checkpoints = list(folder.glob("checkpoints/*.pt"))
    for path in checkpoints:
        load_checkpoint(path)
    continued = ["--resume"] if (folder / "checkpoints" / "last.pt").exists() else []
    assert main.main([*words, *(continued or ["OVERWRITE", "True"])]) == 0
    assert_same_run(folder, tiny_run)


@SLOW
def test_a_log_that_cannot_be_written_does_not_end_a_run(
    tiny_run, tiny_recipe, tmp_path, monkeypatch, capfd
):
    fill_disk_during(monkeypatch, logging.FileHandler, "emit")
    folder = tmp_path / "run"
    assert main.main(["-c", str(tiny_recipe), "OUTPUT_DIR", str(folder)]) == 0
    assert capfd.readouterr().err == "" and (folder / "log.txt").read_text() == ""
    assert_same_run(folder, tiny_run)


@SLOW
def test_tensorboard_and_the_report_do_not_end_a_run(
    tiny_run, tiny_recipe, tmp_path, monkeypatch, capfd
):
    for name in ("open", "write", "close"):
        fill_disk_during(monkeypatch, TensorBoardWriter, name)
    fill_disk_during(monkeypatch, output_folder.subprocess, "run")
    folder = tmp_path / "run"
    words = ["LOG.TO", "tensorboard", "LOG.REPORT", "True", "OUTPUT_DIR", str(folder)]
    assert main.main(["-c", str(tiny_recipe), *words]) == 0
    out, err = capfd.readouterr()
    # The report is a separate process, which prints its own line.
    assert "Traceback" not in out + err and len(err.splitlines()) <= 1
    assert out.count("tensorboard failed and is no longer used; the training continues") == 1
    assert "the report was not written" in out and not (folder / "report.html").exists()
    assert_same_run(folder, tiny_run)


@SLOW
def test_resuming_keeps_the_metrics(tiny_run, tiny_recipe, tmp_path, capfd):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    before = (folder / "metrics.jsonl").read_text()
    words = ["-c", str(tiny_recipe), "--resume", "SOLVER.MAX_EPOCHS", "3"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk_during(patch, JsonLinesWriter, "open")
        assert main.main([*words, "OUTPUT_DIR", str(folder)]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.fixture
def tool_words(tiny_run, tiny_recipe, tiny_market, tmp_path):
    """Command lines of tools, and the file that each of them writes first."""
    best = str(tiny_run / "checkpoints" / "best.pt")
    run, out = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    images, weights = str(tiny_market / "query"), ["TEST.WEIGHT", best, "DEVICE", "cpu"]
    features = tmp_path / "features.npz"
    embed = ["embed", *weights, images, "--no-progress", "--out"]
    assert cli.main([*embed, str(features)]) == 0
    export = ["export", best, "DEVICE", "cpu", "--to"]
    page = ["search", str(features), images, "--threshold", "none", "--out", str(out)]
    return {
        "embed": ([*embed, str(out / "a.npz")], out / "a.npz"),
        "search": (page, out / "search.json"),
        "report": (["report", str(run), "--plain"], run / "report.html"),
        "doctor": (
            ["doctor", f"market1501:{tiny_market}", "--out", str(out / "a.html")],
            out / "a.html",
        ),
        "visualize": (["visualize", *weights, "--out", str(out)], out / "index.html"),
        "heatmaps": (["heatmaps", "--models", best, "--out", str(out)], out / "001.png"),
        "calibrate": (["calibrate", *weights, "--out", str(out / "a.json")], out / "a.json"),
        "convert": (["convert", best, "-c", str(tiny_recipe), "-o", str(out / "a.pt")], None),
        "torchscript": ([*export, "torchscript", "--out", str(out / "a.ts")], out / "a.ts"),
        "program": ([*export, "exported-program", "--out", str(out / "a.pt2")], out / "a.pt2"),
        "onnx": ([*export, "onnx", "--out", str(out / "a.onnx")], out / "a.onnx"),
        "test": (["test", best, f"out={out}"], out / "results.json"),
    }


TOOLS = ("embed", "search", "report", "doctor", "visualize", "heatmaps", "calibrate")
TOOLS += ("convert", "torchscript", "program", "onnx", "test")
FAST_TOOLS = ("embed", "report")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST_TOOLS else SLOW) for name in TOOLS]
)
@pytest.mark.parametrize("limit", [0, 100])
def test_a_tool_leaves_no_part_of_a_file(name, limit, tool_words, tmp_path):
    words, path = tool_words[name]
    old = path.read_bytes() if path is not None and path.exists() else None
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    with full_disk(limit):
        outcome = harness.run(cli.main, words, seconds=120)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome.err
    assert "Traceback" not in outcome.err
    found = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert {file for file in found - before if file.stat().st_size > 0} == set()
    if path is not None:
        assert (path.read_bytes() if path.exists() else None) == old
    # The same command works when there is space again.
    assert harness.run(cli.main, words, seconds=120).code == 0
