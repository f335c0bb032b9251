"""Configuration: defaults, recipes with inheritance, checks."""

from config.defaults import get_defaults
from config.load import load_config, parse_config
from config.node import Config

__all__ = ["Config", "get_defaults", "load_config", "parse_config"]
