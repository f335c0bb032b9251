"""Configuration: defaults, recipes with inheritance, checks."""

from ember_reid.config.defaults import get_defaults
from ember_reid.config.load import load_config, parse_config
from ember_reid.config.node import Config

__all__ = ["Config", "get_defaults", "load_config", "parse_config"]
