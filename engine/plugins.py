"""Plug-ins: installed modules that add backbones, heads, datasets, losses and handlers.

A plug-in is a module that calls the functions `register_*` when it is imported. The configuration
key IMPORTS lists the plug-ins of a run, by the name of the module or of its entry point in the
group `ember_reid.plugins`. Only names from a recipe or the command line are imported: a checkpoint
records the plug-ins it needs, but reading it never imports them.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ember_reid.config.entry_points import installed_plugins
from ember_reid.data.datasets import DATASETS, LAYOUTS, Layout
from ember_reid.data.records import Splits
from ember_reid.modeling.backbones import BACKBONES, BackboneOptions
from ember_reid.modeling.build import HEADS
from torch import nn

BackboneFactory = Callable[[BackboneOptions], nn.Module]
HeadFactory = Callable[..., nn.Module]
DatasetReader = Callable[[Path], Splits]
LossFactory = Callable[..., Callable[..., Any]]
HandlerFactory = Callable[..., Any]

LOSSES: dict[str, LossFactory] = {}
HANDLERS: dict[str, HandlerFactory] = {}
# {kind: names}, everything that plug-ins have registered.
_registered: dict[str, list[str]] = {}
_loaded: set[str] = set()


def register_backbone(name: str, factory: BackboneFactory) -> None:
    """Add a value of MODEL.BACKBONE.NAME.

    Args:
        name: lower-case letters, digits and `_.-`.
        factory: options -> a module with `channels`, the tuple of C_i, that maps images
            [N, 3, H, W] to a tuple of stage maps [N, C_i, H_i, W_i].
    """
    _register(BACKBONES, "backbone", name, factory)


def register_head(name: str, factory: HeadFactory) -> None:
    """Add a value of MODEL.HEAD.NAME.

    Args:
        factory: (in_channels, num_classes, HeadOptions) -> a module with `dim`, the dimension of
            the embedding, that maps stage maps to a ReidOutput.
    """
    _register(HEADS, "head", name, factory)


def register_dataset(
    name: str, read: DatasetReader, *, folders: Sequence[str] = (), contents: str = ""
) -> None:
    """Add a value of DATASETS.NAMES and DATASETS.TESTS.

    Args:
        read: folder -> Splits.
        folders: names of the folder that the archive of the dataset unpacks to.
        contents: what the folder contains, for messages.
    """
    _register(DATASETS, "dataset", name, read)
    LAYOUTS[name] = Layout(tuple(folders), contents or "the files of the dataset")


def register_loss(name: str, factory: LossFactory) -> None:
    """Add a value of LOSS.PLUGIN.NAME.

    Args:
        factory: called with the entries of LOSS.PLUGIN.ARGS as keyword arguments, and with
            `num_classes` and `feature_dim` if it has such parameters. It returns a function or
            module (ReidOutput, Batch) -> scalar. Parameters of a module are trained.
    """
    _register(LOSSES, "loss", name, factory)


def register_handler(name: str, factory: HandlerFactory) -> None:
    """Add a value of the list HANDLERS.

    Args:
        factory: TrainingRun -> an object whose `attach(trainer)` registers it for ignite events.
    """
    _register(HANDLERS, "handler", name, factory)


def _register(registry: dict[str, Any], kind: str, name: str, factory: Callable) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(
            f"the name of a {kind} is {str(name)[:60]!r}, allowed: lower-case letters, digits, _.-"
        )
    if not callable(factory):
        raise ValueError(f"the {kind} {name} must be a function, found {type(factory).__name__}")
    if registry.get(name, factory) is not factory:
        raise ValueError(f"there is already a {kind} called {name}: choose another name")
    registry[name] = factory
    names = _registered.setdefault(kind, [])
    names += [] if name in names else [name]


def registered_names() -> dict[str, tuple[str, ...]]:
    """Return {kind: names} of everything that the loaded plug-ins have added."""
    return {kind: tuple(names) for kind, names in _registered.items()}


def load_plugins(names: Iterable[str]) -> None:
    """Import plug-ins that a recipe or the command line names.

    Raises:
        ValueError: there is no such module, or importing it fails.
    """
    targets = installed_plugins()
    for name in names:
        if name in _loaded:
            continue
        module = targets.get(name, name)
        try:
            importlib.import_module(module)
        # A plug-in is third-party code, which can fail in any way.
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]:
                known = ", ".join(sorted(targets)) or "none"
                raise ValueError(
                    f"IMPORTS names {name!r}, but there is no such module or plug-in; "
                    f"installed plug-ins: {known}"
                ) from error
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise ValueError(
                f"the plug-in {name} cannot be imported: {type(error).__name__}: {reason}"
            ) from error
        _loaded.add(name)


def check_plugins(required: Iterable[str], *, source: object) -> None:
    """Raise ValueError if a checkpoint needs plug-ins that have not been loaded."""
    missing = [name for name in required if name not in _loaded]
    if missing:
        names = "".join(f"'{name}'," for name in missing)
        raise ValueError(
            f"{source} needs the plug-in(s) {', '.join(missing)[:200]}; a checkpoint cannot import "
            f'code: if you trust them, name them in the recipe or with IMPORTS "({names[:200]})"'
        )
