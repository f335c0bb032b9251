"""Classification losses. B: images, C: identities."""

import torch.nn.functional as F
from ember_reid.layers.numerics import as_float
from torch import Tensor

SMOOTH_OVER = ("all", "others")


def smoothed_cross_entropy(
    logits: Tensor, pids: Tensor, *, epsilon: float, smooth_over: str = "all"
) -> Tensor:
    """Cross-entropy with label smoothing, averaged over the batch (Szegedy et al. 2016, section 7).

    Args:
        logits: [B, C].
        pids: [B], class indices.
        epsilon: probability mass taken from the true class; 0 is the plain cross-entropy.
        smooth_over: the classes that receive this mass. "all": epsilon / C for every class,
            including the true one, as in the paper. "others": epsilon / (C - 1) for every wrong
            class, as in FastReID.

    Raises:
        ValueError: unknown `smooth_over`.
    """
    if smooth_over not in SMOOTH_OVER:
        raise ValueError(f"smooth_over is {smooth_over!r}; choose one of {', '.join(SMOOTH_OVER)}")
    log_p = F.log_softmax(as_float(logits), dim=1)
    true = log_p.gather(1, pids[:, None]).squeeze(1)
    if smooth_over == "all":
        smoothing = log_p.mean(dim=1)
    else:
        smoothing = (log_p.sum(dim=1) - true) / max(logits.shape[1] - 1, 1)
    return -((1 - epsilon) * true + epsilon * smoothing).mean()
