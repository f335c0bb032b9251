"""Create Embedders from checkpoints and exported files."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ember_reid.config import Config
from ember_reid.data.build import build_normalization
from ember_reid.engine.build import build_device, build_trained_model, read_test_config
from ember_reid.engine.deploy.detect import detect_format
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.metadata import INPUTS, ExportMetadata
from ember_reid.engine.deploy.network import DeployedNetwork, fingerprint
from ember_reid.engine.deploy.runtimes import create_embedder, open_exported
from ember_reid.engine.deploy.targets import adapt_normalization
from ember_reid.modeling.lora import merge_adapters

logger = logging.getLogger("ember.deploy")


def load_model(
    path: str | Path,
    *overrides: object,
    config: str | None = None,
    device: str = "auto",
    half: bool = False,
    trust: bool = False,
) -> Embedder:
    """A trained network, ready to use: `load_model("best.pt").embed(["a.jpg", "b.jpg"])`.

    The format is detected from the content of the file, not from its name. Checkpoints,
    safetensors files and ONNX files are read without executing code.

    Args:
        path: a checkpoint, or a file written by tools.export (ONNX, TorchScript, torch.export).
        overrides: alternating keys and values of the configuration, such as "TEST.FLIP", True;
            for checkpoints only.
        config: the recipe, for weight files that do not contain one.
        device: auto | cpu | cuda.
        half: compute the backbone in float16; for checkpoints only.
        trust: also load TorchScript files and exported programs. These can execute any code on
            this machine.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is of another architecture, has NaN weights, or is a
            program and `trust` is False.
    """
    path = Path(path)
    if detect_format(path) == "checkpoint":
        words = ["TEST.WEIGHT", str(path), "DEVICE", device, *map(str, overrides)]
        return build_embedder(read_test_config(config, words), half=half)
    if overrides or config or half:
        raise ValueError(
            f"{path} is an exported network, whose configuration is fixed: "
            "change the configuration of the checkpoint and export it again"
        )
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return open_exported(path, device=torch.device("cuda" if use_cuda else "cpu"), trust=trust)


def build_embedder(cfg: Config, *, half: bool = False) -> Embedder:
    """Create the Embedder of TEST.WEIGHT on the configured device."""
    network, metadata = build_deployed_network(cfg, half=half)
    return create_embedder(network, metadata, build_device(cfg))


def build_deployed_network(
    cfg: Config, *, half: bool = False, pixels: str = "uint8"
) -> tuple[DeployedNetwork, ExportMetadata]:
    """The network of TEST.WEIGHT including its preprocessing, on the CPU, and its metadata.

    Args:
        half: compute the backbone in float16.
        pixels: how its input will be normalized, a key of metadata.PIXELS.

    Raises:
        FileNotFoundError, ValueError: see load_model.
    """
    model = build_trained_model(cfg, torch.device("cpu"))
    architecture = cast(dict[str, Any], model.architecture)
    settings = {**architecture, "TEST.FLIP": cfg.TEST.FLIP}
    digest = fingerprint(model.state_dict(), settings)
    merge_adapters(model)
    normalization = build_normalization(cfg)
    shift, scale = adapt_normalization(normalization.shift, normalization.scale, pixels)
    network = DeployedNetwork(model, shift, scale, flip=cfg.TEST.FLIP, half=half)
    height, width = cfg.INPUT.SIZE_TEST
    with torch.inference_mode():
        embeddings = network(torch.zeros(1, 3, height, width, dtype=torch.uint8))
    metadata = ExportMetadata(
        fingerprint=digest,
        size=(height, width),
        interpolation=cfg.INPUT.INTERPOLATION,
        mean=tuple(cfg.INPUT.PIXEL_MEAN),
        std=tuple(cfg.INPUT.PIXEL_STD),
        flip=cfg.TEST.FLIP,
        embedding_dim=embeddings.shape[1],
        precision="half" if half else "float32",
        threshold=read_threshold(cfg.TEST.WEIGHT),
        pixels=pixels,
        input=INPUTS[pixels],
    )
    return network, metadata


def read_threshold(weights: str | Path) -> float | None:
    """The cosine distance that tools.calibrate stored next to the weights.

    Returns:
        None if there is no calibration, or if it is for another metric.

    Raises:
        ValueError: the calibration has no threshold, or belongs to other weights.
    """
    path = Path(f"{weights}.calibration.json")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        threshold = float(content["threshold"])
        metric, digest = content.get("metric", "cosine"), content.get("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not contain a numeric threshold: run tools.calibrate again"
        ) from error
    if digest and digest != hashlib.sha256(Path(weights).read_bytes()).hexdigest():
        raise ValueError(
            f"{path} does not belong to the weights {weights}: "
            "run tools.calibrate again, or remove the file"
        )
    if metric != "cosine":
        logger.warning(
            "%s is for %s distances: embeddings of length 1 have no threshold", path, metric
        )
        return None
    return threshold


def read_inference_config(config: str | None, words: Sequence[str]) -> Config:
    """The configuration of a checkpoint, see read_test_config; DEVICE is auto unless given."""
    device = [] if "DEVICE" in words[::2] else ["DEVICE", "auto"]
    return read_test_config(config, [*words, *device])
