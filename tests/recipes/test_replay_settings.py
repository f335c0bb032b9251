"""Replay: the settings of recipes against those of published programs, by hand.

A change of a default that changes a recipe fails here.
"""

import pytest
from ember_reid.config import load_config
from ember_reid.config.schema import CHECKS

from tests.recipes.modern_settings import MODERN_TABLE
from tests.recipes.published_settings import TABLE

# A weight or probability of 0 leaves the other settings of its group without effect.
SWITCHES = {
    "LOSS.CENTER.": "LOSS.CENTER.WEIGHT",
    "LOSS.CIRCLE.": "LOSS.CIRCLE.WEIGHT",
    "LOSS.COSFACE.": "LOSS.COSFACE.WEIGHT",
    "LOSS.XBM.": "LOSS.XBM.SIZE",
    "LOSS.PLUGIN.": "LOSS.PLUGIN.NAME",
    "LOSS.PML.": "LOSS.PML.NAME",
    "KD.EMA.": "KD.EMA.ENABLED",
    "KD.LOGITS.": "KD.LOGITS.WEIGHT",
    "KD.FEATURE.": "KD.FEATURE.WEIGHT",
    "KD.SELF.": "KD.SELF.WEIGHT",
    "KD.REINIT": "KD.STUDENT_WEIGHTS",
    "KD.TEACHER": "KD.TEACHERS",
    "INPUT.AUTOAUG": "INPUT.AUTOAUG_PROB",
    "INPUT.JITTER": "INPUT.JITTER_PROB",
    "INPUT.FRAME_SAMPLING": "INPUT.NUM_FRAMES",
    "SOLVER.FREEZE": "SOLVER.FREEZE",
}
COMPLETE = ("LOSS.", "KD.", "INPUT.", "SOLVER.", "DATALOADER.SAMPLER", "DATALOADER.NUM_INSTANCES")
# The learning rate is compared in every iteration (test_replay_schedules.py).
SCHEDULE = tuple(
    f"SOLVER.{name}"
    for name in (
        *("SCHEDULE", "SCHEDULE_BY", "STEPS", "STEPS_AFTER_WARMUP", "GAMMA", "ETA_MIN_FACTOR"),
        *("COSINE_", "DELAY_EPOCHS", "WARMUP_EPOCHS", "WARMUP_FACTOR", "WARMUP_METHOD"),
    )
)
# Settings that do not change what is learned, those of SGD, and files of the machine.
NOT_LEARNED = (
    *("SOLVER.FUSED", "SOLVER.STEP", "SOLVER.COMPILE", "SOLVER.AMP_DTYPE", "SOLVER.CPU_PRECISION"),
    "SOLVER.CPU_CONVOLUTIONS",
    *("SOLVER.LOG_PERIOD", "SOLVER.EVAL_PERIOD", "SOLVER.CHECKPOINT_"),
    *("SOLVER.MOMENTUM", "SOLVER.NESTEROV", "KD.TEACHERS"),
    # The networks of the peers have no position embeddings.
    "SOLVER.WEIGHT_DECAY_EMBEDDING",
)


def value_of(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def find_different(name):
    """{key: (value, published value)} of the keys in which a recipe differs from its program."""
    cfg = load_config(name)
    table = (TABLE | MODERN_TABLE)[name]
    found = {key: (value_of(cfg, key), expected) for key, expected in table.items()}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def has_effect(cfg, key):
    """Whether the switch of the key's group is on."""
    for prefix, switch in SWITCHES.items():
        if key.startswith(prefix) and key != switch:
            off = 1 if switch == "INPUT.NUM_FRAMES" else 0
            value = value_of(cfg, switch)
            return bool(value) and value != off
    return key != "LOSS.TRIPLET.FORM" or cfg.LOSS.TRIPLET.MINING == "weighted"


@pytest.mark.parametrize("name", [*TABLE, *MODERN_TABLE])
def test_settings_of_the_program_that_was_scored(name):
    assert find_different(name) == {}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_has_every_setting_that_matters(name):
    # A new setting belongs into `OFF` with the value that changes nothing.
    cfg = load_config(name)
    expected = {
        key
        for key in CHECKS
        if key.startswith(COMPLETE)
        and not key.startswith((*SCHEDULE, *NOT_LEARNED))
        and has_effect(cfg, key)
    }
    assert expected - set(TABLE[name]) - {"INPUT.NUM_FRAMES_TEST"} == set()


@pytest.mark.parametrize(
    ("recipe", "key", "changed"),
    [
        ("strong-baseline/market1501/7_center", "SOLVER.BASE_LR", 1e-3),
        ("strong-baseline/market1501/7_center", "INPUT.RE_ASPECT", (0.5, 2.0)),
        ("market1501/agw_R50", "INPUT.FLIP_PROB", 0.0),
        ("distill/market1501/R50-R18", "SOLVER.CLIP_NORM", 1.0),
        ("distill/vkd/mars/self_resnet50", "INPUT.AUGMIX_PROB", 0.5),
        ("syncbn/veri", "LOSS.TRIPLET.MARGIN", 0.5),
        ("distill/self/resnet50_published", "KD.EMA.ENABLED", True),
    ],
)
def test_a_default_that_changes_underneath_a_recipe_is_found(recipe, key, changed, monkeypatch):
    # The recipes do not set these keys.
    from ember_reid.config import load

    group, _, name = key.rpartition(".")
    defaults = load.get_defaults

    def mutated():
        cfg = defaults()
        value_of(cfg, group)[name] = changed
        return cfg

    monkeypatch.setattr(load, "get_defaults", mutated)
    monkeypatch.setattr(load, "find_errors", lambda cfg: [])
    expected = TABLE[recipe][key]
    assert find_different(recipe) == {key: (changed, expected)}
