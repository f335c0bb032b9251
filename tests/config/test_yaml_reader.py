"""YAML that is damaged or built to do harm: one line, quickly."""

import pytest
from ember_reid.config import load_config, parse_config
from ember_reid.config.yaml_reader import read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, message",
    [
        (BOMB, "expands to more than 10000 values"),
        ("a: &a [*a]\n", "the alias 'a' contains itself"),
        ("a: " + "[" * 50 + "]" * 50, "is nested more than 20 levels deep"),
        ("a: " + "[" * 100_000, "is nested more than 20 levels deep"),
        ("x" * 1_000_001, "has 1000001 characters, at most 1000000 are read"),
        ("SEED: 1\nSOLVER: {BASE_LR: 1}\nSEED: 2\n", "line 3 sets the key 'SEED' a second time"),
        ("SOLVER: {BASE_LR: 1, BASE_LR: 2}\n", "sets the key 'BASE_LR' a second time"),
        ("- 1\n", "must hold keys and values, found list"),
        ("a: [\n", "is not plain YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not plain YAML"),
        ("? [1]\n: 2\n", "is not plain YAML"),
        ("a: 2020-13-45\n", "is not plain YAML"),
    ],
)
def test_one_line(text, message, tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(text)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as caught:
        read_yaml(text, "file recipe.yml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(ValueError):
        load_config(recipe)
    with pytest.raises(ValueError):
        parse_config(text)


def test_anchors_within_the_limits_are_read():
    assert read_yaml("a: &a [1, 2]\nb: [*a, *a]\n", "x") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    assert read_yaml("", "x") == {}


@pytest.mark.parametrize("value", ["5", "null", "true", "2020-01-01", "[[a.yml]]", "{a: b}"])
def test_base_must_be_file_names(value, tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"_BASE_: {value}\n")
    with pytest.raises(ValueError, match="_BASE_ must be a file or a list of files, found"):
        load_config(recipe)


def test_bases_are_bounded(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.yml").write_text(f"_BASE_: [{i + 1}.yml, {i + 1}.yml]\n")
    (tmp_path / "10.yml").write_text("SEED: 1\n")
    with pytest.raises(ValueError, match="_BASE_ leads to more than 64 files"):
        load_config(tmp_path / "0.yml")
