"""`python -m tools.benchmark triplet`."""

from math import exp, log, sqrt

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.tools.benchmark import command as benchmark
from ember_reid.tools.benchmark.triplet import measure_batch

WEIGHTED = ["LOSS.TRIPLET.MINING", "weighted", "LOSS.TRIPLET.MARGIN", "0"]


def test_measurements_of_one_batch_by_hand():
    cfg = load_config(None, [*WEIGHTED, "LOSS.TRIPLET.FORM", "exact"])
    row = measure_batch(cfg, torch.tensor([[0.0], [1.0], [3.0], [3.0]]), torch.tensor([0, 0, 1, 1]))
    # Distances of images 0 and 1 to themselves and to their positive: 0 and 1; softmax weights.
    near = exp(1) / (1 + exp(1))
    # The negatives of each image have equal distances, except those of images 2 and 3.
    far = (3 * exp(-3) + 2 * exp(-2)) / (exp(-3) + exp(-2))
    d_ap, d_an = (near, near, 0, 0), (3, 2, far, far)
    assert (row.d_ap, row.d_an) == pytest.approx((sum(d_ap) / 4, sum(d_an) / 4), abs=1e-5)
    losses = [log(1 + exp(a - b)) for a, b in zip(d_ap, d_an, strict=True)]
    assert row.loss == pytest.approx(sum(losses) / 4, abs=1e-5)
    assert row.positives == pytest.approx(0.5, abs=1e-5) and row.negatives == pytest.approx(2.5)
    assert 0 < row.gradient < sqrt(4)


def test_both_forms_start_from_the_same_batch(tiny_recipe, capsys):
    words = ["triplet", "-c", str(tiny_recipe), "--every", "2", "--iterations", "2", *WEIGHTED]
    assert benchmark.main(words) == 0
    head, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[:3] == ["form", "iteration", "loss"] and head[-2:] == ["positives", "negatives"]
    assert [line[:2] for line in lines] == [
        *(["published", "0"], ["published", "2"]),
        *(["exact", "0"], ["exact", "2"]),
    ]
    assert lines[0][-2:] == lines[2][-2:]


def test_a_training_that_is_too_short_is_one_line(tiny_recipe, capsys):
    assert benchmark.main(["triplet", "-c", str(tiny_recipe)]) == 2
    assert "--iterations is 200; the training has only 8 iterations" in capsys.readouterr().err
