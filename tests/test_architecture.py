"""The two rules of the design that a reader relies on, and the one about printing, read off the sources."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "config": set(),
    "layers": set(),
    "evaluate": set(),
    "data": {"config"},
    "modeling": {"config", "layers"},
    "solver": {"config", "layers"},
    "engine": {"config", "layers", "evaluate", "data", "modeling", "solver"},
}
OURS = {*FLOORS, "main", "tools", "tests"}
SOURCES = [path for folder in FLOORS for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_packages(tree: ast.Module) -> set[str]:
    """What is imported anywhere in a module: our subpackages by their second name, everything else by its first."""
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


def names_cfg(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == "cfg")
        or (isinstance(node, ast.arg) and node.arg == "cfg")
        for node in ast.walk(tree)
    )


def test_the_checks_see_what_they_should():
    tree = ast.parse(
        "import ember_reid.data.build\nfrom ember_reid import engine\ndef f(cfg): pass"
    )
    assert imported_packages(tree) == {"data", "engine"}
    assert names_cfg(tree)
    assert not names_cfg(ast.parse("config = 1"))


def test_floors_import_downwards_only():
    wrong = []
    for path in SOURCES:
        folder = path.relative_to(ROOT).parts[0]
        imported = imported_packages(parse(path))
        sideways = (imported & OURS) - FLOORS[folder] - {folder}
        if folder != "engine":
            sideways |= imported & {"ignite"}
        wrong += [f"{name_of(path)} imports {name}" for name in sorted(sideways)]
    assert wrong == []


def test_cfg_is_named_in_config_and_build_modules_only():
    others = [
        path
        for path in SOURCES
        if path.name != "build.py" and path.parts[len(ROOT.parts)] != "config"
    ]
    assert [name_of(path) for path in others if names_cfg(parse(path))] == []


def test_library_folders_do_not_print():
    def prints(tree: ast.Module) -> bool:
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        return any(isinstance(func, ast.Name) and func.id == "print" for func in calls)

    assert [name_of(path) for path in SOURCES if prints(parse(path))] == []
