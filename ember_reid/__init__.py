"""Train, evaluate and distill re-identification networks.

    import ember_reid as er

    run = er.train("quickstart", data="csv:cows.csv", epochs=20)
    model = er.load_model(run.best)
    embeddings = model.embed(["a.jpg", "b.jpg"])

`import ember_reid` is cheap: torch is imported when a name that needs it is used first.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "main.py").is_file() and (_ROOT / "config" / "defaults.py").is_file():
    # A checkout: the subpackages (ember_reid.data is data/) and ember_reid.main are beside this
    # folder.
    __path__.append(str(_ROOT))

# Public name -> the module that defines it.
_EXPORTS = {
    "Model": "ember_reid.api",
    "Rerank": "ember_reid.evaluate",
    "Run": "ember_reid.api",
    "evaluate_features": "ember_reid.evaluate",
    "load_config": "ember_reid.config",
    "load_model": "ember_reid.api",
    "rank_metrics": "ember_reid.evaluate",
    "rerank_distances": "ember_reid.evaluate",
    "test": "ember_reid.api",
    "train": "ember_reid.api",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
