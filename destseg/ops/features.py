"""What the operations on features share: checks, and conversions for the kernels.

Letters: n images; level k = 1, 2, .. has c_k channels and h_k x w_k positions, of any sizes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Levels = Sequence[Tensor]

HALVES = (torch.float16, torch.bfloat16)
VALUES_PER_THREAD = 1 << 19  # with fewer values, starting another thread costs more than it saves


def unit_vectors(features: Tensor) -> Tensor:
    """Divide each feature vector of (n, c, h, w) by its L2 norm + 1e-12, in at least single precision."""
    # The gradient of vector_norm at a vector of zeros is zero; that of a square root would not be finite.
    features = _at_least_single(features)
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-12)


def check(taught: Levels, learnt: Levels) -> None:
    """Raise ValueError unless these are features of the same levels in one precision (half is as single)."""
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
    dtypes = {torch.float32 if level.dtype in HALVES else level.dtype for level in (*taught, *learnt)}
    if len(dtypes) != 1 or not taught[0].is_floating_point():
        raise ValueError(f"features must be floating point of one precision, got {sorted(map(str, dtypes))}")


def to_single(levels: Levels) -> list[Tensor]:
    """Return features in at least single precision."""
    return [_at_least_single(level) for level in levels]


def _at_least_single(features: Tensor) -> Tensor:
    return features.float() if features.dtype in HALVES else features


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (n, c, h, w) bilinearly (align_corners=False); return the tensor itself if the size is right."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False)


def wants_gradient(*values: Tensor) -> bool:
    return torch.is_grad_enabled() and any(value.requires_grad for value in values)


def are_channels_last(*values: Tensor) -> bool:
    return all(value.is_contiguous(memory_format=torch.channels_last) for value in values)


def thread_count(*values: Tensor) -> int:
    return min(torch.get_num_threads(), 1 + sum(value.numel() for value in values) // VALUES_PER_THREAD)


def arrays(levels: Levels, channels_last: bool) -> list[np.ndarray]:
    return [array(level, channels_last) for level in levels]


def array(features: Tensor, channels_last: bool) -> np.ndarray:
    """Return features as the kernels take them: (n, h, w, c) channels last, or else (n, c, h, w)."""
    if features.requires_grad:
        features = features.detach()
    return (features.permute(0, 2, 3, 1) if channels_last else features.contiguous()).numpy()
