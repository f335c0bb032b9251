"""The configuration tree: yacs' CfgNode with its back doors closed."""

from yacs.config import CfgNode


class Config(CfgNode):
    """A yacs tree that is filled by `config.load_config` alone.

    yacs' own merge methods execute `.py` files, change frozen trees and refuse an int where a float is meant, so they
    raise here; attribute access, `dump`, `clone` and `freeze` are yacs' own.
    """

    def _refuse(self, *_):
        raise AttributeError(
            "a configuration is merged by config.load_config(path, overrides) only"
        )

    merge_from_file = merge_from_list = merge_from_other_cfg = _refuse

    def __setitem__(self, key, value):
        if self.__dict__.get(CfgNode.IMMUTABLE):
            raise AttributeError(f"the configuration is frozen: {key} cannot be set to {value!r}")
        super().__setitem__(key, value)

    def clone(self) -> "Config":
        """An unfrozen copy."""
        copy = Config(
            {
                key: value.clone() if isinstance(value, Config) else value
                for key, value in self.items()
            }
        )
        copy.defrost()
        return copy
