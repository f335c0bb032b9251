"""Random erasing (Zhong et al. 2020, arXiv 1708.04896)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ember_reid.data.dataset import upload
from torch import Tensor

# The strong baseline tries 100 times; at 256 x 128 all 20 fail for 1 image in 10^12.
_ERASE_TRIES = 20


@dataclass(frozen=True)
class Boxes:
    """Rectangles [top, bottom) x [left, right) of the images `image`; int64 [M], on the CPU."""

    image: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    def select(self, images: slice) -> "Boxes":
        """The boxes of a range of images, which are numbered from 0."""
        kept = (self.image >= images.start) & (self.image < images.stop)
        return Boxes(
            self.image[kept] - images.start,
            self.top[kept],
            self.bottom[kept],
            self.left[kept],
            self.right[kept],
        )


def draw_boxes(
    num: int,
    size: tuple[int, int],
    prob: float,
    generator: torch.Generator,
    *,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Boxes:
    """Rectangles to erase (Zhong et al. 2020, arXiv 1708.04896): 2 to 40 % of the area.

    The aspect height / width is uniform, as in the strong baseline; torchvision's is log-uniform.

    Args:
        num: images.
        size: (H, W).
        prob: of a rectangle in an image.
        generator: a CPU generator.
        aspect: smallest and largest height / width.
    """
    height, width = size
    chosen = torch.rand(num, generator=generator) < prob
    area = torch.empty(num, _ERASE_TRIES).uniform_(0.02, 0.4, generator=generator) * height * width
    aspects = torch.empty(num, _ERASE_TRIES).uniform_(*aspect, generator=generator)
    # [N, tries]
    heights = (area * aspects).sqrt().round().long()
    widths = (area / aspects).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    # The first try that fits.
    first = fits.int().argmax(dim=1, keepdim=True)
    box_height = heights.gather(1, first).squeeze(1)
    box_width = widths.gather(1, first).squeeze(1)
    place = torch.rand(num, 2, generator=generator)
    image = (chosen & fits.any(dim=1)).nonzero().flatten()
    top = (place[:, 0] * (height - box_height + 1)).long()
    left = (place[:, 1] * (width - box_width + 1)).long()
    return Boxes(
        image, top[image], (top + box_height)[image], left[image], (left + box_width)[image]
    )


def erase_(images: Tensor, boxes: Boxes, fill: Sequence[float]) -> None:
    """Fill the boxes of float [N, 3, H, W] in place: one slice per box."""
    value = upload(torch.tensor(fill, dtype=images.dtype), images.device).view(3, 1, 1)
    corners = (boxes.image, boxes.top, boxes.bottom, boxes.left, boxes.right)
    for i, top, bottom, left, right in torch.stack(corners, dim=1).tolist():
        images[i, :, top:bottom, left:right] = value
