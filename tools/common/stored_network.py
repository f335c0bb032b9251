"""The network that made embeddings: opened from the command line, or again from a file of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ember_reid.config import parse_config
from ember_reid.engine.build import build_device
from ember_reid.engine.deploy.build import (
    build_deployed_network,
    build_embedder,
    load_model,
    read_inference_config,
    read_threshold,
)
from ember_reid.engine.deploy.detect import PROGRAMS, detect_format
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.metadata import ExportMetadata, parse_metadata
from ember_reid.engine.deploy.runtimes import create_embedder


@dataclass(frozen=True)
class StoredNetwork:
    """A network as it is named in a file of embeddings.

    Attributes:
        card: its metadata as JSON, see `ExportMetadata`.
        weights, config: its weight file, and its configuration ("" for exported files).
    """

    card: str
    weights: str
    config: str

    @property
    def metadata(self) -> ExportMetadata:
        return parse_metadata(self.card)


def open_network(
    words: Sequence[str],
    *,
    recipe: str | None = None,
    device: str = "auto",
    half: bool = False,
    trust: bool = False,
) -> tuple[Embedder, StoredNetwork]:
    """The network of TEST.WEIGHT.

    Args:
        words: alternating keys and values of the configuration.
        device: auto | cpu | cuda, for exported files; checkpoints use the key DEVICE.
        trust: also load files that can execute code.
    """
    named = dict(zip(words[::2], words[1::2], strict=False)).get("TEST.WEIGHT", "")
    if named and detect_format(Path(named)) != "checkpoint":
        embedder = load_model(named, device=device, trust=trust)
        return embedder, StoredNetwork(
            embedder.metadata.to_json(), weights=str(Path(named).resolve()), config=""
        )
    cfg = read_inference_config(recipe, words)
    network, metadata = build_deployed_network(cfg, half=half)
    return create_embedder(network, metadata, build_device(cfg)), StoredNetwork(
        metadata.to_json(), weights=str(Path(cfg.TEST.WEIGHT).resolve()), config=cfg.dump()
    )


def reopen_network(
    network: StoredNetwork, source: Path, *, weights: str | None = None, trust: bool = False
) -> Embedder:
    """The network of a file of embeddings, with the configuration stored there.

    The file only names a weight file. It never causes a program to be loaded: that takes `weights`
    and `trust`.

    Args:
        source: the file of embeddings, for messages.
        weights: the weight file, if the user names one.

    Raises:
        FileNotFoundError: the weight file was moved.
        ValueError: it is a program, or it contains another network.
    """
    path = Path(weights or network.weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"the network of {source}, {path}, does not exist; name it with --weights FILE"
        )
    kind = detect_format(path)
    if kind in PROGRAMS and not weights:
        raise ValueError(
            f"{source} names the program {path} ({kind}) as its network, and loading it would "
            "execute its code: if you trust it, name it yourself with --weights {path} --trust"
        )
    if kind != "checkpoint" or not network.config:
        embedder = load_model(path, trust=trust)
    else:
        words = ["TEST.WEIGHT", str(path), "DEVICE", "auto"]
        embedder = build_embedder(parse_config(network.config, words))
    check_same_network(network.metadata, embedder.metadata, source, str(path))
    return embedder


def check_same_network(
    metadata: ExportMetadata, other: ExportMetadata, features: Path, source: str
) -> None:
    """Raise ValueError if embeddings come from different networks."""
    if metadata.fingerprint != other.fingerprint:
        raise ValueError(
            f"{features} was made by the network {metadata.fingerprint}, {source} is "
            f"{other.fingerprint}, and embeddings of two networks do not compare: extract again, "
            "or name the network it was made by with --weights"
        )


def choose_threshold(
    given: str, network: StoredNetwork, weights: str | None = None
) -> float | None:
    """The cosine distance up to which two images are the same identity; None if not known.

    Args:
        given: auto (the calibrated one) | none | a distance.
        weights: the weight file, if it was moved.
    """
    if given == "none":
        return None
    if given != "auto":
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 2:
            raise ValueError(
                f"--threshold is {given[:40]}, it must be auto, none, or a cosine distance in 0..2"
            )
        return value
    path = Path(weights or network.weights)
    return (read_threshold(path) if path.is_file() else None) or network.metadata.threshold
