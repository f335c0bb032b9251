"""Compute embeddings from images of any kind and size, with any runtime."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ember_reid.data.images import INTERPOLATIONS, load_image
from ember_reid.engine.deploy.metadata import ExportMetadata
from PIL import Image
from torch import Tensor

ImageLike = str | Path | Image.Image | np.ndarray | Tensor
# Runtimes in float16 and int8 round.
_LENGTH_TOLERANCE = 1e-2


class Embedder:
    """A network with its preprocessing: `embed(images)`.

    Args:
        forward: uint8 images [B, 3, H, W] at the size in the metadata -> embeddings [B, D] of
            length 1.
        metadata: describes the network and its preprocessing.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], metadata: ExportMetadata) -> None:
        self.forward = forward
        self.metadata = metadata

    def __repr__(self) -> str:
        metadata = self.metadata
        return (
            f"Embedder({metadata.fingerprint}, {metadata.embedding_dim} dimensions, "
            f"{metadata.precision})"
        )

    def embed(self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 64) -> Tensor:
        """float32 embeddings [B, D] of length 1 on the CPU.

        The cosine distance of two embeddings is 1 - a @ b.

        Args:
            images: one image or several. An image is a path, a Pillow image, or uint8 RGB values
                in 0..255: an array [H, W, 3] or a tensor [3, H, W]. Arrays [B, H, W, 3] and
                tensors [B, 3, H, W] contain several. Images of any size are resized.
            batch_size: number of images in memory at a time.

        Raises:
            data.images.ImageError: a file is not a readable image.
            ValueError: the values are not uint8, the shape is invalid, or the network returns
                invalid embeddings.
        """
        remaining = iter(_split(images))
        batches = []
        while batch := [self.prepare(image) for image in islice(remaining, batch_size)]:
            batches.append(self.embed_batch(torch.stack(batch)))
        return torch.cat(batches) if batches else torch.zeros(0, self.metadata.embedding_dim)

    def embed_batch(self, images: Tensor) -> Tensor:
        """Prepared images uint8 [B, 3, H, W] -> float32 [B, D] of length 1 on the CPU.

        Raises:
            ValueError: the embeddings are not finite, not of length 1, or of another dimension.
        """
        embeddings = self.forward(images).float().cpu()
        expected = (len(images), self.metadata.embedding_dim)
        if embeddings.shape != expected:
            raise ValueError(
                f"the network returned embeddings of shape {tuple(embeddings.shape)}, "
                f"but its metadata states {expected}"
            )
        lengths = embeddings.norm(dim=1)
        # Comparisons with NaN are false.
        num_invalid = int((~((lengths - 1).abs() <= _LENGTH_TOLERANCE)).sum())
        if num_invalid:
            raise ValueError(
                f"the network returned {num_invalid} of {len(images)} embeddings that are not "
                "finite or not of length 1: its weights are damaged, or half precision overflows"
            )
        return embeddings

    def prepare(self, image: ImageLike) -> Tensor:
        """uint8 [3, H, W] at the size in the metadata."""
        size, interpolation = self.metadata.size, self.metadata.interpolation
        if isinstance(image, str | Path):
            return load_image(Path(image), size=size, interpolation=interpolation)
        if not isinstance(image, Image.Image):
            image = Image.fromarray(_to_array(image))
        height, width = size
        image = image.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), INTERPOLATIONS[interpolation])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _split(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    return [images] if isinstance(images, str | Path | Image.Image) else images


def _to_array(image: np.ndarray | Tensor) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(image, Tensor):
        array, channel_axis, expected = image.detach().cpu().numpy(), 0, "[3, H, W]"
    elif isinstance(image, np.ndarray):
        array, channel_axis, expected = image, -1, "[H, W, 3]"
    else:
        raise ValueError(
            "an image must be a path, a Pillow image, an array or a tensor, "
            f"found {type(image).__name__}"
        )
    if array.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 in 0..255, found {array.dtype}: "
            "the network normalizes them itself"
        )
    if array.ndim != 3 or array.shape[channel_axis] != 3:
        raise ValueError(f"an image has the shape {array.shape}, it must be {expected}")
    return np.ascontiguousarray(array.transpose(1, 2, 0) if channel_axis == 0 else array)
