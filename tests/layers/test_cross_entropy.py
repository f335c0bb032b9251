import math

import pytest
import torch
from ember_reid.layers import smoothed_cross_entropy


def test_the_loss_of_uniform_logits_is_log_c_for_every_smoothing():
    logits, pids = torch.zeros(2, 4), torch.tensor([0, 3])
    for epsilon, over in ((0.0, "all"), (0.1, "all"), (0.1, "others")):
        loss = smoothed_cross_entropy(logits, pids, epsilon=epsilon, smooth_over=over)
        assert loss.item() == pytest.approx(math.log(4))


def test_smoothing_by_hand():
    # Two classes with log-probabilities log(3/4) and log(1/4); the first is true, epsilon 0.2.
    logits, pids = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])
    p, q = math.log(3 / 4), math.log(1 / 4)
    all_classes = smoothed_cross_entropy(logits, pids, epsilon=0.2, smooth_over="all").item()
    others = smoothed_cross_entropy(logits, pids, epsilon=0.2, smooth_over="others").item()
    assert all_classes == pytest.approx(-(0.9 * p + 0.1 * q))
    assert others == pytest.approx(-(0.8 * p + 0.2 * q))


def test_smoothing_over_all_classes_equals_torch():
    rng = torch.Generator().manual_seed(0)
    logits, pids = torch.randn(9, 7, generator=rng), torch.randint(7, (9,), generator=rng)
    expected = torch.nn.functional.cross_entropy(logits, pids, label_smoothing=0.1)
    torch.testing.assert_close(smoothed_cross_entropy(logits, pids, epsilon=0.1), expected)


def test_the_loss_of_half_precision_logits_is_float32():
    loss = smoothed_cross_entropy(
        torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1]), epsilon=0.1
    )
    assert loss.dtype == torch.float32


def test_the_loss_of_a_single_class_is_zero():
    for over in ("all", "others"):
        loss = smoothed_cross_entropy(
            torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), epsilon=0.1, smooth_over=over
        )
        assert loss.item() == 0


def test_unknown_smoothing_lists_the_choices():
    with pytest.raises(ValueError, match="smooth_over is 'some'; choose one of all, others"):
        smoothed_cross_entropy(
            torch.zeros(1, 2), torch.tensor([0]), epsilon=0.1, smooth_over="some"
        )
