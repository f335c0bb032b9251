"""Values that arrive late, as from a GPU, are reported with the right iteration."""

import json

import pytest
import torch
from ember_reid.engine import events
from ember_reid.engine.events import HostCopy, PendingReads, StepOutput, TrainingEvents
from ember_reid.engine.handlers.safety import NonFiniteLoss, TerminateOnNan
from ignite.engine import Engine

from tests.helpers.late_copies import LateCopy


def test_copies_on_a_cpu_arrive_at_once_and_do_not_change():
    tensor = torch.tensor([1.0, 2.0])
    copy = HostCopy(tensor)
    tensor.zero_()
    assert copy.has_arrived() and copy.read().tolist() == [1.0, 2.0]


def test_a_copy_of_a_gpu_is_pinned_and_waits_only_when_it_is_read(monkeypatch):
    calls = []

    class Event:
        def record(self):
            calls.append("record")

        def query(self):
            return False

        def synchronize(self):
            calls.append("synchronize")

    empty = torch.empty_like
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        torch, "empty_like", lambda t, device, pin_memory: calls.append(pin_memory) or empty(t)
    )
    copy = HostCopy(torch.ones(2))
    assert not copy.has_arrived() and calls == [True, "record"]
    assert copy.read().tolist() == [1.0, 1.0] and calls[-1] == "synchronize"


def test_reads_stay_in_order(monkeypatch):
    monkeypatch.setattr(events, "HostCopy", LateCopy)
    reads: PendingReads[str] = PendingReads()
    found = []
    for value, name in enumerate("abcd"):
        reads.start(torch.tensor(value), name)
        found.append([(int(tensor), note) for tensor, note in reads.finished()])
    assert found == [[], [], [(0, "a")], [(1, "b")]]
    assert [note for _, note in reads.finished(wait=True)] == ["c", "d"]
    assert reads.finished(wait=True) == []


def entries_of(folder):
    """All entries of a run without its speed."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for entry in entries:
        entry["values"].pop("images_per_second", None)
    return entries


def test_a_run_reports_the_same_metrics_when_they_arrive_late(
    tiny_run, train, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(events, "HostCopy", LateCopy)
    assert entries_of(train(tmp_path, "SOLVER.LOG_PERIOD", "2")) == entries_of(tiny_run)
    assert capfd.readouterr().out.count("Iteration[4/4]") == 2


@pytest.mark.parametrize("late, raised_at", [(False, 2), (True, 6)])
def test_a_loss_that_is_not_finite_is_found_when_it_arrives(late, raised_at, monkeypatch):
    """Every second iteration is a period. The message names the iteration of the loss."""
    if late:
        monkeypatch.setattr(events, "HostCopy", LateCopy)
    static = torch.zeros(())
    reached = []

    def step(engine, batch):
        static.fill_(float("nan") if engine.state.iteration == 2 else 1.0)
        reached.append(engine.state.iteration)
        return StepOutput({"ce": static}, static, 1)

    trainer = Engine(step)
    trainer.register_events(*TrainingEvents)
    TerminateOnNan(str, period=2).attach(trainer)

    class Batch:
        indices = torch.tensor([7])

    with pytest.raises(NonFiniteLoss, match=r"not finite at iteration 2 \(ce nan\)"):
        trainer.run([Batch()] * 10)
    assert reached[-1] == raised_at
