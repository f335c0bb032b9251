"""The rules of the design, checked in the sources: layers, configuration, printing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ember_reid.config import Config
from ember_reid.config.defaults import get_defaults

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "config": set(),
    "layers": set(),
    "evaluate": set(),
    "data": {"config"},
    "modeling": {"config", "layers"},
    "solver": {"config", "layers"},
    "engine": {"config", "layers", "evaluate", "data", "modeling", "solver"},
}
OURS = {*LAYERS, "main", "tools", "tests"}
SOURCES = [path for folder in LAYERS for path in sorted((ROOT / folder).rglob("*.py"))]
CONFIG_TYPES = {"Config", "CfgNode"}
SECTIONS = {key for key, value in get_defaults().items() if isinstance(value, Config)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_packages(tree: ast.Module) -> set[str]:
    """All imported packages: our subpackages by their second name, others by their first."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            first, *rest = module.split(".")
            found.add(rest[0] if first == "ember_reid" and rest else first)
    return found


def names_in(annotation: ast.expr) -> Iterator[str]:
    """Every name in a type annotation, also in one that is written as a string."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from names_in(ast.parse(node.value, mode="eval").body)


def uses_of_config(tree: ast.Module) -> list[str]:
    """Where a module uses a configuration: by name, by type, or by reading a section."""
    found = []
    for node in ast.walk(tree):
        annotation = None
        if isinstance(node, ast.arg):
            annotation = node.annotation
            if node.arg == "cfg":
                found.append(f"line {node.lineno}: parameter cfg")
        elif isinstance(node, ast.AnnAssign):
            annotation = node.annotation
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            annotation = node.returns
        elif isinstance(node, ast.Name) and node.id == "cfg":
            found.append(f"line {node.lineno}: cfg")
        elif isinstance(node, ast.Attribute) and node.attr in SECTIONS:
            found.append(f"line {node.lineno}: .{node.attr}")
        if annotation is not None and CONFIG_TYPES & set(names_in(annotation)):
            found.append(f"line {annotation.lineno}: type {ast.unparse(annotation)}")
    return found


def test_imports_are_found():
    tree = ast.parse("import ember_reid.data.build\nfrom ember_reid import engine")
    assert imported_packages(tree) == {"data", "engine"}


@pytest.mark.parametrize(
    "source, use",
    [
        ("def f(cfg): pass", "line 1: parameter cfg"),
        ("x = cfg", "line 1: cfg"),
        ("def f(settings: Config | None): pass", "line 1: type Config | None"),
        ("def f(settings: 'CfgNode'): pass", "line 1: type 'CfgNode'"),
        ("class A:\n    config: node.CfgNode", "line 2: type node.CfgNode"),
        ("def f() -> list[Config]: pass", "line 1: type list[Config]"),
        ("class A:\n    config: Any\n    def f(self): return self.config.INPUT", "line 3: .INPUT"),
    ],
)
def test_uses_of_a_configuration_are_found(source, use):
    assert use in uses_of_config(ast.parse(source))


def test_plain_settings_are_allowed():
    assert uses_of_config(ast.parse("config = 1\nclass A:\n    settings: ScoreSettings")) == []


def test_layers_import_downward_only():
    wrong = []
    for path in SOURCES:
        folder = path.relative_to(ROOT).parts[0]
        imported = imported_packages(parse(path))
        forbidden = (imported & OURS) - LAYERS[folder] - {folder}
        if folder != "engine":
            forbidden |= imported & {"ignite"}
        wrong += [f"{name_of(path)} imports {name}" for name in sorted(forbidden)]
    assert wrong == []


def test_only_config_and_build_modules_use_the_configuration():
    others = [
        path
        for path in SOURCES
        if path.name != "build.py" and name_of(path).split("/")[0] != "config"
    ]
    uses = [f"{name_of(path)}, {use}" for path in others for use in uses_of_config(parse(path))]
    assert uses == []


def test_library_folders_do_not_print():
    def prints(tree: ast.Module) -> bool:
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        return any(isinstance(func, ast.Name) and func.id == "print" for func in calls)

    assert [name_of(path) for path in SOURCES if prints(parse(path))] == []
