"""Read plain YAML with limits on size, depth and expanded aliases, and without repeated keys."""

from collections.abc import Hashable, Mapping

import yaml
from ember_reid.config.messages import flatten, show

try:
    # Ten times as fast; part of PyYAML's wheels.
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 10_000


class _UniqueKeyLoader(SafeLoader):
    """The safe loader of PyYAML; a key that appears twice in a mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line} sets the key {show(key)} a second time")
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, source: str) -> dict:
    """Read a mapping from YAML text; empty text is an empty mapping.

    Args:
        text: the document.
        source: where the text is from, for messages.

    Raises:
        ValueError: not plain YAML, not a mapping, a repeated key, or a document beyond the limits.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{source} has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    try:
        _check_limits(text, source)
        # The loader is a subclass of SafeLoader.
        tree = yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(source):
            raise
        raise ValueError(f"{source} is not plain YAML: {flatten(error)}") from error
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise ValueError(f"{source} must hold keys and values, found {type(tree).__name__}")
    return dict(tree)


def _check_limits(text: str, source: str) -> None:
    """Check nesting and number of values; aliases count with the size of their content."""
    open_sizes = [0]
    open_anchors: list[str | None] = []
    sizes: dict[str | None, int] = {}
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in open_anchors:
                raise ValueError(f"{source}: the alias {show(event.anchor)} contains itself")
            open_sizes[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            open_sizes[-1] += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_sizes.append(1)
            open_anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_sizes.pop()
            sizes[open_anchors.pop()] = size
            open_sizes[-1] += size
        if len(open_sizes) > MAX_DEPTH:
            raise ValueError(f"{source} is nested more than {MAX_DEPTH} levels deep")
        if max(open_sizes[0], open_sizes[-1]) > MAX_VALUES:
            raise ValueError(f"{source} expands to more than {MAX_VALUES} values")
