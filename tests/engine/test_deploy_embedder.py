import pytest
import torch
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.engine.deploy.network import fingerprint

from tests.helpers.models import build

METADATA = ExportMetadata(
    fingerprint="0" * 16,
    size=(2, 2),
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    flip=False,
    embedding_dim=2,
)
IMAGES = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)


def embed(*rows: tuple[float, ...]) -> torch.Tensor:
    return Embedder(lambda images: torch.tensor(rows), METADATA).embed_batch(IMAGES)


def test_embeddings_of_length_1_pass():
    assert embed((0.6, 0.8), (1.0, 0.0)).tolist() == torch.tensor([[0.6, 0.8], [1, 0]]).tolist()


@pytest.mark.parametrize("row", [(float("nan"), 1.0), (float("inf"), 0.0), (0.0, 0.0), (3.0, 4.0)])
def test_invalid_embeddings_are_refused(row):
    with pytest.raises(ValueError, match="returned 1 of 2 embeddings that are not finite or not"):
        embed((0.6, 0.8), row)


def test_the_dimension_must_be_that_of_the_metadata():
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but its metadata states \(2, 2\)"):
        embed((1.0, 0.0, 0.0), (1.0, 0.0, 0.0))


def test_fingerprints_stay_the_same():
    # Galleries and files of embeddings contain fingerprints. If a new architecture setting changes
    # this value, name the setting and its default in engine/deploy/network.py.
    settings = build(device="meta").architecture
    weights = {"w": torch.arange(3.0)}
    assert fingerprint(weights, settings) == "68954ce320e5b285"
    assert fingerprint(weights, {**settings, "MODEL.SIE.TOKENS": "class"}) != "68954ce320e5b285"
    assert fingerprint(weights, {**settings, "MODEL.POOL.NAME": "max"}) != "68954ce320e5b285"
