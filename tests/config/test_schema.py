"""Ranges of all keys, and the reference page that is generated from them."""

from pathlib import Path

import pytest
from ember_reid.config import get_defaults, key_names, load_config
from ember_reid.config.checks import Choices, Flag, Range, Text
from ember_reid.config.reference import configuration_reference, key_comments
from ember_reid.config.schema import CHECKS

NUMBERS = [name for name, check in CHECKS.items() if isinstance(check, Range)]


def error_of(key, value):
    with pytest.raises(ValueError) as caught:
        load_config(None, [key, value])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def is_list(key):
    return bool(CHECKS[key].lengths)


def test_every_key_has_a_check_and_every_check_a_key():
    assert set(CHECKS) == set(key_names(get_defaults()))


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_outside_the_range_name_key_value_and_range(key):
    for value in (-1, 10**13, 2**63, float("nan"), float("inf"), float("-inf")):
        if value == -1 and CHECKS[key].low < 0:
            continue
        text = repr(value) if value == value and abs(value) != float("inf") else f"'{value}'"
        line = error_of(key, f"({text},)" if is_list(key) else text.strip("'"))
        assert key in line


@pytest.mark.parametrize(
    "key, word, message",
    [
        ("SOLVER.BASE_LR", "nan", "SOLVER.BASE_LR is nan, allowed: 0 to 1,000"),
        ("SOLVER.BASE_LR", "-1e-3", "SOLVER.BASE_LR is -0.001, allowed: 0 to 1,000"),
        ("LOSS.CE.WEIGHT", "nan", "LOSS.CE.WEIGHT is nan, allowed: 0 to 1,000,000"),
        ("INPUT.PIXEL_STD", "(1, 1, inf)", "INPUT.PIXEL_STD in the command line must be a number"),
        ("INPUT.PIXEL_STD", "(0, 1, 1)", "allowed: 3 numbers, each above 0 to 10"),
        ("INPUT.SIZE_TRAIN", "(-1, -1)", "INPUT.SIZE_TRAIN is (-1, -1), allowed: 2 numbers, each"),
        ("INPUT.SIZE_TRAIN", "(64,)", "INPUT.SIZE_TRAIN is (64,), allowed: 2 numbers, each 1 to"),
        ("INPUT.PADDING", str(10**12), "INPUT.PADDING is 1000000000000, allowed: 0 to 1,024"),
        ("INPUT.NUM_FRAMES", str(2**63), "INPUT.NUM_FRAMES is 9223372036854775808, allowed: 1 to"),
        ("SOLVER.GAMMA", "-0.1", "SOLVER.GAMMA is -0.1, allowed: 0 to 10"),
        ("SOLVER.STEPS", "(-1, 0)", "SOLVER.STEPS is (-1, 0), allowed: a list of numbers, each 1"),
        ("SOLVER.STEPS", "(5, 5)", "SOLVER.STEPS (5, 5) must be in increasing order"),
        ("SOLVER.FREEZE", "(1, 1)", "SOLVER.FREEZE is (1, 1), allowed: a list of texts"),
        ("KD.TEACHERS", "(1, 1)", "KD.TEACHERS is (1, 1), allowed: a list of texts"),
        ("DATASETS.TESTS", "(1, 1)", "DATASETS.TESTS is (1, 1), allowed: a list of texts"),
        ("INPUT.JITTER", "(0, 0, 0, 0.6)", "INPUT.JITTER has a hue of 0.6, allowed: 0 to 0.5"),
        ("INPUT.RE_ASPECT", "(2.0, 0.5)", "INPUT.RE_ASPECT is (2.0, 0.5): the first number must"),
        (
            "INPUT.RE_ASPECT",
            "(0.0, 1.0)",
            "INPUT.RE_ASPECT is (0.0, 1.0), allowed: 2 numbers, each",
        ),
        ("OUTPUT_DIR", "a\x00b", "OUTPUT_DIR is 'a\\x00b', allowed: text, not empty"),
        ("DEVICE", "x" * 1000, "DEVICE is 'xxx"),
        ("SEED", "9" * 5000, "SEED in the command line must be a whole number"),
        ("TEST.MAX_RANK", "True", "TEST.MAX_RANK in the command line must be a whole number"),
    ],
)
def test_messages(key, word, message):
    assert message in error_of(key, word)


def test_stage_weights_of_zero():
    words = ["KD.FEATURE.WEIGHT", "1", "KD.EMA.ENABLED", "True"]
    with pytest.raises(ValueError, match="KD.FEATURE.STAGE_WEIGHTS are all 0"):
        load_config(None, [*words, "KD.FEATURE.STAGE_WEIGHTS", "(0, 0, 0, 0)"])


def test_home_folders_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    cfg = load_config(None, ["OUTPUT_DIR", "~/x", "DATASETS.ROOT", "~", "TEST.WEIGHT", "a~b"])
    assert (cfg.OUTPUT_DIR, cfg.DATASETS.ROOT) == ("/home/ann/x", "/home/ann")
    assert cfg.TEST.WEIGHT == "a~b"


@pytest.mark.parametrize(
    "check, text",
    [
        (Flag(), "True or False"),
        (Choices((1, "x")), "1, x"),
        (Range(0, 1), "0 to 1"),
        (Range(0, 1e6, above=True), "above 0 to 1,000,000"),
        (Range(0, 1, below=True), "0 to below 1"),
        (Range(0, 64, lengths=(0, 4)), "0 or 4 numbers, each 0 to 64"),
        (Text(), "text, at most 4,096 characters, no control characters"),
    ],
)
def test_descriptions(check, text):
    assert check.describe() == text


def test_the_reference_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
    written = page.read_text(encoding="utf-8")
    assert written == configuration_reference(), "python -m ember_reid.config.reference > " + str(
        page.relative_to(page.parents[2])
    )


def test_comments_belong_to_keys():
    comments = key_comments()
    assert comments["KD.EMA.DECAY"] == "Part of the average that each step keeps."
    groups = {name.rsplit(".", 1)[0] for name in CHECKS if "." in name}
    assert set(comments) <= set(CHECKS) | groups | {group.split(".")[0] for group in groups}
