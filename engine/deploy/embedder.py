"""Photographs of any kind and size to embeddings, whatever runs the network."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ember_reid.data.images import INTERPOLATIONS, load_image
from ember_reid.engine.deploy.network import Card
from PIL import Image
from torch import Tensor

Picture = str | Path | Image.Image | np.ndarray | Tensor


class Embedder:
    """`embed(images)` and the `card` that says what the embeddings are.

    Args:
        run: uint8 images [B, 3, H, W] at the card's size -> embeddings [B, D] of length 1.
        card: of the network behind it.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], card: Card) -> None:
        self.run = run
        self.card = card

    def __repr__(self) -> str:
        return f"Embedder({self.card.fingerprint}, {self.card.embedding_dim} dimensions, {self.card.precision})"

    def embed(self, images: Picture | Iterable[Picture], *, batch_size: int = 64) -> Tensor:
        """float32 embeddings [B, D] of length 1 on the CPU; 1 - a @ b is the cosine distance of two.

        Args:
            images: one or many, each a path, a Pillow image, or uint8 RGB values in 0..255: an array [H, W, 3] or a
                tensor [3, H, W]; arrays [B, H, W, 3] and tensors [B, 3, H, W] hold many. Any size: they are resized.
            batch_size: images that are in memory at a time.

        Raises:
            data.images.ImageError: a file that is no image.
            ValueError: values that are not uint8 (the network normalizes them itself), or of another shape.
        """
        pictures, batches = iter(_split(images)), []
        while batch := [self.prepare(picture) for picture in islice(pictures, batch_size)]:
            batches.append(self.run(torch.stack(batch)).float().cpu())
        return torch.cat(batches) if batches else torch.zeros(0, self.card.embedding_dim)

    def prepare(self, picture: Picture) -> Tensor:
        """uint8 [3, H, W] at the size of the card."""
        if isinstance(picture, str | Path):
            return load_image(
                Path(picture), size=self.card.size, interpolation=self.card.interpolation
            )
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(_pixels(picture))
        height, width = self.card.size
        image = image.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), INTERPOLATIONS[self.card.interpolation])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _split(images: Picture | Iterable[Picture]) -> Iterator[Picture] | list[Picture]:
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    return [images] if isinstance(images, str | Path | Image.Image) else iter(images)


def _pixels(picture: np.ndarray | Tensor) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(picture, Tensor):
        array, channels, expected = picture.detach().cpu().numpy(), 0, "[3, H, W]"
    elif isinstance(picture, np.ndarray):
        array, channels, expected = picture, -1, "[H, W, 3]"
    else:
        raise ValueError(
            f"an image is a path, a Pillow image, an array or a tensor, found {type(picture).__name__}"
        )
    if array.dtype != np.uint8:
        raise ValueError(
            f"images hold {array.dtype}, they must be uint8 in 0..255: the network normalizes them itself"
        )
    if array.ndim != 3 or array.shape[channels] != 3:
        raise ValueError(f"an image has the shape {tuple(array.shape)}, it must be {expected}")
    return np.ascontiguousarray(array.transpose(1, 2, 0) if channels == 0 else array)
