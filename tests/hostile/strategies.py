"""Strategies of Hypothesis: values, configuration words, YAML, files and arguments."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from ember_reid.config.checks import Choices, Flag, Range
from ember_reid.config.schema import CHECKS
from hypothesis import strategies as st

# Texts that programs are known to misread.
NASTY_TEXTS = (
    *(
        "",
        " ",
        "-1",
        "--",
        "nan",
        "inf",
        "None",
        "true",
        "1e400",
        "()",
        "('",
    ),
    *("../..", "/", "/dev/null", "/dev/zero", "~/x", "a" * 5000, "[" * 500, "{{x}}", "%s%n"),
    *("\x1b[31mred", "a\nb", "a\rb", "\u202e", "\U0001f600", "\udcff", "&a *a", "!!python/name:os"),
    *("9" * 5000, "0x10", "1_000", "01", "1e3", "csv:", "folder:.", "market1501:", "imagenet:x"),
)
NASTY_NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 2**31, 2**63 - 1, 2**63, 2**70, -(2**63), 10**12, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf),
)

texts = st.sampled_from(NASTY_TEXTS) | st.text(max_size=20)
numbers = st.sampled_from(NASTY_NUMBERS) | st.integers() | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
# Anything that YAML and JSON can say.
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def allowed_values(key: str) -> st.SearchStrategy:
    """Mostly values that the schema allows for a key, with its bounds among them."""
    check = CHECKS[key]
    if isinstance(check, Flag):
        return st.booleans()
    if isinstance(check, Choices):
        return st.sampled_from(check.values)
    if isinstance(check, Range):
        number = _in_range(check)
        if not check.lengths:
            return number
        length = st.sampled_from(check.lengths).map(lambda n: 3 if n < 0 else n)
        return length.flatmap(lambda n: st.lists(number, min_size=n, max_size=n))
    return st.lists(texts, max_size=3) if check.items else texts


def _in_range(check: Range) -> st.SearchStrategy:
    whole = st.sampled_from([0, 1, 2, 3, 4, 5, 8, 16, 100, math.ceil(check.low), int(check.high)])
    return whole | st.floats(check.low, check.high) | st.sampled_from([check.low, check.high])


def configuration_values(key: str) -> st.SearchStrategy:
    """Allowed and hostile values of a key."""
    return allowed_values(key) | values


def settings_of_keys(keys: Iterable[str], *, max_size: int = 3) -> st.SearchStrategy:
    """{key: value} for one to `max_size` keys."""
    pair = st.sampled_from(sorted(keys)).flatmap(
        lambda key: st.tuples(st.just(key), configuration_values(key))
    )
    return st.lists(pair, min_size=1, max_size=max_size).map(dict)


def as_word(value: Any) -> str:
    """A value as a word of a command line, which cannot contain NUL."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:
        text = "9" * 5000
    return text.replace("\0", "")


def changed_bytes(data: bytes) -> st.SearchStrategy:
    """The data cut off, with some bytes changed, or with bytes inserted."""
    position = st.integers(0, max(len(data) - 1, 0))
    cut = position.map(lambda end: data[:end])
    changes = st.lists(st.tuples(position, st.integers(0, 255)), min_size=1, max_size=8)
    inserted = st.tuples(position, st.binary(max_size=16)).map(
        lambda pair: data[: pair[0]] + pair[1] + data[pair[0] :]
    )
    return (
        cut | changes.map(lambda pairs: _replace(data, pairs)) | inserted | st.binary(max_size=64)
    )


