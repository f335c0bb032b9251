"""Find recipes by file or by name; shipped recipes are found from every directory."""

import difflib
import logging
from pathlib import Path

from ember_reid.config.messages import flatten

logger = logging.getLogger("ember.config")

# `configs/` beside this package, both in a checkout and in an installed package.
RECIPE_FOLDER = Path(__file__).resolve().parents[1] / "configs"
SUFFIXES = (".yml", ".yaml")

# Former names of recipes at the top of configs/ -> current names.
MOVED_RECIPES = {
    "debug": "syncbn/debug",
    "debug_multi-gpu": "syncbn/debug_multi-gpu",
    "market2partilibds": "syncbn/market2partilibds",
    "quickstart": "quickstart/people",
    "quickstart_ema": "quickstart/ema",
    "quickstart_feature": "quickstart/feature",
    "quickstart_logits": "quickstart/logits",
    "quickstart_relation": "quickstart/relation",
    "quickstart_self": "quickstart/self",
    "quickstart_self_published": "quickstart/self_published",
    "quickstart_student": "quickstart/student",
    "quickstart_teacher": "quickstart/teacher",
    "quickstart_video_relation": "quickstart/video_relation",
    "quickstart_video_self": "quickstart/video_self",
    "quickstart_video_student": "quickstart/video_student",
    "quickstart_video_teacher": "quickstart/video_teacher",
    "quickstart_video_vkd": "quickstart/video_vkd",
    "veri": "syncbn/veri",
    "veriwild": "syncbn/veriwild",
}


def recipe_names() -> list[str]:
    """Return the names of all shipped recipes, sorted: `market1501/bot_R50`, ..."""
    files = (path for path in RECIPE_FOLDER.rglob("*.yml") if _is_recipe(path))
    return sorted(path.relative_to(RECIPE_FOLDER).with_suffix("").as_posix() for path in files)


def _is_recipe(path: Path) -> bool:
    """Whether a file is a recipe of its own: it sets OUTPUT_DIR, the base of others does not."""
    return "\nOUTPUT_DIR:" in path.read_text(encoding="utf-8")


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        name: an existing file; or the name of a shipped recipe (`market1501/bot_R50`), with or
            without the suffix and a leading `configs/`; former names of shipped recipes work too.

    Raises:
        FileNotFoundError: neither a file nor a shipped recipe; the message names similar ones.
        ValueError: a file that is not .yml or .yaml.
    """
    path = Path(name)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    shipped = None if path.is_absolute() else _find_shipped(_recipe_name(path))
    if shipped is not None:
        return shipped
    if path.is_file():
        raise ValueError(f"configuration file {path}: only .yml and .yaml files are read")
    if path.exists() and not path.is_dir():
        raise ValueError(f"configuration file {path} is not a regular file")
    similar = _similar_names(path)
    hint = f"; near it: {', '.join(similar)}" if similar else ""
    what = "configuration file" if path.suffix else "recipe"
    raise FileNotFoundError(f"{what} {flatten(name) or repr('')} does not exist{hint}")


def _recipe_name(path: Path) -> str:
    stem = path.with_suffix("") if path.suffix in SUFFIXES else path
    parts = [part for part in stem.parts if part != "."]
    return "/".join(parts[1:] if parts[:1] == ["configs"] else parts)


def _find_shipped(name: str) -> Path | None:
    current = MOVED_RECIPES.get(name, name)
    path = RECIPE_FOLDER / f"{current}.yml"
    if not name or ".." in name.split("/") or not path.is_file():
        return None
    if current != name:
        logger.info("recipe %s has moved to %s", name, current)
    return path


def _similar_names(path: Path) -> list[str]:
    """Files of the same folder and shipped recipes with a similar name, the former first."""
    try:
        beside = sorted(file.name for file in path.parent.glob("*.y*ml"))
    except OSError:
        beside = []
    similar = difflib.get_close_matches(path.name, beside, n=3)
    if not path.is_absolute():
        similar += difflib.get_close_matches(_recipe_name(path), recipe_names(), n=3)
    return similar[:3]
