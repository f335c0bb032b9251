"""MixStyle: mixed feature statistics of images (Zhou et al. 2021, arXiv 2104.02008).

N: images, C: channels, H, W: height and width of the feature maps.
"""

import torch
from ember_reid.layers.numerics import as_float, no_autocast
from torch import Tensor, nn


def mix_styles(maps: Tensor, weights: Tensor, partners: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Replace the style of each image by a mixture with that of another image (eq. 3 to 5).

    The style is the mean mu and the standard deviation sigma of each channel over all positions.
    The result is (x - mu) / sigma * sigma_mix + mu_mix with mu_mix = w mu + (1 - w) mu_partner, and
    sigma_mix likewise. No gradient flows through the statistics.

    The variance has the divisor H * W - 1, as in the authors' program; the paper divides by H * W.

    Args:
        maps: [N, C, H, W] with at least two positions.
        weights: [N], w in [0, 1].
        partners: int64 [N], the other image of each image.
        eps: added to the variance.

    Returns:
        [N, C, H, W] in the dtype of `maps`; the statistics are computed in float32.
    """
    with no_autocast(maps):
        values = as_float(maps)
        # [N, C, 1, 1]
        statistics = values.detach()
        mean = statistics.mean(dim=(2, 3), keepdim=True)
        std = (statistics.var(dim=(2, 3), keepdim=True) + eps).sqrt()
        own = weights.to(values.dtype).view(-1, 1, 1, 1)
        mixed_mean = mean * own + mean[partners] * (1 - own)
        mixed_std = std * own + std[partners] * (1 - own)
        return ((values - mean) / std * mixed_std + mixed_mean).to(maps.dtype)


def draw_partners(
    num_images: int, *, domains: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    """A random permutation: the partner of each image for `mix_styles`.

    With domains, an image and its partner are of different domains, unless more than half of the
    images are of one domain. Images are ordered by domain, in random order within each domain. The
    partner is half of the batch further on in another such order. For two domains of equal size,
    this is the distribution of the authors' program.

    Args:
        num_images: N.
        domains: int64 [N], the domain of each image; None: partners are drawn among all images.
        device: of the result, without domains.

    Returns:
        int64 [N], drawn with torch's generator.
    """
    if domains is None:
        return torch.rand(num_images, device=device).argsort()
    # All operations have static shapes, so that a CUDA graph may contain them.
    first, second = _order_by_domain(domains), _order_by_domain(domains)
    partners = torch.empty_like(first)
    return partners.scatter_(0, first, second.roll(-(num_images // 2)))


def _order_by_domain(domains: Tensor) -> Tensor:
    """int64 [N]: the images in order of their domains, at random within a domain."""
    shuffled = torch.rand(len(domains), device=domains.device).argsort()
    return shuffled[domains[shuffled].argsort(stable=True)]


class MixStyle(nn.Module):
    """Mix the styles of a batch of feature maps in training; the identity in evaluation.

    With the probability `prob`, the styles of all images of the batch are mixed. Weights are drawn
    from Beta(alpha, alpha). All random numbers are torch's, whose seed is set in each iteration.

    Attributes:
        by_domain: mix with images of other domains only; see `draw_partners`.
        domains: int64 [N], the domain of each image of the next batch; needed if `by_domain`.
    """

    def __init__(self, *, prob: float, alpha: float, by_domain: bool = False) -> None:
        super().__init__()
        self.prob, self.alpha, self.by_domain = prob, alpha, by_domain
        self.domains: Tensor | None = None

    def extra_repr(self) -> str:
        return f"prob={self.prob}, alpha={self.alpha}, by_domain={self.by_domain}"

    def forward(self, maps: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if not self.training:
            return maps
        num_images, device = len(maps), maps.device
        # The probability is applied on the device: a CUDA graph cannot branch.
        is_mixed = torch.rand((), device=device) < self.prob
        alpha = torch.full((num_images,), self.alpha, device=device)
        weights = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
        domains = self.domains if self.by_domain else None
        partners = draw_partners(num_images, domains=domains, device=device)
        return torch.where(is_mixed, mix_styles(maps, weights, partners), maps)
