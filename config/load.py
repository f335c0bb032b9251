"""Load files and command-line words into a frozen, checked configuration."""

import ast
import difflib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ember_reid.config.checks import Text
from ember_reid.config.defaults import get_defaults
from ember_reid.config.messages import show
from ember_reid.config.node import Config, key_names
from ember_reid.config.overrides import expand_overrides
from ember_reid.config.recipes import RECIPE_FOLDER, SUFFIXES, find_recipe
from ember_reid.config.renamed import (
    REMOVED_KEYS,
    RENAMED_KEYS,
    check_removed,
    warn_about_old_names,
)
from ember_reid.config.schema import CHECKS
from ember_reid.config.validate import find_errors
from ember_reid.config.yaml_reader import MAX_CHARACTERS, read_yaml

MAX_FILES = 64
# Many recipes have the same `_BASE_` files. Callers must not change the result.
_read_shared_yaml = functools.lru_cache(maxsize=64)(read_yaml)


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, a recipe with its `_BASE_` files and command-line words; check the result.

    Args:
        path: a YAML recipe or the name of a shipped one (see `find_recipe`), or None for the
            defaults alone. `_BASE_: file` or `_BASE_: [file, ...]`, relative to the recipe, are
            merged first, in their order.
        overrides: words of a command line (see `expand_overrides`): ("SOLVER.BASE_LR", "1e-3").

    Returns:
        The frozen configuration.

    Raises:
        ValueError: unknown keys (with similar known ones), values of a wrong type or outside their
            range, keys that contradict each other; all errors of a stage are reported at once.
        FileNotFoundError: a recipe that does not exist.
    """
    merge = _Merge()
    if path is not None:
        for file, tree in _read_recipe(find_recipe(path), including=(), files=[]):
            merge.add_tree(tree, source=str(file))
    return merge.finish(overrides)


def parse_config(text: str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from its own `dump()`, as checkpoints and `config.yml` contain it.

    Keys that this version does not know are an error, as in a file.

    Raises:
        ValueError: see `load_config`.
    """
    source = "the checkpoint's configuration"
    if not isinstance(text, str):
        raise ValueError(f"{source} must hold keys and values, found {type(text).__name__}")
    tree = read_yaml(text, source)
    if not tree:
        raise ValueError(f"{source} must hold keys and values, found nothing")
    merge = _Merge()
    merge.add_tree(tree, source=source)
    return merge.finish(overrides)


def read_recipe_files(path: Path) -> list[Path]:
    """Return the `_BASE_` files of a recipe in the order in which they are merged, then itself."""
    return [file for file, _ in _read_recipe(path, including=(), files=[])]


def _read_recipe(
    path: Path, *, including: tuple[Path, ...], files: list[Path]
) -> Iterator[tuple[Path, Mapping]]:
    """Yield (file, tree) of every base and then of the file itself.

    Args:
        path: the file.
        including: the files that include this one, to detect cycles.
        files: all files that were read so far, to bound their number.
    """
    resolved = path.resolve()
    if resolved in including:
        raise ValueError(f"configuration file {path} includes itself through _BASE_")
    files.append(resolved)
    if len(files) > MAX_FILES:
        raise ValueError(f"configuration file {path}: _BASE_ leads to more than {MAX_FILES} files")
    source = f"configuration file {path}"
    if path.stat().st_size > MAX_CHARACTERS:
        raise ValueError(f"{source} has more than {MAX_CHARACTERS} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not plain YAML: it is not UTF-8 text") from error
    tree = dict(_read_shared_yaml(text, source))
    for base in _base_names(tree.pop("_BASE_", ()), source):
        parent = _find_base(base, path)
        yield from _read_recipe(parent, including=(*including, resolved), files=files)
    yield path, tree


