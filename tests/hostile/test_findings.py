"""Inputs that once broke a command, and have no test elsewhere."""

import os

import pytest
import torch
from ember_reid.config import flatten_config, get_defaults, parse_config
from ember_reid.engine.build import read_test_config
from ember_reid.engine.run.launch import check_num_processes
from ember_reid.tools.report import main as report
from ember_reid.tools.search import main as search

from ember_reid import cli, main
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
        (lambda content: {**content, "checksums": [1]}, "checksums must be whole numbers"),
        (lambda content: {**content, "checksums": {"a": torch.ones(2)}}, "must be whole numbers"),
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


def test_a_checkpoint_does_not_decide_about_the_machine(checkpoint, fresh):
    """The network, its preprocessing and its test are those of the checkpoint, nothing else is."""
    path = fresh("findings") / "odd.pt"
    defaults = flatten_config(get_defaults())
    words = {
        "NUM_PROCESSES": "8",
        "NUM_THREADS": "64",
        "DEVICE": "cuda",
        "OUTPUT_DIR": "elsewhere",
        "OVERWRITE": "True",
        "HANDLERS": "('x',)",
        "DATALOADER.NUM_WORKERS": "64",
        "DATALOADER.CACHE": "ram",
        "DATALOADER.CACHE_GIB": "1000",
        "LOG.TO": "('visdom',)",
        "LOG.VISDOM_SERVER": "http://elsewhere",
        "LOG.REPORT": "True",
        "SOLVER.CPU_PRECISION": "bfloat16",
    }
    pairs = [word for pair in words.items() for word in pair]
    config = parse_config(checkpoint["config"], [*pairs, "TEST.MAX_RANK", "7"])
    content = {key: value for key, value in checkpoint.items() if key != "checksums"}
    torch.save({**content, "config": config.dump()}, path)
    cfg = flatten_config(read_test_config(None, ["TEST.WEIGHT", str(path)]))
    assert cfg["OUTPUT_DIR"] == str(path.parent / "test" / "odd")
    assert {key: cfg[key] for key in words if key != "OUTPUT_DIR"} == {
        key: defaults[key] for key in words if key != "OUTPUT_DIR"
    }
    assert cfg["MODEL.BACKBONE.NAME"] == "tiny" and cfg["TEST.MAX_RANK"] == 7
    assert cfg["INPUT.SIZE_TEST"] == (32, 16)
    typed = read_test_config(None, ["TEST.WEIGHT", str(path), "NUM_THREADS", "2"])
    assert typed.NUM_THREADS == 2


@pytest.mark.parametrize("count", [-1, 100_000])
def test_extract_starts_a_bounded_number_of_processes(count):
    words = ["embed", "a.jpg", "--out", "a.npz", "--processes", str(count)]
    err = check("findings", cli.main, words).err
    assert err.startswith(f"ember-reid: --processes is {count}, allowed on this machine: 0 to ")


def test_too_long_paths_are_one_line(tiny_recipe, tiny_run):
    name = "a" * 300
    best = str(tiny_run / "checkpoints" / "best.pt")
    train = ["train", str(tiny_recipe)]
    for words in (
        *(["train", name], ["test", name], ["resume", name], ["report", name], ["explain", name]),
        *([*train, f"out={name}"], [*train, "MODEL.BACKBONE.WEIGHTS", name]),
        *([*train, "DATASETS.ROOT", name, "DATASETS.NAMES", "market1501"],),
        *(["test", best, f"out={name}"], ["test", best, "-c", name]),
        *(["search", f"{name}.npz", "a.jpg"], ["embed", name, "--out", "a.npz", f"weights={best}"]),
        *(["convert", name, "-c", str(tiny_recipe), "-o", "a.pt"],),
    ):
        outcome = check("findings", cli.main, words)
        assert outcome.code == 2 and "is too long for the file system" in outcome.err


def test_negative_values_and_unknown_options_are_one_line(tiny_recipe):
    line = refusal(["-c", str(tiny_recipe), "SOLVER.BASE_LR", "-1e-3"])
    assert line == "main.py: configuration: SOLVER.BASE_LR is -0.001, allowed: 0 to 1,000\n"
    assert refusal(["-c", str(tiny_recipe), "--fast"]).startswith("main.py: unrecognized")


def test_a_schedule_with_a_warm_up_from_zero_is_computed(tiny_recipe):
    words = ["SOLVER.WARMUP_METHOD", "exp", "SOLVER.WARMUP_FACTOR", "0"]
    assert check_training("findings", ["-c", str(tiny_recipe), *words]).code == 0
