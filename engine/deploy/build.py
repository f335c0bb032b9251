"""From a checkpoint or an exported file to something that embeds photographs."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from ember_reid.data.build import build_normalization
from ember_reid.engine.build import build_device, build_trained_model, read_test_config
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.formats import create_embedder, kind_of, open_network
from ember_reid.engine.deploy.network import Card, DeployedNetwork, fingerprint

logger = logging.getLogger("ember.deploy")


def load_model(
    path: str | Path,
    *overrides: object,
    config: str | None = None,
    device: str = "auto",
    half: bool = False,
) -> Embedder:
    """A trained network, ready to use: `load_model("best.pt").embed(["a.jpg", "b.jpg"])`.

    Args:
        path: a checkpoint, or a file of tools.export (.onnx, .pt2, TorchScript).
        overrides: alternating keys and values of the configuration, such as "TEST.FLIP", True; for checkpoints.
        config: the recipe, for weight files that carry none.
        device: auto | cpu | cuda.
        half: compute the backbone in float16; for checkpoints.

    Raises:
        FileNotFoundError, ValueError: no such file; a broken one, or one of another architecture.
    """
    path = Path(path)
    if kind_of(path) == "checkpoint":
        words = ["TEST.WEIGHT", str(path), "DEVICE", device, *map(str, overrides)]
        return build_embedder(read_test_config(config, words), half=half)
    if overrides or config or half:
        raise ValueError(
            f"{path} is an exported network, its configuration is fixed: change it and export again"
        )
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return open_network(path, device=torch.device("cuda" if use_cuda else "cpu"))


def build_embedder(cfg, *, half: bool = False) -> Embedder:
    """The network of TEST.WEIGHT on the configuration's device."""
    network, card = build_deployed_network(cfg, half=half)
    return create_embedder(network, card, build_device(cfg))


def build_deployed_network(cfg, *, half: bool = False) -> tuple[DeployedNetwork, Card]:
    """The network of TEST.WEIGHT with its preprocessing inside, on the CPU, and its card."""
    model = build_trained_model(cfg, torch.device("cpu"))
    settings = {**model.switches, "TEST.FLIP": cfg.TEST.FLIP}
    mark = fingerprint(model.state_dict(), settings)
    normalization = build_normalization(cfg)
    network = DeployedNetwork(
        model, normalization.shift, normalization.scale, flip=cfg.TEST.FLIP, half=half
    )
    size = tuple(cfg.INPUT.SIZE_TEST)
    with torch.inference_mode():
        embedding_dim = network(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[1]
    card = Card(
        fingerprint=mark,
        size=size,
        interpolation=cfg.INPUT.INTERPOLATION,
        mean=tuple(cfg.INPUT.PIXEL_MEAN),
        std=tuple(cfg.INPUT.PIXEL_STD),
        flip=cfg.TEST.FLIP,
        embedding_dim=embedding_dim,
        precision="half" if half else "float32",
        threshold=read_threshold(cfg.TEST.WEIGHT),
    )
    return network, card


def read_threshold(weights: str | Path) -> float | None:
    """The cosine distance that tools.calibrate stored beside the weights, None where it was not run or not on cosines.

    Raises:
        ValueError: a calibration file without a threshold, or one of other weights.
    """
    path = Path(f"{weights}.calibration.json")
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        threshold, metric, digest = (
            float(found["threshold"]),
            found.get("metric", "cosine"),
            found.get("sha256"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no number named threshold: run tools.calibrate again"
        ) from error
    if digest and digest != hashlib.sha256(Path(weights).read_bytes()).hexdigest():
        raise ValueError(
            f"{path} was made for other weights than {weights}: run tools.calibrate again, or remove it"
        )
    if metric != "cosine":
        logger.warning(
            "%s is about %s distances, embeddings of length 1 have no threshold then", path, metric
        )
        return None
    return threshold


def read_inference_config(config: str | None, words: Sequence[str]):
    """The configuration of a checkpoint (see read_test_config), on whatever device is here unless the words name one."""
    named = [] if "DEVICE" in words[::2] else ["DEVICE", "auto"]
    return read_test_config(config, [*words, *named])
