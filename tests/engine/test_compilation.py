"""A compiled step equals the eager step up to rounding.

A step that cannot be compiled runs eagerly, with identical bits.
"""

import json
import logging

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.compilation import Compilation
from ember_reid.engine.grad_cache import create_backward
from ember_reid.engine.graph.build import build_compile_mode
from ember_reid.engine.trainer import create_trainer
from ignite.engine import Events

from ember_reid import main
from tests.engine.test_processes import (  # noqa: F401
    PLAIN,
    difference,
    fork,
    launch,
    single,
    weights_of,
)
from tests.engine.test_trainer import batch, criterion, make_net  # noqa: F401

compile_with_torch = torch.compile


@pytest.fixture
def backend(monkeypatch):
    """A function that selects the backend of SOLVER.STEP, by name or as a function.

    The default backend needs minutes of a C++ compiler.
    """

    def use(name) -> None:
        torch._dynamo.reset()

        def compile_with(function, *, options, dynamic):
            return compile_with_torch(function, backend=name, dynamic=dynamic)

        monkeypatch.setattr(torch, "compile", compile_with)

    return use


def said(caplog) -> list[str]:
    """What the program warned of; torch logs every detail of compiling for itself."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("ember") and record.levelno >= logging.WARNING
    ]


def refuse(graph, inputs):
    raise RuntimeError("no compiler\nanywhere")


def run_steps(batch, *, compile_mode, parts=1, joint=False, dropout=0.5):  # noqa: F811
    """Two steps with dropout and batch norm; returns (losses, state)."""
    net = make_net(dropout=dropout, norm=True)
    trainer = create_trainer(
        net,
        criterion(),
        [torch.optim.SGD(net.parameters(), lr=0.1)],
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device_type="cpu",
        amp_dtype=torch.bfloat16 if parts == 1 else None,
        backward=create_backward(parts, joint_loss=joint),
        compile_mode=compile_mode,
    )
    losses = []
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda e: torch.manual_seed(e.state.iteration)
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output.losses)
    )
    trainer.run([batch, batch], max_epochs=1)
    return losses, net.state_dict()


@pytest.mark.parametrize("parts, joint", [(1, False), (2, True)], ids=["whole", "joint"])
def test_a_compiled_step_is_the_plain_one(batch, backend, caplog, parts, joint):  # noqa: F811
    plain_losses, plain = run_steps(batch, compile_mode="none", parts=parts, joint=joint)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    backend(count)
    losses, state = run_steps(batch, compile_mode="default", parts=parts, joint=joint)
    # Network and losses, without a warning about a fallback.
    assert len(graphs) >= 2 and not said(caplog)
    for ours, theirs in zip(losses, plain_losses, strict=True):
        assert ours.keys() == theirs.keys()
        torch.testing.assert_close(list(ours.values()), list(theirs.values()), rtol=1e-5, atol=1e-6)
    assert difference(state, plain) < 1e-5


def test_a_failing_compiler_gives_one_line_and_equal_results(batch, backend, caplog):  # noqa: F811
    plain_losses, plain = run_steps(batch, compile_mode="none")
    backend(refuse)
    losses, state = run_steps(batch, compile_mode="reduce-overhead")
    assert losses == plain_losses and difference(state, plain) == 0
    (line,) = said(caplog)
    assert line.startswith("SOLVER.STEP compile failed, training continues without compilation: ")
    assert "no compiler anywhere" in line and "\n" not in line


def test_a_failed_step_is_rolled_back(caplog):
    seen, state = [], torch.zeros(1)
    compilation = Compilation("default", state=[state])

    def step():
        state.add_(1)
        if compilation.enabled:
            raise RuntimeError("backward cannot be compiled")
        return state.item()

    assert compilation.run(step, undo=lambda: seen.append("undone")) == 1.0
    assert seen == ["undone"] and not compilation.enabled
    assert compilation.run(step, undo=lambda: seen.append("undone")) == 2.0
    assert seen == ["undone"] and len(said(caplog)) == 1


def test_lack_of_memory_disables_compilation_in_the_first_steps_only(caplog):
    def run(num_steps: int) -> Compilation:
        compilation = Compilation("default")

        def step():
            if compilation.enabled and compilation._steps == num_steps:
                raise torch.OutOfMemoryError("CUDA out of memory")

        for _ in range(num_steps):
            compilation.run(step, undo=lambda: None)
        return compilation

    assert not run(1).enabled and not run(3).enabled
    assert len(said(caplog)) == 2
    with pytest.raises(torch.OutOfMemoryError):
        run(4)


def test_skipped_graphs_are_reported_after_the_third_step(caplog, monkeypatch):
    monkeypatch.setitem(torch._dynamo.utils.counters["inductor"], "cudagraph_skips", 2)
    compilation = Compilation("reduce-overhead")
    with caplog.at_level(logging.INFO, logger="ember.train"):
        for _ in range(4):
            compilation.run(lambda: None, undo=lambda: None)
    lines = [message for message in caplog.messages if "skipped" in message]
    assert lines == ["SOLVER.STEP compile: 2 CUDA graph(s) skipped by the compiler"]


def test_the_error_of_a_step_that_fails_anyway_is_its_own(caplog):
    def step():
        raise ValueError("a batch of nothing")

    with pytest.raises(ValueError, match="a batch of nothing"):
        Compilation("default").run(step, undo=lambda: None)


def test_compilation_uses_cuda_graphs_on_one_gpu_only(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    auto, named = load_config(), load_config(None, ["SOLVER.STEP", "compile"])
    assert build_compile_mode(auto, cpu) == "none"
    assert build_compile_mode(named, cpu) == "default"
    assert build_compile_mode(named, gpu) == "reduce-overhead"
    monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 2)
    assert build_compile_mode(named, gpu) == "default"


def test_two_compiled_processes_are_one_plain_one(launch, single, backend, capfd):  # noqa: F811
    backend("eager")
    words = ["NUM_PROCESSES", "2", "SOLVER.STEP", "compile", "SOLVER.ACCUMULATION_STEPS", "2"]
    code, folder = launch("two", *PLAIN, *words)
    assert code == 0 and "does not work" not in capfd.readouterr().out
    assert difference(weights_of(folder), weights_of(single)) < 1e-5


def test_a_distillation_with_everything_on_is_compiled_too(train, tmp_path, backend, capfd):
    words = "KD.EMA.ENABLED True KD.LOGITS.WEIGHT 1 KD.RELATION.DISTANCE_WEIGHT 1 "
    words += "LOSS.CENTER.WEIGHT 0.1 LOSS.XBM.SIZE 16 LOSS.XBM.START 1 SOLVER.EMA_DECAY 0.5 "
    words += "SOLVER.FP16 True SOLVER.AMP_DTYPE bfloat16 SOLVER.MAX_EPOCHS 1"
    plain = train(tmp_path / "plain", *words.split())
    backend("eager")
    compiled = train(tmp_path / "compiled", *words.split(), "SOLVER.STEP", "compile")
    out = capfd.readouterr().out
    assert "SOLVER.STEP compile: " in out and "does not work" not in out
    assert difference(weights_of(compiled), weights_of(plain)) < 1e-5


@pytest.mark.faults
def test_the_real_compiler_and_a_missing_one(train, tmp_path, monkeypatch, capfd):
    """Takes minutes, because every kernel is compiled. Losses differ in their last digits only."""
    from torch._inductor import config

    def run(name: str, step: str):
        torch._dynamo.reset()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / name / "cache"))
        return train(tmp_path / name / "run", "SOLVER.STEP", step)

    plain = run("plain", "eager")
    with config.patch({"cpp.cxx": (str(tmp_path / "no-such-compiler"),)}):
        broken = run("broken", "compile")
    assert capfd.readouterr().out.count("training continues without compilation") == 1
    assert difference(weights_of(broken), weights_of(plain)) == 0
    compiled = run("compiled", "compile")
    assert "uncompiled" not in capfd.readouterr().out
    ours, theirs = (
        [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (compiled, plain)
    )
    losses = [values["loss"] for values in theirs if "loss" in values]
    assert [values["loss"] for values in ours if "loss" in values] == pytest.approx(
        losses, rel=1e-3
    )


def test_a_graph_needs_a_gpu(tiny_recipe, tmp_path, capsys):
    words = ["-c", str(tiny_recipe), "SOLVER.STEP", "graph", "OUTPUT_DIR", str(tmp_path / "run")]
    assert main.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "main.py: SOLVER.STEP is graph, which needs a GPU, but the device is cpu; "
        "use auto, compile or eager"
    )
    assert not (tmp_path / "run").exists()
