"""Every registered network exports, and the file gives the same embeddings at any batch size.

`make test` exports one network of each kind, `make test-exports` all of them (minutes).
"""

from pathlib import Path

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.config.checks import Choices
from ember_reid.config.schema import CHECKS
from ember_reid.engine.deploy.export import write_network
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.engine.deploy.network import DeployedNetwork
from ember_reid.engine.deploy.runtimes import open_exported
from ember_reid.engine.deploy.targets import FORMATS
from ember_reid.layers.pooling import POOLINGS
from ember_reid.modeling.build import HEADS
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tests.helpers.models import NAMES, build, randomize

SIZE = (64, 32)
CPU = torch.device("cpu")
SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "exported-program": ".pt2"}
# For the backbones that have the switch.
NARROW = {"MODEL__BACKBONE__WIDTH": 0.125}
MGN = {
    "name": "resnet50_ibn_a",
    **NARROW,
    "MODEL__HEAD__NAME": "mgn",
    "MODEL__HEAD__EMBEDDING_DIM": 16,
}

# The words of a model by what is special about it. Backbones:
NETWORKS = {
    name: {"name": name, **(NARROW if name.startswith(("resnet", "se_resnet")) else {})}
    for name in NAMES
}
# Transformers and others of timm:
TIMM = {
    name: {"name": f"timm:{name}", "INPUT__SIZE_TRAIN": SIZE, "INPUT__SIZE_TEST": SIZE}
    for name in (
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "convnext_atto",
        "repvit_m0_9",
    )
}
# Heads, and what else changes the graph:
HEADS_AND_SWITCHES = {
    "mgn": MGN,
    **{f"pooling {name}": {"name": "tiny", "MODEL__POOL__NAME": name} for name in POOLINGS},
    "gem with a fixed exponent": {
        "name": "tiny",
        "MODEL__POOL__NAME": "gem",
        "MODEL__POOL__GEM_LEARNABLE": False,
    },
    "without a neck": {"name": "tiny", "MODEL__HEAD__NECK": "none"},
    "before the neck": {"name": "tiny", "TEST__NECK_FEAT": "before"},
    "cosine classifier": {"name": "tiny", "MODEL__HEAD__CLASSIFIER": "cosine"},
    "linear reduction": {"name": "tiny", "MODEL__HEAD__EMBEDDING_DIM": 6},
    "reduction with norm": {
        "name": "tiny", "MODEL__HEAD__EMBEDDING_DIM": 6, "MODEL__HEAD__REDUCTION": "bn_relu"
    },
    "non-local": {"name": "resnet18", **NARROW, "MODEL__BACKBONE__NON_LOCAL": "(0,1,1,0)"},
}  # fmt: skip
JPM = {"jpm": {**TIMM["vit_tiny_patch16_224"], "MODEL__HEAD__NAME": "jpm"}}
EVERYTHING = NETWORKS | HEADS_AND_SWITCHES | TIMM | JPM
# One of each kind; a few seconds each, nearly all of it torch's exporter.
IN_SHORT = {
    "onnx": ("resnet18_ibn_a", "pooling gem"),
    "torchscript": ("osnet_x0_25", "mgn", "non-local"),
    "exported-program": ("mobilenet_v2", "without a neck"),
}


def cases():
    """(target, what is special) pairs; those that `make test` leaves out are marked."""
    for target, shortened in IN_SHORT.items():
        for special in EVERYTHING:
            marks = () if special in shortened else pytest.mark.exports
            yield pytest.param(target, special, id=f"{target}: {special}", marks=marks)


def deployed(words: dict[str, object]) -> DeployedNetwork:
    """A network with random weights and matching batch-norm statistics; it averages both flips."""
    words = dict(words)
    model = build(words.pop("name"), **words)
    randomize(model)
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    for norm in norms:
        # Statistics of the last batch only.
        norm.momentum = 1.0
    shift, scale = torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 0.02)
    with torch.no_grad():
        model.train()((pictures(8) - shift) * scale)
    return DeployedNetwork(model, shift, scale, flip=True)


def describe(network: DeployedNetwork) -> ExportMetadata:
    gray = (0.47, 0.47, 0.47)
    dim = network(pictures(1)).shape[1]
    return ExportMetadata(
        "0123456789abcdef", SIZE, "bilinear", gray, gray, True, dim, threshold=0.25
    )


def pictures(count: int) -> Tensor:
    """uint8 [count, 3, H, W] that differ in noise, brightness and color."""
    rng = torch.Generator().manual_seed(count)
    noise = torch.randint(0, 120, (count, 3, *SIZE), generator=rng)
    return (noise + torch.randint(0, 136, (count, 3, 1, 1), generator=rng)).to(torch.uint8)


@pytest.mark.parametrize(("target", "special"), list(cases()))
def test_an_exported_file_gives_the_embeddings_of_the_network(
    tmp_path: Path, target: str, special: str
):
    for package in FORMATS[target].packages:
        pytest.importorskip(package, reason="the extra `export` is not installed")
    network, path = deployed(EVERYTHING[special]), tmp_path / f"x{SUFFIXES[target]}"
    described = describe(network)
    write_network(network, described, path, format=target)
    exported = open_exported(path, device=CPU, trust=True)
    assert exported.metadata == described
    for count in (1, 3):
        with torch.inference_mode():
            expected = network(pictures(count))
        found = exported.embed_batch(pictures(count))
        assert found.shape == expected.shape and found.dtype == torch.float32
        assert cosine_similarity(found, expected).min() > 0.9999
    # Cosine distance of the two images that differ most.
    apart = (1 - expected @ expected.T).max()
    assert apart > 1e-2, "all images look alike to this network: the comparison above says nothing"
    assert (found - expected).square().sum(dim=1).max() / 2 < apart / 100


def test_all_that_is_registered_is_in_the_list():
    words = list(EVERYTHING.values())
    assert set(NAMES) <= {entry["name"] for entry in words}
    # The heads of CLIP-ReID and PASS are for loaded files; their export is not tested here yet.
    assert set(HEADS) - {"clip", "pass"} == {
        entry.get("MODEL__HEAD__NAME", "global") for entry in words
    }
    assert set(POOLINGS) == {entry.get("MODEL__POOL__NAME", "avg") for entry in words}
    # MODEL.HEAD.METRIC_FEATURE is not in the list, because it changes only the losses.
    keys = ["NECK", "REDUCTION", "CLASSIFIER"]
    for key in [*(f"MODEL.HEAD.{key}" for key in keys), "TEST.NECK_FEAT"]:
        default = load_config(None)
        for part in key.split("."):
            default = default[part]
        check = CHECKS[key]
        assert isinstance(check, Choices)
        found = {entry.get(key.replace(".", "__"), default) for entry in words}
        assert set(check.values) == found, key
    assert all(special in EVERYTHING for shortened in IN_SHORT.values() for special in shortened)
