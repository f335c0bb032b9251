import math

import pytest
from ember_reid.config import load_config
from ember_reid.solver import ScheduleOptions, build_schedule, create_schedule

# Learning rates of the strong baseline by 1-based epoch: base 3.5e-4, ten warm-up epochs, steps at
# 40 and 70.
BASELINE = {
    1: 3.815e-5, 2: 7.280e-5, 3: 1.0745e-4, 4: 1.421e-4, 5: 1.7675e-4, 6: 2.114e-4,
    7: 2.4605e-4, 8: 2.807e-4, 9: 3.1535e-4, 10: 3.5e-4, 39: 3.5e-4, 40: 3.5e-5, 69: 3.5e-5,
    70: 3.5e-6, 120: 3.5e-6,
}  # fmt: skip


def baseline(**changes):
    settings = {
        "max_epochs": 120,
        "steps": (40, 70),
        "warmup_epochs": 10,
        "warmup_factor": 0.01,
    } | changes
    return create_schedule(ScheduleOptions(**settings))


@pytest.mark.parametrize("epoch", BASELINE)
def test_multistep_reproduces_the_strong_baseline(epoch):
    assert 3.5e-4 * baseline()(epoch) == pytest.approx(BASELINE[epoch], rel=1e-9)


def test_the_default_configuration_is_the_strong_baseline():
    factor = build_schedule(load_config(), 100)
    for epoch, rate in BASELINE.items():
        assert 3.5e-4 * factor(100 * epoch) == pytest.approx(rate)
        # Constant within an epoch.
        assert factor(100 * (epoch - 1) + 1) == factor(100 * epoch)


def test_warmup_methods():
    def at_half(method):
        return baseline(warmup_method=method)(5)

    assert at_half("linear") == pytest.approx(0.505)
    assert at_half("constant") == 0.01
    assert at_half("exp") == pytest.approx(0.1)
    assert baseline(warmup_epochs=0)(1) == 1


def test_cosine_with_delay():
    schedule = create_schedule(
        ScheduleOptions(name="cosine", max_epochs=60, delay_epochs=30, eta_min=0.002)
    )
    assert [schedule(t) for t in (1, 30)] == [1, 1]
    assert schedule(45) == pytest.approx((1 + 0.002) / 2)
    assert schedule(40) == pytest.approx(0.002 + 0.998 * (1 + math.cos(math.pi / 3)) / 2)
    assert schedule(60) == schedule(70) == pytest.approx(0.002)


def test_a_linear_schedule_with_warmup_and_delay_is_a_trapezoid():
    schedule = create_schedule(
        ScheduleOptions(
            name="linear", max_epochs=10, delay_epochs=6, warmup_epochs=2, warmup_factor=0.2
        )
    )
    assert [schedule(t) for t in (1, 2, 6)] == pytest.approx([0.6, 1, 1])
    assert [schedule(t) for t in (7, 9, 10)] == pytest.approx([0.75, 0.25, 0])


def test_the_linear_schedule_of_the_configuration_ends_at_the_last_factor():
    options = ["SOLVER.SCHEDULE", "linear", "SOLVER.SCHEDULE_BY", "iteration"]
    options += ["SOLVER.MAX_EPOCHS", 4, "SOLVER.WARMUP_EPOCHS", 1, "SOLVER.ETA_MIN_FACTOR", 0.1]
    factor = build_schedule(load_config(None, options), 10)
    assert [factor(i) for i in (10, 25, 40)] == pytest.approx([1, 0.55, 0.1])


def test_a_longer_warmup_delays_the_cosine():
    schedule = create_schedule(
        ScheduleOptions(name="cosine", max_epochs=30, delay_epochs=5, warmup_epochs=10)
    )
    assert schedule(10) == 1
    assert schedule(20) == pytest.approx(0.5)


def test_steps_after_warmup_reproduce_fastreid():
    # Market-1501: 2000 warm-up iterations, 202 per epoch. Steps 40 and 90 fall into the 0-based
    # epochs 49 and 99.
    schedule = baseline(steps=(40, 90), warmup_epochs=2000 / 202, steps_after_warmup=True)
    assert [schedule(t) for t in (49, 50, 99, 100)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_by_iteration_the_warmup_is_smooth_and_steps_are_between_epochs():
    cfg = load_config(None, ["SOLVER.SCHEDULE_BY", "iteration", "SOLVER.WARMUP_EPOCHS", "2"])
    factor = build_schedule(cfg, 10)
    assert factor(1) == pytest.approx(0.01 * 0.95 + 0.05)
    assert factor(20) == 1
    assert factor(390) == 1 and factor(391) == pytest.approx(0.1)


def test_a_cosine_that_would_start_after_its_end_is_refused():
    message = "would start in epoch 30 and end in epoch 20; increase SOLVER.MAX_EPOCHS"
    with pytest.raises(ValueError, match=message):
        create_schedule(ScheduleOptions(name="cosine", max_epochs=20, delay_epochs=30))


@pytest.mark.parametrize(
    "words, message",
    [
        (["SOLVER.STEPS", "(70, 40)"], r"SOLVER.STEPS \(70, 40\)"),
        (
            ["SOLVER.WARMUP_METHOD", "sine"],
            "WARMUP_METHOD is 'sine', allowed: linear, constant, exp",
        ),
        (["SOLVER.SCHEDULE", "step"], "SCHEDULE is 'step', allowed: multistep, cosine"),
        (["SOLVER.SCHEDULE_BY", "day"], "SCHEDULE_BY is 'day', allowed: epoch, iteration"),
        (["SOLVER.OPTIMIZER", "lamb"], "OPTIMIZER is 'lamb', allowed: adam, adamw, sgd"),
        (["SOLVER.FUSED", "yes"], "FUSED is 'yes', allowed: auto, torch, apex, none"),
    ],
)
def test_the_configuration_checks_the_solver_settings(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, words)


def test_the_cosine_from_zero_reproduces_transreid():
    """Its scheduler: linear for 5 epochs, then a cosine over all 120 epochs, from t = 0."""
    schedule = create_schedule(
        ScheduleOptions(
            name="cosine",
            max_epochs=120,
            eta_min=0.002,
            warmup_epochs=5,
            warmup_factor=0.01,
            cosine_from_zero=True,
        )
    )
    for epoch in (1, 4, 5, 60, 120):
        expected = (
            0.01 + epoch * (1 - 0.01) / 5
            if epoch < 5
            else 0.002 + 0.5 * (1 - 0.002) * (1 + math.cos(math.pi * epoch / 120))
        )
        assert schedule(epoch) == pytest.approx(expected, rel=1e-12)
