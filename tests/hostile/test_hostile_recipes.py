"""Recipe files: trees with unusual values, damaged text, and `_BASE_` lists."""

import yaml
from ember_reid.tools.explain import main as explain
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import strategies
from tests.hostile.harness import check, check_training

BASES = st.sampled_from(("tiny.yml", "recipe.yml", "missing.yml", ".", "/", "..", "x.py", "\x1b"))


@given(data=st.data())
def test_trees(data, tiny_recipe, fresh):
    tree = yaml.safe_load(tiny_recipe.read_text())
    changed = data.draw(strategies.changed_contents(tree, strategies.values))
    recipe = fresh("recipes") / "recipe.yml"
    recipe.write_text(yaml.safe_dump(changed), encoding="utf-8")
    check_training("recipe trees", ["-c", str(recipe)])


@given(data=st.data())
def test_damaged_text(data, tiny_recipe, fresh):
    recipe = fresh("recipes") / "recipe.yml"
    recipe.write_bytes(data.draw(strategies.changed_bytes(tiny_recipe.read_bytes())))
    check_training("recipe text", ["-c", str(recipe)])


@given(
    bases=st.lists(BASES, max_size=4) | BASES | strategies.values,
    other=st.lists(BASES, max_size=2) | strategies.values,
)
def test_bases(bases, other, tiny_recipe, fresh):
    folder = fresh("recipes")
    (folder / "recipe.yml").write_text(yaml.safe_dump({"_BASE_": bases}), encoding="utf-8")
    text = tiny_recipe.read_text() + yaml.safe_dump({"_BASE_": other})
    (folder / "tiny.yml").write_text(text, encoding="utf-8")
    check_training("recipe bases", ["-c", str(folder / "recipe.yml")])
    check("recipe bases", explain, [str(folder / "recipe.yml")])


@given(depth=st.integers(1, 60), width=st.integers(1, 60))
def test_aliases_are_bounded(depth, width, fresh):
    lines = ["a0: &a0 [x]"]
    for level in range(1, depth):
        items = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{items}]")
    recipe = fresh("recipes") / "recipe.yml"
    recipe.write_text("\n".join(lines), encoding="utf-8")
    assert check_training("recipe aliases", ["-c", str(recipe)]).code == 2
