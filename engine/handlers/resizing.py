"""Progressive resizing: small training images first, large ones at the end."""

from collections.abc import Sequence

from ember_reid.engine.events import current_batch, set_batch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def resized_sizes(size: Size, scales: Sequence[float]) -> list[Size]:
    """`size` (H, W) multiplied by each of the scales, in whole pixels."""
    height, width = size
    return [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]


def resize_images(images: Tensor, size: Size) -> Tensor:
    """Resize float images [..., 3, H, W] with antialiasing; those of `size` are returned as is."""
    if tuple(images.shape[-2:]) == size:
        return images
    # [..., 3, H, W] -> [N, 3, H, W]
    flat = images.flatten(0, -4)
    resized = F.interpolate(flat, size, mode="bilinear", antialias=True)
    return resized.unflatten(0, images.shape[:-3])


class ProgressiveResizing:
    """Trainer, ITERATION_STARTED, after the augmentation: resizes the images of the batch.

    A small image costs less time, and a network that was trained on small images first needs few
    iterations on large ones (Howard 2018, fastai's entry in DAWNBench; Tan and Le 2021,
    EfficientNetV2, section 4).

    Args:
        sizes: (H, W) of the phases, in their order.
        steps: increasing numbers of iterations, one fewer than sizes: the phase after `sizes[i]`
            starts when steps[i] iterations are done.
    """

    def __init__(self, sizes: Sequence[Size], steps: Sequence[int]):
        self.sizes, self.steps = sizes, steps

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = current_batch(engine)
        size = self.size(engine.state.iteration)
        set_batch(engine, batch._replace(images=resize_images(batch.images, size)))

    def size(self, iteration: int) -> Size:
        """The size in an iteration, counted from 1."""
        return self.sizes[sum(iteration > step for step in self.steps)]
