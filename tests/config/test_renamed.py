"""Old names of keys: recipes, command lines and checkpoints, with one warning."""

import logging

import pytest
from ember_reid.config import load_config, parse_config
from ember_reid.config.renamed import RENAMED_KEYS, _warn_once


@pytest.fixture(autouse=True)
def forget_warnings():
    _warn_once.cache_clear()


def test_a_decay_is_one_minus_the_old_momentum():
    assert load_config(None, ["SOLVER.EMA", "0.25"]).SOLVER.EMA_DECAY == 0.75
    assert load_config(None, ["SOLVER.EMA", "0"]).SOLVER.EMA_DECAY == 0.0
    assert load_config(None, ["KD.EMA.MOMENTUM", "0.9"]).KD.EMA.DECAY == 0.9
    assert load_config(None, ["TEST.RATES", "(0.1,)"]).TEST.FPRS == (0.1,)


@pytest.mark.parametrize(
    "old, new",
    [
        ("auto", "auto"),
        ("none", "eager"),
        ("default", "compile"),
        ("reduce-overhead", "compile"),
    ],
)
def test_modes_of_compilation_are_kinds_of_a_step(old, new):
    assert load_config(None, ["SOLVER.COMPILE", old]).SOLVER.STEP == new


def test_an_unknown_mode_of_compilation_names_the_old_ones():
    with pytest.raises(
        ValueError, match="SOLVER.COMPILE in the command line must be auto, none, default or"
    ):
        load_config(None, ["SOLVER.COMPILE", "fast"])


def test_one_warning_names_all_old_keys_and_their_replacements(tmp_path, caplog):
    recipe = tmp_path / "old.yml"
    recipe.write_text("SOLVER: {EMA: 0.1}\nKD: {EMA: {MOMENTUM: 0.5}}\n")
    with caplog.at_level(logging.WARNING, logger="ember.config"):
        cfg = load_config(recipe, ["TEST.RATES", "0.1"])
        load_config(recipe, ["TEST.RATES", "0.1"])
    assert (cfg.SOLVER.EMA_DECAY, cfg.KD.EMA.DECAY, cfg.TEST.FPRS) == (0.9, 0.5, (0.1,))
    assert [record.getMessage() for record in caplog.records] == [
        "old names of configuration keys were read: KD.EMA.MOMENTUM -> KD.EMA.DECAY, "
        "SOLVER.EMA -> SOLVER.EMA_DECAY (1 - the old value; 0 is off), TEST.RATES -> TEST.FPRS"
    ]


def test_old_flags_are_items_of_a_list(tmp_path, caplog):
    old = tmp_path / "old.yml"
    old.write_text("LOG: {TENSORBOARD: false, VISDOM: true}\n")
    with caplog.at_level(logging.WARNING, logger="ember.config"):
        assert load_config(old).LOG.TO == ("visdom",)
    assert [record.getMessage() for record in caplog.records] == [
        "old names of configuration keys were read: "
        "LOG.TENSORBOARD -> LOG.TO (a list that contains tensorboard), "
        "LOG.VISDOM -> LOG.TO (a list that contains visdom)"
    ]
    assert load_config(old, ["LOG.TENSORBOARD", "True"]).LOG.TO == ("visdom", "tensorboard")
    assert load_config(None, ["LOG.VISDOM", "False"]).LOG.TO == ("tensorboard",)
    both = tmp_path / "both.yml"
    both.write_text("LOG: {TO: [wandb], VISDOM: true}\n")
    with pytest.raises(ValueError, match="sets LOG.TO twice, under its old and its new name"):
        load_config(both)
    with pytest.raises(ValueError, match="LOG.VISDOM in the command line must be True or False"):
        load_config(None, ["LOG.VISDOM", "3"])


def test_a_checkpoint_with_old_names_loads():
    text = load_config().dump().replace("EMA_DECAY: 0.0", "EMA: 0.125")
    assert parse_config(text).SOLVER.EMA_DECAY == 0.875


def test_wrong_old_values_are_reported_under_the_name_that_was_typed():
    with pytest.raises(ValueError, match="SOLVER.EMA in the command line must be .*found 'fast'"):
        load_config(None, ["SOLVER.EMA", "fast"])


def test_a_file_with_the_old_and_the_new_name_is_refused(tmp_path):
    recipe = tmp_path / "both.yml"
    recipe.write_text("SOLVER: {EMA: 0.1, EMA_DECAY: 0.9}\n")
    with pytest.raises(ValueError, match="sets SOLVER.EMA_DECAY twice, under its old and its new"):
        load_config(recipe)


def test_every_new_name_exists():
    for renamed in RENAMED_KEYS.values():
        node = load_config()
        for part in renamed.new.split("."):
            node = node[part]
