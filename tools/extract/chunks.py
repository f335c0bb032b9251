"""Embed many images, one part at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.tools.common.inputs import ImageFile
from ember_reid.tools.extract.command import CHUNK, embed_images
from tqdm import tqdm


def embed_chunks(
    images: Sequence[ImageFile], embedder: Embedder, batch_size: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Embed images in parts, with a progress bar on terminals.

    Yields:
        The position of the first image of the part, and its embeddings; see `embed_images`.
    """
    # None: shown only on terminals.
    with tqdm(total=len(images), unit="image", disable=None, leave=False) as bar:
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            yield start, embed_images(chunk, embedder, batch_size)
            bar.update(len(chunk))
