"""Failures that are explained, and the checkpoint that survives them."""

import errno
import json
import os
import signal

import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint, save_checkpoint
from ember_reid.engine.handlers.batch import iteration_seed
from ember_reid.engine.handlers.safety import (
    Interrupted,
    StopOnSignal,
    describe_error,
    explain_failure,
)
from ember_reid.engine.handlers.writers import JsonLinesWriter
from ignite.engine import Engine


@pytest.mark.parametrize(
    "error, fragments",
    [
        (MemoryError(), ["out of memory with 8 images of 2x1", "SOLVER.ACCUMULATION_STEPS"]),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand so on"),
            ["Tried to allocate 2 GiB)"],
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            ["DATALOADER.NUM_WORKERS 0", "--resume"],
        ),
        (
            RuntimeError("[gloo] Connection closed by peer [127.0.0.1]"),
            ["another process of this run ended"],
        ),
        (
            RuntimeError("NCCL error: Duplicate GPU detected : rank 1 and rank 0 both on 19000"),
            ["two processes of this run use the same GPU"],
        ),
        (
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            ["another process has the GPU for itself", "CUDA_VISIBLE_DEVICES"],
        ),
        (
            RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
            ["driver is older than the CUDA of this torch"],
        ),
        (
            RuntimeError(
                "unable to resize file </torch_1_2_3> to the right size: No space left on device"
            ),
            ["the shared memory of this machine is full", "--shm-size 1g"],
        ),
    ],
    ids=["host", "cuda", "worker", "peer", "shared-gpu", "busy-gpu", "old-driver", "shm"],
)  # fmt: skip
def test_failures_of_the_machine_have_one_sentence(error, fragments):
    text = explain_failure(error, load="8 images of 2x1")
    assert all(fragment in text for fragment in fragments) and "\n" not in text


def test_other_failures_have_none():
    assert explain_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), load="") == ""


def test_errors_are_described_on_one_printable_line():
    assert describe_error(ValueError("a\n  b\x1b[31m\x00")) == "a b [31m"
    assert describe_error(ValueError()) == "ValueError"
    handed_on = OSError(
        "Caught OSError in DataLoader worker process 0.\n"
        "Original Traceback (most):\n  x\nOSError: a.jpg is bad\n"
    )
    assert describe_error(handed_on) == "a.jpg is bad"
    assert "free some space" in describe_error(OSError(errno.ENOSPC, "No space left on device"))


def test_signals_save_once_and_a_second_one_stops_at_once(monkeypatch):
    saved = []
    trainer = Engine(
        lambda engine, batch: os.kill(os.getpid(), signal.SIGINT) if batch == 2 else None
    )
    stop = StopOnSignal(lambda engine: saved.append(engine.state.iteration))
    stop.attach(trainer)
    with stop, pytest.raises(Interrupted, match="stopped by SIGINT") as raised:
        trainer.run([1, 2, 3])
    assert saved == [2] and raised.value.exit_code == 130

    stop = StopOnSignal(saved.append)
    with stop:
        os.kill(os.getpid(), signal.SIGTERM)
        # The same signal, sent by a launcher.
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr("time.monotonic", lambda: stop._received_at + 2)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert saved == [2]


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"value": 1})

    def half(content, file):
        file.write(b"half")
        raise RuntimeError(
            "[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0\nmore"
        )

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(
        OSError,
        match=r"last.pt could not be written: .*\(the previous checkpoint is unchanged\)",
    ):
        save_checkpoint(path, {"value": 2})
    assert load_checkpoint(path)["value"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_foreign_checkpoints_are_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match="is not a checkpoint of this program .* its recipe with -c"
    ):
        load_checkpoint(tmp_path / "other.pt")


def test_a_resumed_run_drops_later_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    for iteration in (2, 4, 6):
        writer.write("train", 1, iteration, {"loss": 1.0})
    with open(path, "a") as file:
        # Killed while writing.
        file.write('{"what": "tra')
    writer.open(resumed_iteration=4)
    writer.write("train", 1, 6, {"loss": 2.0})
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(entry["iteration"], entry["values"]["loss"]) for entry in entries] == [
        (2, 1.0),
        (4, 1.0),
        (6, 2.0),
    ]


def test_seeds_differ_for_every_iteration_and_rank():
    seeds = {
        iteration_seed(seed, i, rank) for seed in range(3) for i in range(200) for rank in range(4)
    }
    assert len(seeds) == 3 * 200 * 4 and all(0 <= seed < 2**63 for seed in seeds)
