"""The configuration tree: yacs' CfgNode without its own ways to merge."""

from typing import Any, NoReturn

from yacs.config import CfgNode


class Config(CfgNode):
    """A yacs tree that only `config.load_config` and `config.parse_config` fill.

    The merge methods of yacs execute `.py` files, change frozen trees and refuse an int for a
    float, so they raise an error here. Attribute access, `dump` and `freeze` are yacs' own.
    """

    def _refuse(self, *_: Any) -> NoReturn:
        raise AttributeError(
            "a configuration is merged by config.load_config(path, overrides) only"
        )

    merge_from_file = merge_from_list = merge_from_other_cfg = _refuse

    def __setitem__(self, key: str, value: Any) -> None:
        if self.__dict__.get(CfgNode.IMMUTABLE):
            raise AttributeError(f"the configuration is frozen: {key} cannot be set to {value!r}")
        super().__setitem__(key, value)

    def clone(self) -> "Config":
        """Return an unfrozen copy."""
        # Without the constructor of yacs, which copies each group once per level above it.
        copy = Config()
        for key, value in self.items():
            copy[key] = value.clone() if isinstance(value, Config) else value
        return copy


def flatten_config(node: Config, prefix: str = "") -> dict[str, Any]:
    """Return {full name: value} of all keys in a configuration, in their order."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Config):
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def key_names(node: Config) -> list[str]:
    """Return the full names of all keys in a configuration, in their order."""
    return list(flatten_config(node))
