"""`python -m tools.benchmark train`."""

import re

import pytest
import torch
from ember_reid.engine.machine import choose_cpu_precision
from ember_reid.tools.benchmark import command as benchmark
from ember_reid.tools.benchmark.train import time_iterations
from ignite.engine import Engine


def test_train_prints_every_figure_and_leaves_nothing(tiny_recipe, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    words = ["train", "-c", str(tiny_recipe), "--iterations", "6", "--warmup", "1"]
    assert benchmark.main(words) == 0
    # As in main.py, cudnn searches for the fastest kernels.
    assert torch.backends.cudnn.benchmark
    out = capsys.readouterr().out
    assert "tiny 32x16, batch 8, float32" in out
    figures = {
        name: float(value)
        for name, value in re.findall(r"^(\w[\w ]*?) +([\d.]+)", out, re.MULTILINE)
    }
    assert set(figures) == {"end to end", "step", "loader", "first step", "memory", "waiting"}
    assert all(
        figures[name] > 0 for name in ("end to end", "step", "loader", "first step", "memory")
    )
    assert figures["end to end"] < figures["loader"] and 0 <= figures["waiting"] <= 100
    assert list(tmp_path.iterdir()) == []


def test_combinations_are_compared_with_the_default(tiny_recipe, capsys):
    words = ["train", "-c", str(tiny_recipe), "--iterations", "1", "--warmup", "0"]
    threads = torch.get_num_threads()
    assert benchmark.main([*words, "--all-precisions"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    chosen = choose_cpu_precision("auto")
    assert first.startswith(f"SOLVER.CPU_PRECISION auto is {chosen} (")
    row = re.compile(r"(\w+) +(\w+) +(\w+) +(\d+) thread\(s\) +([\d.]+) images/s(   the default)?$")
    found = [match.groups() for match in map(row.match, lines) if match]
    assert len(found) == len(lines)
    combinations = [
        *("float32 fast channels_last", "float32 torch channels_last", "float32 torch contiguous"),
        *("bfloat16 torch channels_last", "bfloat16 torch contiguous"),
    ]
    assert [(" ".join(names), count) for *names, count, _, _ in found] == [
        (names, str(count)) for count in sorted({1, threads}) for names in combinations
    ]
    (default,) = [entry for entry in found if entry[-1]]
    assert default[0] == chosen and default[2:4] == ("channels_last", str(threads))
    share = float(default[4]) / max(float(entry[4]) for entry in found)
    stated = re.fullmatch(r"the default has (\d+)% of the speed of the best combination", last)
    assert stated and abs(int(stated[1]) - 100 * share) <= 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("iterations", "warmup"), [(1, 0), (4, 0), (1, 3), (5, 2), (4, 4)])
def test_only_the_iterations_after_the_warm_up_are_timed(iterations, warmup):
    # Iteration i takes 10^i seconds.
    now = [0]

    def step(engine, batch):
        now[0] += 10**engine.state.iteration

    seconds = time_iterations(
        Engine(step),
        # Epochs of three iterations.
        [None] * 3,
        iterations=iterations,
        warmup=warmup,
        clock=lambda: now[0],
        device=torch.device("cpu"),
    )
    timed = range(warmup + 1, warmup + iterations + 1)
    assert seconds * iterations == sum(10**number for number in timed)


def test_invalid_words_are_refused(tiny_recipe, capsys):
    assert benchmark.main(["train", "-c", str(tiny_recipe), "--iterations", "0"]) == 2
    assert "--iterations is 0" in capsys.readouterr().err
    assert benchmark.main(["train", "-c", str(tiny_recipe), "SOLVER.BASE_LRR", "1"]) == 2
    assert "similar keys: SOLVER.BASE_LR" in capsys.readouterr().err
