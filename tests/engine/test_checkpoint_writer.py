"""Checkpoints that a thread writes: what was copied, when errors are raised, and how often."""

import os
import threading

import pytest
import torch
from ember_reid.engine import checkpoint_writer
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.checkpoint_writer import CheckpointWriter, Snapshot
from ember_reid.engine.handlers.checkpoints import Checkpoints
from ignite.engine import Engine, Events

from ember_reid import main


@pytest.fixture
def gate(monkeypatch):
    """An event without which no checkpoint is written."""
    gate, save = threading.Event(), checkpoint_writer.save_checkpoint

    def save_when_open(*args, previous=None):
        assert gate.wait(timeout=60)
        save(*args, previous=previous)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_when_open)
    return gate


def test_a_file_contains_the_values_at_the_time_of_the_call(tmp_path, gate):
    weights = {"w": torch.ones(2, 3), "nested": [(torch.zeros(1), "text")]}
    with CheckpointWriter() as writer:
        writer.save(tmp_path / "last.pt", weights)
        weights["w"].fill_(5)
        weights["nested"][0][0].fill_(5)
        assert not (tmp_path / "last.pt").exists()
        gate.set()
    content = load_checkpoint(tmp_path / "last.pt")
    assert content["w"].tolist() == [[1.0] * 3] * 2 and content["nested"][0][0].tolist() == [0.0]
    assert content["nested"][0][1] == "text"


def test_a_copy_keeps_strides_and_versions_of_state_dicts():
    module = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    state = module.state_dict()
    copied = Snapshot({"model": state}, {}).content["model"]
    assert copied["weight"].stride() == state["weight"].stride()
    assert copied._metadata == state._metadata and copied["weight"] is not state["weight"]


def test_a_second_checkpoint_waits_for_the_first(tmp_path, gate):
    with CheckpointWriter() as writer:
        writer.save(tmp_path / "last.pt", {"value": 1}, previous=tmp_path / "previous.pt")
        threading.Timer(0.05, gate.set).start()
        writer.save(tmp_path / "last.pt", {"value": 2}, previous=tmp_path / "previous.pt")
        assert load_checkpoint(tmp_path / "last.pt")["value"] >= 1
    assert load_checkpoint(tmp_path / "last.pt")["value"] == 2
    assert load_checkpoint(tmp_path / "previous.pt")["value"] == 1


@pytest.fixture
def full_disk(monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def test_errors_are_raised_by_the_next_call_and_never_hide_another(tmp_path, full_disk, caplog):
    writer = CheckpointWriter()
    writer.save(tmp_path / "last.pt", {"value": 1})
    with pytest.raises(OSError, match="No space left on device; is the disk full"):
        writer.wait()
    writer.check()
    with pytest.raises(OSError, match="could not be written"), writer:
        writer.save(tmp_path / "last.pt", {"value": 1})
    with pytest.raises(KeyError), writer:
        writer.save(tmp_path / "last.pt", {"value": 1})
        raise KeyError
    assert "could not be written" in caplog.text


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_full_disk_ends_a_run_with_one_line(name, tiny_recipe, tmp_path, monkeypatch, capfd):
    save = checkpoint_writer.save_checkpoint

    def fail(path, content, *, previous):
        if path.name == f"{name}.pt":
            raise OSError(f"checkpoint {path.name} could not be written")
        save(path, content, previous=previous)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    words = ["SOLVER.MAX_EPOCHS", "3", "OUTPUT_DIR", str(tmp_path)]
    assert main.main(["-c", str(tiny_recipe), *words]) == 2
    assert capfd.readouterr().err == f"main.py: checkpoint {name}.pt could not be written\n"
    assert not (tmp_path / "results.json").exists()


def test_weights_that_are_not_finite_end_a_run_and_keep_the_last_checkpoint(
    tiny_recipe, tmp_path, monkeypatch, capfd
):
    """The losses of the run are finite; its weights are not after the second epoch."""
    content = Checkpoints.content

    def spoil(self, engine):
        if engine.state.epoch == 2:
            next(self.model.parameters()).data.fill_(float("nan"))
        return content(self, engine)

    monkeypatch.setattr(Checkpoints, "content", spoil)
    words = ["SOLVER.MAX_EPOCHS", "3", "SOLVER.EVAL_PERIOD", "5", "OUTPUT_DIR", str(tmp_path)]
    assert main.main(["-c", str(tiny_recipe), *words]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "not finite" in err
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert last["progress"]["iteration"] == 4


@pytest.mark.parametrize("min_seconds, expected", [(0, [1, 2, 3, 4, 5]), (2.5, [1, 4, 5])])
def test_short_epochs_do_not_all_write(min_seconds, expected, tmp_path, monkeypatch):
    """Epochs of one second; the first and the last one always write."""
    clock, saved = [100.0], []
    monkeypatch.setattr("ember_reid.engine.handlers.checkpoints.time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(
        tmp_path,
        description={},
        model=torch.nn.Linear(1, 1),
        evaluated_model=torch.nn.Linear(1, 1),
        optimizers=[],
        parts={},
        min_seconds=min_seconds,
    )
    monkeypatch.setattr(checkpoints.writer, "save", lambda *_, **__: saved.append(clock[0] - 100))
    trainer = Engine(lambda engine, batch: None)
    from ember_reid.engine.events import TrainingEvents

    trainer.register_events(*TrainingEvents)

    @trainer.on(Events.ITERATION_STARTED)
    def tick():
        clock[0] += 1

    checkpoints.attach(trainer)
    trainer.run([0], max_epochs=5)
    assert saved == expected


class PinnedTensors:
    """Simulates a GPU: its tensors arrive in host memory when its event is complete."""

    def __init__(self, monkeypatch):
        self.waits = 0
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: tensor.dim() == 2))
        monkeypatch.setattr(torch.cuda, "Event", lambda: self)
        empty = torch.empty_like
        monkeypatch.setattr(
            torch, "empty_like", lambda t, device=None, pin_memory=False: empty(t, device=device)
        )

    def record(self):
        self.waits -= 1

    def synchronize(self):
        self.waits += 1


def test_pinned_memory_is_used_again(monkeypatch):
    gpu, buffers = PinnedTensors(monkeypatch), {}
    first = Snapshot({"w": torch.ones(2, 2), "host": torch.ones(3)}, buffers)
    assert list(buffers) == ["/w"] and first.content["w"] is buffers["/w"] and gpu.waits == -1
    first.wait()
    assert gpu.waits == 0
    second = Snapshot({"w": torch.full((2, 2), 7.0)}, buffers)
    assert second.content["w"] is first.content["w"] and second.content["w"][0, 0] == 7
    assert Snapshot({"w": torch.ones(4, 2)}, buffers).content["w"].shape == (4, 2)
