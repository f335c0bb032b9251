"""LOSS.XBM in whole runs."""

import os
import signal

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.losses.build import build_criterion
from ember_reid.modeling.output import ReidOutput

from tests.engine.test_evaluator import batch_of
from tests.engine.test_processes import (  # noqa: F401
    PLAIN,
    at_iteration,
    difference,
    fork,
    launch,
    weights_of,
)

XBM = "LOSS.XBM.SIZE 20 LOSS.XBM.START 1 LOSS.XBM.WEIGHT 0.5".split()


def bank_of(folder) -> dict:
    return load_checkpoint(folder / "checkpoints" / "last.pt")["criterion"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, train):
    """One process that nothing interrupts."""
    return train(tmp_path_factory.mktemp("xbm") / "run", *PLAIN, *XBM)


def test_the_term_is_weighted_like_the_losses_it_extends():
    words = [
        "LOSS.CE.WEIGHT",
        0.0,
        "LOSS.TRIPLET.WEIGHT",
        2.0,
        "LOSS.XBM.SIZE",
        64,
        "LOSS.XBM.START",
        0,
    ]
    criterion = build_criterion(
        load_config(None, [*words, "LOSS.XBM.WEIGHT", 0.25]), num_classes=4, feature_dim=2
    )
    same = torch.zeros(4, 2, requires_grad=True)
    batch = batch_of([0, 1, 2, 3])._replace(pids=torch.tensor([0, 0, 1, 1]))
    losses = criterion(ReidOutput(same, (), (same,)), batch)
    # All distances are equal, so the loss is the margin.
    assert losses["triplet"].item() == pytest.approx(2 * 0.3)
    assert losses["xbm"].item() == pytest.approx(0.25 * 2 * 0.3)


def test_the_memory_fills_after_its_start_and_changes_training(alone, train, tmp_path):
    bank = bank_of(alone)
    (pids,) = (value for name, value in bank.items() if name.endswith("bank.pids"))
    (seen,) = (value for name, value in bank.items() if name.endswith("bank.seen"))
    # 8 iterations of 8.
    assert int(seen) == 64 and len(pids) == 20 and (pids >= 0).all()
    assert difference(weights_of(alone), weights_of(train(tmp_path / "without", *PLAIN))) > 1e-4


def test_two_processes_have_the_memory_of_one(alone, launch):  # noqa: F811
    code, folder = launch("two", *PLAIN, *XBM, "NUM_PROCESSES", "2")
    assert code == 0
    assert difference(weights_of(folder), weights_of(alone)) < 1e-5
    assert difference(bank_of(folder), bank_of(alone)) < 1e-5


def test_local_mining_keeps_the_embeddings_of_all(launch):  # noqa: F811
    words = [
        *PLAIN,
        *XBM,
        "SOLVER.MINING",
        "local",
        "NUM_PROCESSES",
        "2",
        "SOLVER.ACCUMULATION_STEPS",
        "2",
    ]
    code, folder = launch("local", *words)
    assert code == 0
    assert [int(value) for name, value in bank_of(folder).items() if name.endswith("seen")] == [64]


def test_a_resumed_run_has_the_same_memory_and_bits(alone, launch, at_iteration):  # noqa: F811
    at_iteration(3, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert launch("run", *PLAIN, *XBM)[0] == 143
    at_iteration(3, 0, lambda: None)
    code, folder = launch("run", *PLAIN, *XBM, "--resume")
    assert code == 0
    assert difference(weights_of(folder), weights_of(alone)) == 0
    assert difference(bank_of(folder), bank_of(alone)) == 0


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["LOSS.XBM.SIZE", "32"], "LOSS.XBM.SIZE is 32, less than one batch"),
        (
            ["LOSS.XBM.SIZE", "64", "LOSS.TRIPLET.WEIGHT", "0.0"],
            "LOSS.XBM.SIZE needs a pairwise loss",
        ),
        (["LOSS.XBM.SIZE", "64", "MODEL.HEAD.NAME", "mgn"], "MODEL.HEAD.NAME mgn has five"),
    ],
)
def test_invalid_values_are_refused(words, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_config(None, words)
