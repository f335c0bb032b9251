"""Inputs that once broke a command, and have no test elsewhere."""

import os

import pytest
import torch
from ember_reid.engine.run.launch import check_num_processes
from ember_reid.tools.report import main as report
from ember_reid.tools.search import main as search

from ember_reid import main
from tests.hostile.harness import check, check_training


def refusal(words) -> str:
    """The error line of main.py."""
    outcome = check("findings", main.main, words)
    assert outcome.code == 2
    return outcome.err


def contains_itself(content):
    content["model"] = [content]
    return content


def with_weight(create):
    """A change of a checkpoint: another tensor in place of the first weight."""

    def change(content):
        name = next(iter(content["model"]))
        weight = create(content["model"][name])
        return {**content, "model": {**content["model"], name: weight}}

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (with_weight(lambda weight: weight.to(torch.int8)), "values of type torch.int8"),
        (with_weight(lambda weight: weight.to_sparse()), "sparse or quantized"),
        (with_weight(lambda weight: weight.to("meta")), "has no values"),
        (with_weight(lambda weight: torch.zeros(1).expand(10**12)), "too few values"),
        (with_weight(lambda weight: weight * torch.nan), "has NaN or infinite values in 1 of"),
        (contains_itself, "is nested more than 50 levels deep"),
        (lambda content: {**content, "num_classes": -1}, "num_classes must be 1 to"),
        (lambda content: {**content, "num_classes": "5"}, "must be a whole number, found str"),
        (lambda content: {**content, "classes": [["a", "1"]]}, "1 classes, but another"),
        (lambda content: {**content, "model": {3: torch.zeros(1)}}, "must be tensors by name"),
    ],
)
def test_unusual_checkpoints(change, message, checkpoint, fresh):
    path = fresh("findings") / "odd.pt"
    content = {key: value for key, value in checkpoint.items() if key != "checksums"}
    torch.save(change(content), path)
    assert message in refusal(["-t", "TEST.WEIGHT", str(path)])


def test_folders_special_files_and_other_files_as_weights(fresh):
    folder = fresh("findings")
    os.mkfifo(folder / "pipe.pt")
    (folder / "text.pt").write_text("not weights")
    special = "is a folder or a special file"
    assert special in refusal(["-t", "TEST.WEIGHT", str(folder)])
    assert special in refusal(["-t", "TEST.WEIGHT", str(folder / "pipe.pt")])
    message = "is damaged or not a torch file"
    assert message in refusal(["-t", "TEST.WEIGHT", str(folder / "text.pt")])


def test_special_files_do_not_block(fresh, tiny_run):
    folder = fresh("findings")
    for name in ("pipe.yml", "pipe.npz", "metrics.jsonl"):
        os.mkfifo(folder / name)
    (folder / "config.yml").write_bytes((tiny_run / "config.yml").read_bytes())
    assert "is not a regular file" in refusal(["-c", str(folder / "pipe.yml")])
    assert check("findings", search, [str(folder / "pipe.npz"), "query.jpg"]).code == 2
    check("findings", report, [str(folder), "--plain"])


@pytest.mark.parametrize(
    "num_processes, batch_size, message",
    [
        (1000, 64000, "NUM_PROCESSES is 1000, this machine has"),
        (3, 64, "IMS_PER_BATCH 64 cannot be divided equally among 3 processes"),
    ],
)
def test_processes_are_counted_before_they_start(num_processes, batch_size, message, monkeypatch):
    monkeypatch.setattr("ember_reid.engine.run.launch.num_cpus", lambda: 4)
    with pytest.raises(ValueError, match=message):
        check_num_processes(num_processes, num_gpus=0, batch_size=batch_size)
    check_num_processes(4, num_gpus=0, batch_size=64)


def test_negative_values_and_unknown_options_are_one_line(tiny_recipe):
    line = refusal(["-c", str(tiny_recipe), "SOLVER.BASE_LR", "-1e-3"])
    assert line == "main.py: configuration: SOLVER.BASE_LR is -0.001, allowed: 0 to 1,000\n"
    assert refusal(["-c", str(tiny_recipe), "--fast"]).startswith("main.py: unrecognized")


def test_a_schedule_with_a_warm_up_from_zero_is_computed(tiny_recipe):
    words = ["SOLVER.WARMUP_METHOD", "exp", "SOLVER.WARMUP_FACTOR", "0"]
    assert check_training("findings", ["-c", str(tiny_recipe), *words]).code == 0
