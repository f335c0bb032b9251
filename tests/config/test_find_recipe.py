"""Recipes by name."""

import logging

import pytest
from ember_reid.config import find_recipe, load_config, recipe_names
from ember_reid.config.recipes import MOVED_RECIPES, RECIPE_FOLDER


@pytest.mark.parametrize(
    "name",
    [
        "market1501/bot_R50",
        "market1501/bot_R50.yml",
        "configs/market1501/bot_R50.yml",
        "./configs/market1501/bot_R50",
    ],
)
def test_a_shipped_recipe_is_found_from_every_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name) == RECIPE_FOLDER / "market1501" / "bot_R50.yml"


def test_a_file_comes_before_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yml").write_text("SEED: 77\n")
    assert load_config("configs/quickstart.yml").SEED == 77


@pytest.mark.parametrize("old", sorted(MOVED_RECIPES))
def test_former_names_work_with_one_line_in_the_log(old, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="ember.config"):
        path = find_recipe(f"configs/{old}.yml")
    assert path.is_file() and [record.getMessage() for record in caplog.records] == [
        f"recipe {old} has moved to {MOVED_RECIPES[old]}"
    ]


def test_recipes_of_users_build_on_shipped_ones(tmp_path):
    (tmp_path / "mine.yml").write_text("_BASE_: configs/quickstart.yml\nSEED: 9\n")
    cfg = load_config(tmp_path / "mine.yml")
    assert (cfg.SEED, cfg.MODEL.BACKBONE.NAME) == (9, "resnet18_ibn_a")


def test_names_of_shipped_recipes():
    names = recipe_names()
    assert "market1501/bot_R50" in names and "quickstart/people" in names
    assert not any(name.startswith("base/") for name in names) and len(names) > 140


@pytest.mark.parametrize(
    "name, message",
    [
        ("market1501/bot_R5", "recipe market1501/bot_R5 does not exist; near it: market1501/bot_R"),
        ("configs/no.yml", "configuration file configs/no.yml does not exist"),
        ("../configs/market1501/x", "recipe ../configs/market1501/x does not exist"),
        ("", "recipe '' does not exist"),
    ],
)
def test_a_missing_recipe_names_similar_ones(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        find_recipe(name)


def test_a_missing_parent_is_named_with_its_child(tmp_path):
    (tmp_path / "child.yml").write_text("_BASE_: parent.yml\n")
    with pytest.raises(
        FileNotFoundError, match="_BASE_ of .*child.yml: .*parent.yml does not exist"
    ):
        load_config(tmp_path / "child.yml")