def _replace(data: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, byte in changes:
        changed[position] = byte
    return bytes(changed)


def _tensors() -> dict[str, Any]:
    """Unusual tensors by name; built when an example needs them."""
    eye = torch.eye(3)
    return {
        "scalar": lambda: torch.tensor(1.0),
        "empty": lambda: torch.zeros(0),
        "one": lambda: torch.zeros(1),
        "nan": lambda: torch.full((8,), math.nan),
        "huge values": lambda: torch.full((8,), 3e38),
        "int8": lambda: torch.ones(8, dtype=torch.int8),
        "bool": lambda: torch.ones(8, dtype=torch.bool),
        "complex": lambda: torch.ones(8, dtype=torch.complex64),
        "float64": lambda: torch.ones(8, dtype=torch.float64),
        "bfloat16": lambda: torch.ones(8, dtype=torch.bfloat16),
        "sparse": lambda: eye.to_sparse(),
        "csr": lambda: eye.to_sparse_csr(),
        "quantized": lambda: torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
        "meta": lambda: torch.empty(8, device="meta"),
        "expanded": lambda: torch.zeros(1).expand(10**12),
        "many dimensions": lambda: torch.zeros([1] * 20),
    }


unusual_tensors = st.sampled_from(sorted(_tensors())).map(lambda name: _tensors()[name]())
# Anything that a checkpoint without code can contain.
checkpoint_values = values | unusual_tensors | st.just({1: 2}) | st.just((1, (2,)))


def paths_in(content: Any, prefix: tuple = ()) -> list[tuple]:
    """The positions of all values in nested dictionaries and lists, such as ("model", "w")."""
    found = [prefix] if prefix else []
    if isinstance(content, dict):
        items: Iterable = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    else:
        return found
    for key, value in items:
        found += paths_in(value, (*prefix, key))
    return found


def with_value(content: Any, path: tuple, value: Any) -> Any:
    """A copy of nested containers with another value at a position; copies only what changes."""
    if not path:
        return value
    changed = content.copy()
    changed[path[0]] = with_value(content[path[0]], path[1:], value)
    return changed


def without(content: Any, path: tuple) -> Any:
    """A copy of nested containers without the value at a position."""
    changed = content.copy()
    if len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = without(content[path[0]], path[1:])
    return changed


@st.composite
def changed_contents(draw: st.DrawFn, content: Any, replacements: st.SearchStrategy) -> Any:
    """Nested containers with one to three values replaced or removed.

    Positions are drawn level by level, so that small parts are changed as often as large ones.
    """
    for _ in range(draw(st.integers(1, 3))):
        path = draw(_positions(content))
        if draw(st.integers(0, 4)) == 0:
            content = without(content, path)
        else:
            content = with_value(content, path, draw(replacements))
        if not isinstance(content, (dict, list)) or not content:
            break
    return content


@st.composite
def _positions(draw: st.DrawFn, content: Any) -> tuple:
    path: tuple = ()
    while isinstance(content, (dict, list)) and content:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = draw(st.sampled_from(keys))
        path, content = (*path, key), content[key]
        if draw(st.integers(0, 2)) == 0:
            break
    return path


@st.composite
def csv_lists(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """An image list with a few unusual cells, columns or lines.

    Args:
        names: existing image files, relative to the list.
    """
    columns = ["path", "pid", "camid", "split"]
    splits = ("train", "train", "query", "gallery")
    rows = [
        [name, str(index // 2), str(index % 2), splits[index % 4]]
        for index, name in enumerate(names)
    ]
    for _ in range(draw(st.integers(1, 4))):
        row, column = draw(st.sampled_from(rows)), draw(st.integers(0, 3))
        row[column] = draw(texts | st.sampled_from(("01", "1_1", "\u0661", str(2**63), *names)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        columns[draw(st.integers(0, 3))] = draw(texts)
    elif kind == 1:
        draw(st.sampled_from(rows)).pop()
    elif kind == 2:
        draw(st.sampled_from(rows)).append(draw(texts))
    lines = [",".join(columns)]
    quote = draw(st.booleans())
    lines += [",".join(f'"{cell}"' if quote else cell for cell in row) for row in rows]
    return draw(st.sampled_from(("\n", "\r\n", "\r"))).join(lines) + draw(
        st.sampled_from(("", "\n", "\n\n"))
    )


def unusual_arrays() -> st.SearchStrategy:
    """Arrays of NumPy that a file of embeddings should not contain."""
    kinds = ("f2", "f4", "f8", "i1", "i8", "u1", "?", "c8", "S3", "U5", "M8[s]", "O")
    shapes = ((), (0,), (1,), (3,), (0, 16), (3, 0), (3, 16), (14, 16), (14, 1), (2, 2, 2))
    return st.tuples(st.sampled_from(kinds), st.sampled_from(shapes), numbers).map(_array)


def _array(drawn: tuple) -> np.ndarray:
    kind, shape, number = drawn
    array = np.zeros(shape, dtype=kind)
    try:
        array[...] = number
    except (ValueError, TypeError, OverflowError):
        pass
    return array
