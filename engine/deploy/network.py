"""The deployable network, which maps images to embeddings of length 1.

Letters: B images, H x W pixels, D dimensions of an embedding.
"""

import hashlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Parts of the names of weights that do not affect embeddings.
_UNUSED = frozenset({"classifier", "num_batches_tracked"})
# Settings that are newer than the first fingerprints, and what networks without them do. They are
# left out at these values: otherwise, older galleries and embeddings would be refused.
_ADDED: dict[str, object] = {"MODEL.SIE.TOKENS": "all"}


class DeployedNetwork(nn.Module):
    """Normalization, network and L2 normalization in one module, which `tools.export` writes.

    Args:
        model: images -> ReidOutput; set to evaluation mode.
        shift, scale: float [3, 1, 1]; the model receives (pixels - shift) * scale.
        flip: add the embeddings of an image and its mirror image.
        half: compute the backbone in float16 and the head in float32, as automatic mixed
            precision does.
    """

    shift: Tensor
    scale: Tensor

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
        """[B, 3, H, W] -> float32 [B, D] of length 1."""
        pixels = ((images.to(torch.float32) - self.shift) * self.scale).to(self.dtype)
        # One pass over 2 * B images, so that an exported file contains the network only once.
        if self.flip:
            # [2*B, 3, H, W]
            pixels = torch.cat([pixels, pixels.flip(-1)])
        embeddings = self.model(pixels).embedding.float()
        if self.flip:
            # [2*B, D] -> [2, B, D] -> [B, D]
            embeddings = embeddings.unflatten(0, (2, -1)).sum(dim=0)
        return F.normalize(embeddings)


def fingerprint(weights: Mapping[str, Tensor], settings: Mapping[str, object]) -> str:
    """16 hexadecimal digits (of SHA-256) that identify a network and its settings.

    They change with every weight and every setting that affects embeddings.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        if not _UNUSED.isdisjoint(name.split(".")):
            continue
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    for key in sorted(settings):
        if key in _ADDED and settings[key] == _ADDED[key]:
            continue
        digest.update(f"{key} {settings[key]!r}\n".encode())
    return digest.hexdigest()[:16]


def check_finite(weights: Mapping[str, Tensor], source: object) -> None:
    """Raise ValueError if a weight that affects embeddings is NaN or infinite."""
    damaged = [
        name
        for name, tensor in weights.items()
        if _UNUSED.isdisjoint(name.split(".")) and not tensor.isfinite().all()
    ]
    if damaged:
        raise ValueError(
            f"{source} has NaN or infinite values in {len(damaged)} of its {len(weights)} tensors "
            f"(first: {damaged[0]}): use another checkpoint of the run"
        )