def _base_names(value: Any, source: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{source}: _BASE_ must be a file or a list of files, found {show(value)}")
    return list(names)


def _find_base(name: str, child: Path) -> Path:
    """The file of a `_BASE_` entry: relative to the recipe, else a shipped recipe."""
    beside = child.parent / name
    if beside.is_file() and beside.suffix in SUFFIXES:
        return beside
    try:
        folder = child.resolve().parent
        if folder.is_relative_to(RECIPE_FOLDER):
            return find_recipe((folder.relative_to(RECIPE_FOLDER) / name).as_posix())
        return find_recipe(beside if beside.exists() or name.startswith(".") else name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"_BASE_ of {child}: {error}") from error


# Groups all of whose keys were removed: their names with a dot at the end.
_REMOVED_GROUPS = {f"{name.rpartition('.')[0]}." for name in REMOVED_KEYS} - {
    f"{name.rpartition('.')[0]}." for name in CHECKS
}


class _Merge:
    """A configuration while it is merged, with the errors found so far."""

    def __init__(self) -> None:
        self.cfg = get_defaults()
        self.errors: list[str] = []
        self.old_names: list[str] = []

    def add_tree(self, tree: Mapping, *, source: str) -> None:
        """Merge the keys of one file."""
        names: list[str] = []
        self._add_group(self.cfg, tree, prefix="", source=source, names=names)
        for new in sorted({RENAMED_KEYS[name].new for name in names if name in RENAMED_KEYS}):
            used = [name for name in names if name == new or _is_old_name(name, new)]
            if len(used) > 1 and not all(_is_old_name(name, new, item=True) for name in used):
                self.errors.append(f"{source} sets {new} twice, under its old and its new name")

    def _add_group(
        self, node: Config, tree: Mapping, *, prefix: str, source: str, names: list[str]
    ) -> None:
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if name in REMOVED_KEYS:
                self._check_removed(name, value, source)
            elif f"{name}." in _REMOVED_GROUPS and isinstance(value, Mapping):
                self._add_group(Config(), value, prefix=f"{name}.", source=source, names=names)
            elif name in RENAMED_KEYS:
                names.append(name)
                self._assign(name, value, source)
            elif key not in node:
                self.errors.append(_unknown(name, source))
            elif not isinstance(node[key], Config):
                names.append(name)
                self._assign(name, value, source)
            elif isinstance(value, Mapping):
                self._add_group(node[key], value, prefix=f"{name}.", source=source, names=names)
            else:
                self.errors.append(f"{name} in {source} is a group of keys, found {show(value)}")

    def add_words(self, words: Sequence[str]) -> None:
        """Merge command-line words."""
        source = "the command line"
        pairs = expand_overrides(words)
        for name, word in zip(pairs[::2], pairs[1::2], strict=True):
            if name in REMOVED_KEYS:
                self._check_removed(name, _parse_word(word), source)
                continue
            node = _find_node(self.cfg, RENAMED_KEYS[name].new if name in RENAMED_KEYS else name)
            if node is None:
                self.errors.append(_unknown(name, source))
            elif isinstance(node, Config):
                self.errors.append(f"{name} is a group of keys, choose one: {', '.join(node)}")
            else:
                self._assign(name, word if isinstance(node, str) else _parse_word(word), source)

    def finish(self, words: Sequence[str]) -> Config:
        """Merge command-line words, check everything, freeze."""
        self.add_words(words)
        _raise_if_any(self.errors)
        _raise_if_any(find_errors(self.cfg))
        _expand_home(self.cfg)
        warn_about_old_names(self.old_names)
        self.cfg.freeze()
        return self.cfg

    def _check_removed(self, name: str, value: Any, source: str) -> None:
        try:
            check_removed(name, value)
        except ValueError as error:
            self.errors.append(f"{name} in {source} must be {error} found {show(value)}")

    def _assign(self, name: str, value: Any, source: str) -> None:
        """Set a key, given by its present or its old name, in the type of its default."""
        renamed = RENAMED_KEYS.get(name)
        current = renamed.new if renamed else name
        *groups, key = current.split(".")
        node = self.cfg
        for group in groups:
            node = node[group]
        try:
            if renamed is not None:
                self.old_names.append(name)
                value = renamed.value(value, node[key])
            node[key] = _coerce(value, node[key])
        except (TypeError, ValueError) as error:
            self.errors.append(f"{name} in {source} must be {error}, found {show(value)}")


def _is_old_name(name: str, new: str, *, item: bool = False) -> bool:
    """Whether `name` is an old name of the key `new`; with `item`, one of several for its items."""
    renamed = RENAMED_KEYS.get(name)
    return renamed is not None and renamed.new == new and (bool(renamed.item) or not item)


def _expand_home(cfg: Config) -> None:
    """Replace a leading `~` of paths by the home folder."""
    for name, check in CHECKS.items():
        if not (isinstance(check, Text) and check.path):
            continue
        *groups, key = name.split(".")
        node = cfg
        for group in groups:
            node = node[group]
        value = node[key]
        if check.items:
            node[key] = tuple(os.path.expanduser(path) for path in value)
        else:
            node[key] = os.path.expanduser(value)


def _raise_if_any(errors: list[str]) -> None:
    if errors:
        more = f"; and {len(errors) - 20} more" if len(errors) > 20 else ""
        raise ValueError("configuration: " + "; ".join(errors[:20]) + more)


def _find_node(cfg: Config, name: str) -> Any:
    """The value or group of a full key name; None if there is no such key."""
    node: Any = cfg
    for part in name.split("."):
        if not isinstance(node, Config) or part not in node:
            return None
        node = node[part]
    return node


def _parse_word(word: Any) -> Any:
    """The Python or YAML literal that a command-line word looks like, else the word itself."""
    if not isinstance(word, str):
        return word
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(word, word)


def _coerce(value: Any, default: Any) -> Any:
    """Convert the value to the type of the default.

    Raises:
        TypeError: the wanted type, where a conversion would be a guess.
    """
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise TypeError("True or False")
    if isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise TypeError("a whole number")
    if isinstance(default, float):
        return _coerce_float(value)
    if isinstance(default, str):
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return _unquote(str(value))
        raise TypeError("a text")
    return _coerce_tuple(value, default)


def _coerce_float(value: Any) -> float:
    # YAML reads 1e-3 as text.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise TypeError("a number")


def _coerce_tuple(value: Any, default: tuple) -> tuple:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise TypeError("a list")
    if not default:
        if all(isinstance(item, (str, int, float)) for item in value):
            return tuple(value)
        raise TypeError("a list of texts or numbers")
    return tuple(_coerce(item, default[0]) for item in value)


def _unquote(text: str) -> str:
    """The text without one pair of quotes around it; older recipes and shells write ('value')."""
    text = text.strip()
    inner = text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text
    if len(inner) >= 2 and inner[0] == inner[-1] and inner[0] in "'\"":
        return inner[1:-1]
    return text


def _unknown(name: str, source: str) -> str:
    known = key_names(get_defaults())
    name = show(name)[1:-1]
    last = name.rsplit(".", 1)[-1]
    near = [key for key in known if key.rsplit(".", 1)[-1] == last]
    near += [
        key for key in difflib.get_close_matches(name, known, n=3, cutoff=0.5) if key not in near
    ]
    hint = f", similar keys: {', '.join(near[:3])}" if near else ""
    return f"unknown key {name} in {source}{hint}"
