"""Configurations: inheritance, types and errors. tests/test_bad_input.py covers malicious files."""

import pytest
from ember_reid.config import Config, get_defaults, load_config, parse_config


def write(path, text):
    path.write_text(text)
    return path


def test_defaults_are_valid_and_frozen():
    cfg = load_config()
    assert cfg.SOLVER.IMS_PER_BATCH == 64
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SOLVER.IMS_PER_BATCH = 8
    with pytest.raises(AttributeError, match="frozen"):
        cfg.SOLVER["IMS_PER_BATCH"] = 8


def test_bases_come_first_and_the_command_line_last(tmp_path):
    write(tmp_path / "a.yml", "SEED: 2\nSOLVER: {BASE_LR: 0.1, MAX_EPOCHS: 9}\n")
    write(tmp_path / "b.yml", "SEED: 3\n")
    recipe = write(tmp_path / "c.yml", "_BASE_: [a.yml, b.yml]\nSOLVER: {BASE_LR: 0.2}\n")
    cfg = load_config(recipe, ["SOLVER.MAX_EPOCHS", "4"])
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCHS) == (3, 0.2, 4)


def test_a_base_of_a_base(tmp_path):
    write(tmp_path / "a.yml", "SEED: 2\n")
    write(tmp_path / "b.yml", "_BASE_: a.yml\nSOLVER: {BASE_LR: 0.5}\n")
    cfg = load_config(write(tmp_path / "c.yml", "_BASE_: b.yml\n"))
    assert (cfg.SEED, cfg.SOLVER.BASE_LR) == (2, 0.5)


def test_a_recipe_that_includes_itself(tmp_path):
    write(tmp_path / "a.yml", "_BASE_: b.yml\n")
    recipe = write(tmp_path / "b.yml", "_BASE_: a.yml\n")
    with pytest.raises(ValueError, match="includes itself through _BASE_"):
        load_config(recipe)


@pytest.mark.parametrize(
    "key, word, value",
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-3", 1e-3),
        ("SOLVER.FP16", "True", True),
        ("SOLVER.FP16", "true", True),
        ("SOLVER.STEPS", "(3, 5)", (3, 5)),
        ("SOLVER.STEPS", "5", (5,)),
        ("INPUT.SIZE_TRAIN", "[128, 64]", (128, 64)),
        ("OUTPUT_DIR", "runs/7", "runs/7"),
        ("OUTPUT_DIR", "('runs/x')", "runs/x"),
        ("MODEL.BACKBONE.WEIGHTS", "none", "none"),
        ("DATASETS.NAMES", "('csv:/a/b.csv',)", ("csv:/a/b.csv",)),
    ],
)
def test_words_of_the_command_line_have_the_type_of_the_default(key, word, value):
    node = load_config(None, [key, word])
    for part in key.split("."):
        node = node[part]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "key, word, message",
    [
        ("SOLVER.FP16", "yes", "FP16 in the command line must be True or False, found 'yes'"),
        ("SOLVER.FP16", "1", "must be True or False, found 1"),
        ("SOLVER.MAX_EPOCHS", "1.5", "must be a whole number, found 1.5"),
        ("SOLVER.MAX_EPOCHS", "True", "must be a whole number"),
        ("SOLVER.BASE_LR", "fast", "must be a number, found 'fast'"),
        ("SOLVER", "1", "SOLVER is a group of keys, choose one"),
        ("SOLVER.BASE_LR.X", "1", "unknown key SOLVER.BASE_LR.X"),
        ("SOLVER.EMA_DECAY", "1.5", "SOLVER.EMA_DECAY is 1.5, allowed: 0 to below 1"),
        ("SOLVER.MINING", "far", "SOLVER.MINING is 'far', allowed: global, local"),
        ("NUM_PROCESSES", "-1", "NUM_PROCESSES is -1, allowed: 0 to 1,024"),
        ("DATALOADER.NUM_INSTANCES", "1", "1 leaves pairwise losses without positives"),
        ("DATALOADER.SAMPLER", "random", "LOSS.TRIPLET.WEIGHT need pairs of an identity"),
        ("LOSS.CE.MARGIN_TYPE", "arcface", "needs MODEL.HEAD.CLASSIFIER cosine"),
        ("DATASETS.NAMES", "()", "DATASETS.NAMES is empty"),
    ],
)  # fmt: skip
def test_errors_are_named(key, word, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        load_config(None, [key, word])


def test_the_nearest_keys_are_named_by_their_last_part_first():
    with pytest.raises(
        ValueError,
        match="unknown key BASE_LR in the command line, similar keys: SOLVER.BASE_LR",
    ):
        load_config(None, ["BASE_LR", "1"])


def test_a_configuration_reads_its_own_dump(tmp_path):
    cfg = load_config(None, ["SOLVER.STEPS", "(3, 5)", "OUTPUT_DIR", "runs/é x"])
    again = parse_config(cfg.dump())
    assert again == cfg and again.SOLVER.STEPS == (3, 5)
    assert parse_config(cfg.dump(), ["SEED", "9"]).SEED == 9


def test_a_copy_can_be_changed_and_the_original_stays():
    cfg = load_config()
    copy = cfg.clone()
    copy.SOLVER.BASE_LR = 1.0
    assert isinstance(copy.SOLVER, Config) and cfg.SOLVER.BASE_LR == get_defaults().SOLVER.BASE_LR


@pytest.mark.parametrize("method", ["merge_from_file", "merge_from_list", "merge_from_other_cfg"])
def test_merge_methods_of_yacs_raise_errors(method):
    with pytest.raises(AttributeError, match="merged by config.load_config"):
        getattr(get_defaults(), method)("x")


def test_removed_keys_are_accepted_with_values_without_effect(tmp_path):
    recipe = tmp_path / "old.yml"
    recipe.write_text("LOSS: {FOCAL: {WEIGHT: 0.0, GAMMA: 2.0}}\nINPUT: {CUTOUT_PROB: 0.0}\n")
    assert load_config(recipe).dump() == load_config(None).dump()
    recipe.write_text("LOSS: {FOCAL: {WEIGHT: 1.0}}\n")
    with pytest.raises(
        ValueError, match="LOSS.FOCAL.WEIGHT .* no such setting any more; found 1.0"
    ):
        load_config(recipe)
    with pytest.raises(ValueError, match="INPUT.CUTOUT_PROB in the command line must be left out"):
        load_config(None, ["INPUT.CUTOUT_PROB", "0.5"])
    with pytest.raises(ValueError, match="LOSS.FOCAL.OTHER"):
        recipe.write_text("LOSS: {FOCAL: {OTHER: 1.0}}\n")
        load_config(recipe)
