"""Values of every configuration key, on the command line and in recipes."""

import pytest
import yaml
from ember_reid.config import get_defaults, key_names, load_config
from ember_reid.config.schema import CHECKS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import strategies
from tests.hostile.harness import check_training

KEYS = key_names(get_defaults())


def test_the_schema_names_all_keys():
    assert sorted(CHECKS) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=settings.default.max_examples // 5)
@given(data=st.data())
def test_each_key_is_read_or_refused(key, data, fresh):
    value = data.draw(strategies.configuration_values(key))
    recipe = fresh("key") / "recipe.yml"
    groups, _, name = key.rpartition(".")
    tree = {name: value}
    for group in reversed(groups.split(".") if groups else []):
        tree = {group: tree}
    text = yaml.safe_dump(tree, allow_unicode=False)
    recipe.write_text(text, encoding="utf-8")
    try:
        load_config(recipe)
    except (ValueError, OSError) as error:
        assert 0 < len(str(error)) < 2000


@given(words=strategies.settings_of_keys(KEYS))
def test_words(words, tiny_recipe):
    pairs = [word for key, value in words.items() for word in (key, strategies.as_word(value))]
    check_training("configuration words", ["-c", str(tiny_recipe), *pairs])


@given(first=strategies.texts, second=strategies.texts, joined=st.booleans())
def test_words_that_are_no_keys(first, second, joined, tiny_recipe):
    first, second = strategies.as_word(first), strategies.as_word(second)
    words = [f"{first}={second}"] if joined else [first, second]
    check_training("other words", ["-c", str(tiny_recipe), *words])
