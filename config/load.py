"""From files and command-line words to a frozen, checked configuration."""

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from ember_reid.config.defaults import get_defaults
from ember_reid.config.node import Config
from ember_reid.config.validate import find_mistakes


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Defaults, then the YAML file with its `_BASE_` files, then KEY VALUE pairs; frozen and checked.

    Args:
        path: a YAML recipe, or None for the defaults alone. `_BASE_: file` or `_BASE_: [file, ...]`, relative to the
            recipe, are merged first, in their order.
        overrides: alternating keys and values as typed on a command line: ("SOLVER.BASE_LR", "1e-3", ...).

    Raises:
        ValueError: unknown keys (with the nearest known ones), values of a wrong type or outside what is allowed, keys
            that contradict each other; all mistakes of a stage are reported at once.
        FileNotFoundError: a recipe that is not there.
    """
    cfg = get_defaults()
    mistakes: list[str] = []
    if path is not None:
        for file, tree in _read_recipe(Path(path), seen=()):
            _merge(cfg, tree, prefix="", source=str(file), mistakes=mistakes)
    _merge_overrides(cfg, overrides, mistakes)
    _raise_if_any(mistakes)
    _raise_if_any(find_mistakes(cfg))
    cfg.freeze()
    return cfg


def parse_config(text: str, overrides: Sequence[str] = ()) -> Config:
    """A configuration from its own `dump()`, as checkpoints and `config.yml` carry it.

    Keys that this version does not know any more are an error, like in a file.
    """
    source = "the checkpoint's configuration"
    try:
        tree = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise ValueError(f"{source} must hold keys and values, found {type(tree or text).__name__}")
    cfg = get_defaults()
    mistakes: list[str] = []
    _merge(cfg, tree, prefix="", source=source, mistakes=mistakes)
    _merge_overrides(cfg, overrides, mistakes)
    _raise_if_any(mistakes)
    _raise_if_any(find_mistakes(cfg))
    cfg.freeze()
    return cfg


def _raise_if_any(mistakes: list[str]) -> None:
    if mistakes:
        raise ValueError("configuration: " + "; ".join(mistakes))


def _read_recipe(path: Path, *, seen: tuple[Path, ...]) -> Iterator[tuple[Path, Mapping]]:
    """Yield (file, tree) of every base and then of the file itself."""
    if path.suffix not in (".yml", ".yaml"):
        raise ValueError(f"configuration file {path}: only .yml and .yaml files are read")
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, sorted(p.name for p in path.parent.glob("*.y*ml")), n=3
        )
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise FileNotFoundError(f"configuration file {path} does not exist{hint}")
    if path.resolve() in seen:
        raise ValueError(f"configuration file {path} includes itself through _BASE_")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"configuration file {path} is not plain YAML: {' '.join(str(error).split())}"
        ) from error
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"configuration file {path} must hold keys and values, found {type(tree).__name__}"
        )
    tree = dict(tree)
    bases = tree.pop("_BASE_", ())
    for base in (bases,) if isinstance(bases, str) else bases:
        yield from _read_recipe(path.parent / base, seen=(*seen, path.resolve()))
    yield path, tree


def _merge(node: Config, tree: Mapping, *, prefix: str, source: str, mistakes: list[str]) -> None:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in node:
            mistakes.append(_unknown(name, source))
        elif isinstance(node[key], Config):
            if isinstance(value, Mapping):
                _merge(node[key], value, prefix=f"{name}.", source=source, mistakes=mistakes)
            else:
                mistakes.append(f"{name} in {source} is a group of keys, found {value!r}")
        else:
            _assign(node, key, value, name, source, mistakes)


def _merge_overrides(cfg: Config, overrides: Sequence[str], mistakes: list[str]) -> None:
    words = list(overrides)
    if len(words) % 2:
        mistakes.append(f"the command line wants KEY VALUE pairs, {words[-1]!r} has no value")
        words.pop()
    for name, value in zip(words[::2], words[1::2], strict=True):
        node, (*groups, key) = cfg, name.split(".")
        for group in groups:
            node = node[group] if isinstance(node, Config) and group in node else None
        if not isinstance(node, Config) or key not in node:
            mistakes.append(_unknown(name, "the command line"))
        elif isinstance(node[key], Config):
            mistakes.append(f"{name} is a group of keys, choose one: {', '.join(node[key])}")
        else:
            typed = value if isinstance(node[key], str) else _parse_word(value)
            _assign(node, key, typed, name, "the command line", mistakes)


def _parse_word(word):
    """A command-line word as the Python or YAML literal that it looks like, else the word itself."""
    if not isinstance(word, str):
        return word
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(word, word)


def _assign(node: Config, key: str, value, name: str, source: str, mistakes: list[str]) -> None:
    try:
        node[key] = _coerce(value, node[key])
    except TypeError as error:
        mistakes.append(f"{name} in {source} wants {error}, found {value!r}")


def _coerce(value, default):
    """The value in the default's type; TypeError with the wanted type where that would be a guess."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise TypeError("True or False")
    if isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise TypeError("a whole number")
    if isinstance(default, float):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        try:
            return (
                float(value) if isinstance(value, str) else _raise_type("a number")
            )  # YAML reads 1e-3 as text
        except ValueError:
            raise TypeError("a number") from None
    if isinstance(default, str):
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return _unquote(str(value))
        raise TypeError("a text")
    return _coerce_tuple(value, default)


def _coerce_tuple(value, default: tuple) -> tuple:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise TypeError("a list")
    return tuple(_coerce(item, default[0]) if default else _plain(item) for item in value)


def _plain(item):
    if isinstance(item, (str, int, float)):
        return item
    raise TypeError("a list of texts or numbers")


def _raise_type(wanted: str):
    raise TypeError(wanted)


def _unquote(text: str) -> str:
    """The text without one pair of quotes around it: shells and recipes of the lineage write \"('value')\"."""
    text = text.strip()
    inner = text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text
    if len(inner) >= 2 and inner[0] == inner[-1] and inner[0] in "'\"":
        return inner[1:-1]
    return text


def _known_keys(node: Config, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys += (
            _known_keys(value, f"{prefix}{key}.")
            if isinstance(value, Config)
            else [f"{prefix}{key}"]
        )
    return keys


def _unknown(name: str, source: str) -> str:
    known = _known_keys(get_defaults())
    last = name.rsplit(".", 1)[-1]
    near = [key for key in known if key.rsplit(".", 1)[-1] == last]
    near += [
        key for key in difflib.get_close_matches(name, known, n=3, cutoff=0.5) if key not in near
    ]
    hint = f", the nearest known: {', '.join(near[:3])}" if near else ""
    return f"unknown key {name} in {source}{hint}"
