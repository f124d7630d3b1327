"""What operations on features share: checking them, and handing them to the kernels.

Letters: n images; level k = 1, 2, .. has c_k channels and h_k x w_k positions, of any sizes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Levels = Sequence[Tensor]

VALUES_PER_THREAD = 1 << 19  # of fewer, another thread's start costs more than its help is worth


def normalised(features: Tensor) -> Tensor:
    """Divide each feature vector of (n, c, h, w) by its L2 norm + 1e-12, in at least single precision."""
    # vector_norm, whose gradient at a vector of zeros is zero; that of a square root would not be finite.
    features = _at_least_single(features)
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-12)


def checked(taught: Levels, learnt: Levels) -> tuple[Levels, Levels]:
    """Return the features in at least single precision."""
    if not taught or len(taught) != len(learnt):
        raise ValueError(
            f"taught and learnt must be features of the same levels, got {len(taught)} and {len(learnt)}"
        )
    for t, s in zip(taught, learnt, strict=True):
        if t.ndim != 4 or t.shape != s.shape or t.shape[0] != taught[0].shape[0] or 0 in t.shape[1:]:
            raise ValueError(
                "features must be (n, c, h, w) with c, h and w of at least 1, one n for all levels and one "
                f"shape for taught and learnt, got {tuple(t.shape)} and {tuple(s.shape)}"
            )
    taught, learnt = [_at_least_single(t) for t in taught], [_at_least_single(s) for s in learnt]
    dtypes = {level.dtype for level in (*taught, *learnt)}
    if len(dtypes) != 1 or not taught[0].is_floating_point():
        raise ValueError(f"features must be floating point of one precision, got {sorted(map(str, dtypes))}")
    return taught, learnt


def _at_least_single(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (n, c, h, w) bilinearly (align_corners=False); of the right size already, it stays as it is."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False)


def wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def are_channels_last(*tensors: Tensor) -> bool:
    return all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


def thread_count(*tensors: Tensor) -> int:
    return min(torch.get_num_threads(), 1 + sum(tensor.numel() for tensor in tensors) // VALUES_PER_THREAD)


def arrays(levels: Levels, channels_last: bool) -> list[np.ndarray]:
    return [array(level, channels_last) for level in levels]


def array(features: Tensor, channels_last: bool) -> np.ndarray:
    """Return features as the kernels take them, (n, h, w, c) or (n, c, h, w); a copy if in neither order."""
    if features.requires_grad:
        features = features.detach()
    return (features.permute(0, 2, 3, 1) if channels_last else features.contiguous()).numpy()
