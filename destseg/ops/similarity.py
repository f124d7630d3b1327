"""Similarity of teacher and student features on several levels.

Letters: n images; level k = 1, 2, .. has c_k channels and h_k x w_k positions, of any sizes. The operations
take features as the networks give them and bring every vector to unit length themselves: it is divided by
(its L2 norm + 1e-12), at its own level, before any resizing. Half precision is computed with in float32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from destseg.ops import _native

Levels = Sequence[Tensor]

HALVES = (torch.float16, torch.bfloat16)
VALUES_PER_THREAD = 1 << 19  # of fewer, another thread's start costs more than its help is worth


def normalised(features: Tensor) -> Tensor:
    """Divide each feature vector of (n, c, h, w) by its L2 norm + 1e-12, in at least single precision."""
    # vector_norm, whose gradient at a vector of zeros is zero; that of a square root would not be finite.
    features = _at_least_single(features)
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-12)


def similarity_input(taught: Levels, learnt: Levels, dtype: torch.dtype | None = None) -> Tensor:
    """Return the segmentation network's input: minus the products of teacher and student, level by level.

    The sign is the published one, so that published weights keep their meaning.

    Args:
        taught: the teacher's features of each level, (n, c_k, h_k, w_k) floating point.
        learnt: the student's, of the same shapes and dtype.
        dtype: of the result; by default float64 for features of that, else float32.

    Returns:
        (n, sum of c_k, h_1, w_1): the element-wise products of unit vectors, each level resized bilinearly
        (align_corners=False) to the first one's size; in channels-last memory order if all features are.

    Raises:
        ValueError: there are no levels, or shapes or dtypes do not fit together.

    Equivalent to: `similarity_input_ref`. Source: DeSTSeg (arXiv 2211.11317), section 3.3.
    """
    _check(taught, learnt)
    if _wants_gradient(*taught, *learnt):
        return similarity_input_ref(taught, learnt, dtype)
    if _native.usable_on_gpu(*taught, *learnt):
        return _similarity_input_on_gpu(taught, learnt, dtype)
    taught, learnt = _in_single(taught), _in_single(learnt)
    if not _native.usable(*taught, *learnt):
        return similarity_input_ref(taught, learnt, dtype)
    channels_last = _channels_last(*taught, *learnt)
    output = _empty_input(taught, taught[0].dtype, channels_last)
    _native.kernels.similarity_input(
        _arrays(taught, channels_last),
        _arrays(learnt, channels_last),
        channels_last,
        _threads(output),
        _array(output, channels_last),
    )
    return output if dtype is None else output.to(dtype)


def similarity_input_ref(taught: Levels, learnt: Levels, dtype: torch.dtype | None = None) -> Tensor:
    """The definition of `similarity_input`, on any device; differentiable."""
    _check(taught, learnt)
    size = taught[0].shape[-2:]
    products = [-(normalised(t) * normalised(s)) for t, s in zip(taught, learnt, strict=True)]
    output = torch.cat([_resized(product, size) for product in products], dim=1)
    return output if dtype is None else output.to(dtype)


def _similarity_input_on_gpu(taught: Levels, learnt: Levels, dtype: torch.dtype | None) -> Tensor:
    features = _GpuFeatures(taught, learnt)
    written = dtype if dtype == features.dtype else torch.float32
    output = _empty_input(taught, written, features.channels_last)
    coarse = (level.numel() for level in taught if level.shape[2:] != taught[0].shape[2:])
    products = taught[0].new_empty(sum(coarse), dtype=torch.float32)
    _native.gpu_kernels().similarity_input(
        *features.arguments(),
        products.data_ptr(),
        _native.name_of(written),
        output.data_ptr(),
        _native.place(output),
    )
    return output if dtype is None else output.to(dtype)


def _empty_input(levels: Levels, dtype: torch.dtype, channels_last: bool) -> Tensor:
    n, _, height, width = levels[0].shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    size = (n, sum(level.shape[1] for level in levels), height, width)
    return torch.empty(size, dtype=dtype, device=levels[0].device, memory_format=layout)


def cosine_distances(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    """Return 1 - cosine similarity of teacher and student at every position of every level.

    Args:
        taught: the teacher's features of each level, (n, c_k, h_k, w_k) floating point.
        learnt: the student's, of the same shapes and dtype.

    Returns:
        (n, 1, h_k, w_k) for each level; differentiable.

    Raises:
        ValueError: there are no levels, or shapes or dtypes do not fit together.

    Equivalent to: `cosine_distances_ref`. Source: DeSTSeg (arXiv 2211.11317), section 3.2.
    """
    _check(taught, learnt)
    if _wants_gradient(*taught):
        return cosine_distances_ref(taught, learnt)
    if not _native.usable_on_gpu(*taught, *learnt):
        taught, learnt = _in_single(taught), _in_single(learnt)
        if not _native.usable(*taught, *learnt):
            return cosine_distances_ref(taught, learnt)
    if not _wants_gradient(*learnt):
        return _measured(taught, learnt)
    return _CosineDistances.apply(*taught, *learnt)


def cosine_distances_ref(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    """The definition of `cosine_distances`, on any device; differentiable also in the teacher."""
    _check(taught, learnt)
    return tuple(
        1 - (normalised(t) * normalised(s)).sum(dim=1, keepdim=True)
        for t, s in zip(taught, learnt, strict=True)
    )


class _CosineDistances(torch.autograd.Function):
    """The kernels of `cosine_distances` and of its gradient with respect to the student.

    Nothing but the features is kept in between: taking their sums again costs less than reading them.
    """

    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*features)
        return _measured(*_halves(features))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        features = ctx.saved_tensors
        taught, learnt = _halves(features)
        if _native.usable_on_gpu(*features):
            return (*(None for _ in taught), *_gradients_on_gpu(taught, learnt, slopes))
        channels_last = _channels_last(*features)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        gradients = [torch.empty_like(level, memory_format=layout) for level in learnt]
        _native.kernels.cosine_gradients(
            _arrays(taught, channels_last),
            _arrays(learnt, channels_last),
            channels_last,
            _threads(*learnt),
            _arrays(slopes, False),
            _arrays(gradients, channels_last),
        )
        return (*(None for _ in taught), *gradients)


def _measured(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    """Call the kernel of `cosine_distances`."""
    if _native.usable_on_gpu(*taught, *learnt):
        return _measured_on_gpu(taught, learnt)
    channels_last = _channels_last(*taught, *learnt)
    distances = tuple(level.new_empty(level.shape[0], 1, *level.shape[2:]) for level in taught)
    _native.kernels.cosine_distances(
        _arrays(taught, channels_last),
        _arrays(learnt, channels_last),
        channels_last,
        _threads(*learnt),
        _arrays(distances, False),
    )
    return distances


def _measured_on_gpu(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    features = _GpuFeatures(taught, learnt)
    distances = tuple(
        level.new_empty((level.shape[0], 1, *level.shape[2:]), dtype=torch.float32) for level in taught
    )
    addresses = [distance.data_ptr() for distance in distances]
    _native.gpu_kernels().cosine_distances(*features.arguments(), addresses, _native.place(distances[0]))
    return distances


def _gradients_on_gpu(taught: Levels, learnt: Levels, slopes: Levels) -> list[Tensor]:
    features, slopes = _GpuFeatures(taught, learnt), [slope.contiguous() for slope in slopes]
    gradients = [torch.empty_like(level) for level in features.learnt]
    _native.gpu_kernels().cosine_gradients(
        *features.arguments(),
        [slope.data_ptr() for slope in slopes],
        [gradient.data_ptr() for gradient in gradients],
        _native.place(gradients[0]),
    )
    return gradients


class _GpuFeatures:
    """Features as the GPU kernels take them: in one order and of one dtype, copied where they are not."""

    def __init__(self, taught: Levels, learnt: Levels) -> None:
        self.channels_last = _channels_last(*taught, *learnt)
        if len({level.dtype for level in (*taught, *learnt)}) > 1:
            taught, learnt = _in_single(taught), _in_single(learnt)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.taught, self.learnt = (
            [level.detach().contiguous(memory_format=layout) for level in levels]
            for levels in (taught, learnt)
        )
        self.dtype = self.taught[0].dtype

    def arguments(self) -> tuple[list[tuple[int, int, tuple[int, ...]]], int, str, bool]:
        levels = [
            (t.data_ptr(), s.data_ptr(), tuple(t.shape[1:]))
            for t, s in zip(self.taught, self.learnt, strict=True)
        ]
        return levels, len(self.taught[0]), _native.name_of(self.dtype), self.channels_last


def _check(taught: Levels, learnt: Levels) -> None:
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


def _in_single(levels: Levels) -> list[Tensor]:
    return [_at_least_single(level) for level in levels]


def _at_least_single(features: Tensor) -> Tensor:
    return features.float() if features.dtype in HALVES else features


def _resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _halves(features: Levels) -> tuple[Levels, Levels]:
    return features[: len(features) // 2], features[len(features) // 2 :]


def _channels_last(*tensors: Tensor) -> bool:
    return all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


def _threads(*tensors: Tensor) -> int:
    return min(torch.get_num_threads(), 1 + sum(tensor.numel() for tensor in tensors) // VALUES_PER_THREAD)


def _arrays(levels: Levels, channels_last: bool) -> list[np.ndarray]:
    return [_array(level, channels_last) for level in levels]


def _array(features: Tensor, channels_last: bool) -> np.ndarray:
    """Return features as the kernels take them, (n, h, w, c) or (n, c, h, w); a copy if in neither order."""
    if features.requires_grad:
        features = features.detach()
    return (features.permute(0, 2, 3, 1) if channels_last else features.contiguous()).numpy()
