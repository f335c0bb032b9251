"""`python -m tools.benchmark evaluate`."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from ember_reid.tools.benchmark import command as benchmark
from ember_reid.tools.benchmark.evaluate import SHAPES, create_test_set, measure, ratio


def test_evaluate_prints_every_figure(capsys):
    assert (
        benchmark.main(
            ["evaluate", "--shape", "tiny", "--rerank", "--dims", "64", "--repeats", "2"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny: 60 x 400 x 64 float32 on ")
    scores = [float(value) for value in re.findall(r"mAP ([\d.]+)", "\n".join(lines))]
    assert len(scores) == 2 and 0.5 < scores[0] < scores[1] <= 1
    for name in (
        "features to scores",
        "argsort of all rows",
        "rank_metrics python",
        "features to these",
    ):
        assert sum(line.startswith(name) for line in lines) == 1
    assert sum("GiB beyond the features" in line for line in lines) == 2
    # The set is too small for codes.
    assert sum("(used)" in line for line in lines) == 1


def test_evaluate_alone(capsys):
    words = [
        "--shape",
        "tiny",
        "--gallery",
        "300",
        "--rerank",
        "--alone",
        "--dims",
        "64",
        "--repeats",
        "2",
    ]
    assert benchmark.main(["evaluate", *words]) == 0
    first, *runs = capsys.readouterr().out.splitlines()
    assert first.startswith("tiny: 60 x 300 x 64 float32 on ")
    assert len(runs) == 2 and all(line.startswith("re-ranked scores alone") for line in runs)
    assert len({line.partition("mAP")[2] for line in runs}) == 1


def test_synthetic_sets_have_the_requested_counts():
    data = create_test_set(SHAPES["tiny"], 32, torch.device("cpu"))
    query_pids, gallery_pids, query_camids, gallery_camids = data.ids
    assert data.query.shape == (60, 32) and data.gallery.shape == (400, 32)
    assert query_pids.max() < 20 and set(gallery_pids[:40]) == set(range(20, 60))
    assert max(query_camids.max(), gallery_camids.max()) == 2
    torch.testing.assert_close(data.query.norm(dim=1), torch.ones(60))


def test_measures():
    calls = []
    times = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    # One warm-up round.
    assert calls == ["a", "b"] * 3 and times["a"].shape == (2,)
    assert ratio(np.array([2.0, 9.0, 4.0]), np.array([1.0, 1.0, 2.0])) == 2


PEAK = """
import numpy as np, torch
from ember_reid.tools.benchmark.machine import peak_memory
print(*peak_memory(lambda: int(np.ones(16_000_000).sum()), torch.device("cpu")))
"""


def test_peak_memory():
    # in a process of its own: in this one, what other tests leave behind may be freed meanwhile
    child = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    result, peak = child.stdout.split()
    assert result == "16000000"
    assert peak == "nan" or int(peak) >= 128_000_000 * 0.9


@pytest.mark.parametrize(
    "words, message",
    [
        (["--repeats", "0"], "--repeats must be at least 1, found 0."),
        (["--gallery", "0"], "--gallery must be at least 1, found 0."),
        (["--dims", "-3"], "--dims must be at least 1, found -3."),
        (["--memory-gib", "0"], "memory_gib must be above zero, found 0.0"),
    ],
)
def test_user_errors_are_one_line(words, message, capsys):
    assert benchmark.main(["evaluate", "--shape", "tiny", "--dims", "8", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error(capsys):
    assert benchmark.main(["evaluate", "--device", "cuda"]) == 2
    assert "torch sees no GPU here: choose cpu." in capsys.readouterr().err
