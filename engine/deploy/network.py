"""The network that leaves the workshop: uint8 images in, embeddings of length 1 out, and the card that travels with it.

Letters: B images, H x W pixels, D dimensions of an embedding.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CARD_KEY = "ember-reid"  # where a card lies in the metadata of an exported file
UNUSED = ("classifier", "num_batches_tracked")  # parts of weight names that no embedding depends on


class Card(NamedTuple):
    """What a file of a network says about itself.

    Attributes:
        fingerprint: of the weights and the preprocessing; embeddings compare with those of the same fingerprint.
        size: (H, W) that images are resized to before they enter.
        interpolation: how, antialiased.
        mean, std: of RGB values in 0..1; applied inside the network.
        flip: the embedding is the mean of those of an image and its mirror image.
        embedding_dim: D.
        precision: float32, half or int8.
        threshold: cosine distance up to which two images show the same identity; None: not calibrated.
    """

    fingerprint: str
    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    embedding_dim: int
    precision: str = "float32"
    threshold: float | None = None
    takes: str = "uint8 RGB images [B, 3, H, W], 0..255, not normalized"
    gives: str = "float32 embeddings [B, D] of length 1"

    def to_json(self) -> str:
        return json.dumps(self._asdict())


def read_card(text: str) -> Card:
    """The card in the metadata of an exported file; fields that this version does not know are ignored.

    Raises:
        ValueError: it is none.
    """
    try:
        fields = {key: value for key, value in json.loads(text).items() if key in Card._fields}
        return Card(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in fields.items()
            }
        )
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the metadata is no card of an exported network: {error}") from error


class DeployedNetwork(nn.Module):
    """Normalization, network and L2 normalization in one; what `tools.export` writes.

    Args:
        model: images -> ReidOutput, in evaluation mode from now on.
        shift, scale: float [3, 1, 1]; the network sees (pixels - shift) * scale.
        flip: sum the embeddings of an image and its mirror image.
        half: the backbone computes in float16, the head in float32, as under automatic mixed precision.
    """

    def __init__(
        self,
        model: nn.Module,
        shift: Tensor,
        scale: Tensor,
        *,
        flip: bool = False,
        half: bool = False,
    ) -> None:
        super().__init__()
        if half:
            model.backbone.half()
        self.model = model
        self.flip = flip
        self.dtype = torch.float16 if half else torch.float32
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, D] of length 1."""
        pixels = ((images.to(torch.float32) - self.shift) * self.scale).to(self.dtype)
        if self.flip:  # one pass of twice the images: an exported file holds the network once
            pixels = torch.cat([pixels, pixels.flip(-1)])  # [2*B, 3, H, W]
        embeddings = self.model(pixels).embedding.float()
        if self.flip:
            embeddings = embeddings.unflatten(0, (2, -1)).sum(
                dim=0
            )  # [2*B, D] -> [2, B, D] -> [B, D]
        return F.normalize(embeddings)


def fingerprint(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """16 hexadecimal digits (of SHA-256) that change with any weight that an embedding depends on, and with any setting."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        if set(name.split(".")) & set(UNUSED):
            continue
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    for key in sorted(settings):
        digest.update(f"{key} {settings[key]!r}\n".encode())
    return digest.hexdigest()[:16]
