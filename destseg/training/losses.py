"""The three losses of DeSTSeg; the segmentation losses take logits, which lose nothing by saturation.

Letters: n inputs of h x w pixels, h' x w' positions of a network's output.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_loss(distances: Sequence[Tensor], roi: Tensor | None = None) -> Tensor:
    """Return the student's loss from the cosine distances (n, 1, h_k, w_k) of all levels.

    Each level's distances are averaged over positions, and summed over levels AND inputs: the loss and its
    gradient grow with the batch. The published rate 0.4 belongs to batches of 32.

    Args:
        distances: each level's, floating point.
        roi: (n, 1, h, w), 1 where pixels count, 0 elsewhere; by default all count. The average then is over
            the batch, and each position weighs as much as the share of its pixels that count.
    """
    zero = distances[0].new_zeros(())
    if roi is not None:
        return sum((len(roi) * weighted_mean(distance, roi) for distance in distances), start=zero)
    return sum((distance.sum() / distance.shape[-2:].numel() for distance in distances), start=zero)


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 4.0, roi: Tensor | None = None) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p, where p is the probability of the true class.

    Args:
        logits: any shape, floating point; half precision is computed in float32.
        mask: the same shape, 0 or 1.
        gamma: focusing exponent, at least 0. Source: Lin et al., arXiv 1708.02002, without its alpha.
        roi: as for `cosine_loss`; logits must then be (n, 1, h', w').
    """
    logits = at_least_single(logits)
    minus_log_p = F.softplus(logits * (1 - 2 * mask.to(logits.dtype)))
    # 1 - p = e^(log(1 - p)): a power of a saturated sigmoid would have no gradient for gamma below 1.
    minus_log_rest = F.softplus(logits * (2 * mask.to(logits.dtype) - 1))
    return weighted_mean(torch.exp(-gamma * minus_log_rest) * minus_log_p, roi)


def l1_loss(logits: Tensor, mask: Tensor, roi: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference between probability and mask; arguments as for `focal_loss`."""
    return weighted_mean((at_least_single(logits).sigmoid() - mask.float()).abs(), roi)


def segmentation_loss(logits: Tensor, mask: Tensor, roi: Tensor | None = None) -> Tensor:
    """Return the sum of focal and l1 loss.

    Args:
        logits: (n, 1, h', w') floating point.
        mask: (n, 1, h, w), 0 or 1, at the input's size.
        roi: (n, 1, h, w), 1 where pixels count, 0 elsewhere; by default all count.
    """
    target = shrunk_mask(mask, logits.shape[-2:])
    return focal_loss(logits, target, roi=roi) + l1_loss(logits, target, roi)


def weighted_mean(values: Tensor, roi: Tensor | None) -> Tensor:
    """Return the mean of values (n, 1, h', w'), weighted by an ROI (n, 1, h, w); 0 where nothing counts.

    Each value weighs as much as the share of its pixels that count. Without an ROI all weigh the same.
    """
    if roi is None:
        return values.mean()
    weights = F.interpolate(roi.to(values.dtype), size=tuple(values.shape[-2:]), mode="area")
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(values.dtype).tiny)


def shrunk_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a mask (n, 1, h, w) bilinearly (align_corners=False); values of 0.5 and above become 1."""
    mask = F.interpolate(mask.float(), size=tuple(size), mode="bilinear", align_corners=False)
    return (mask >= 0.5).float()


def at_least_single(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
