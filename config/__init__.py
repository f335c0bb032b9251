"""Configuration: defaults, recipes with inheritance, validation."""

from ember_reid.config.defaults import get_defaults
from ember_reid.config.load import load_config, parse_config
from ember_reid.config.node import Config, flatten_config, key_names
from ember_reid.config.overrides import expand_overrides, join_negative_values
from ember_reid.config.recipe_headers import RecipeHeader, header_chain, read_header
from ember_reid.config.recipes import find_recipe, recipe_names

__all__ = [
    "Config",
    "RecipeHeader",
    "expand_overrides",
    "find_recipe",
    "flatten_config",
    "get_defaults",
    "header_chain",
    "join_negative_values",
    "key_names",
    "load_config",
    "parse_config",
    "read_header",
    "recipe_names",
]
