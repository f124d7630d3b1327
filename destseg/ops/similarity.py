"""Similarity of teacher and student features on several levels.

Letters: n images; level k = 1, 2, .. has c_k channels and h_k x w_k positions, of any sizes. The operations
take features as the networks give them and bring every vector to unit length themselves: they divide it by
(its L2 norm + 1e-12), at its own level, before any resizing. They compute half precision in float32.
"""

from typing import Any

import torch
from torch import Tensor

from destseg.ops import kernels, tensors
from destseg.ops.features import (
    Levels,
    are_channels_last,
    array,
    arrays,
    check,
    resize,
    thread_count,
    to_single,
    unit_vectors,
    wants_gradient,
)


def similarity_input(taught: Levels, learnt: Levels, dtype: torch.dtype | None = None) -> Tensor:
    """Return the segmentation network's input: minus the products of teacher and student, level by level.

    The sign is the published one, so that published weights keep their meaning.

    Args:
        taught: the teacher's features of each level, (n, c_k, h_k, w_k) floating point.
        learnt: the student's, of the same shapes and dtype.
        dtype: dtype of the result; by default float64 for float64 features, else float32.

    Returns:
        (n, sum of c_k, h_1, w_1): minus the element-wise products of unit vectors, each level resized
        bilinearly (align_corners=False) to the size of the first; in channels-last memory order if all
        features are.

    Raises:
        ValueError: there are no levels, or shapes or dtypes do not fit together.

    Equivalent to: `similarity_input_ref`. Source: DeSTSeg (arXiv 2211.11317), section 3.3.
    """
    check(taught, learnt)
    if wants_gradient(*taught, *learnt):
        return similarity_input_ref(taught, learnt, dtype)
    if tensors.usable_on_gpu(*taught, *learnt) and are_channels_last(*taught, *learnt):
        return _similarity_input_on_gpu(taught, learnt, dtype)
    taught, learnt = to_single(taught), to_single(learnt)
    if not tensors.usable(*taught, *learnt):
        return similarity_input_ref(taught, learnt, dtype)
    channels_last = are_channels_last(*taught, *learnt)
    output = _empty_input(taught, taught[0].dtype, channels_last)
    kernels.cpu.similarity_input(
        arrays(taught, channels_last),
        arrays(learnt, channels_last),
        channels_last,
        thread_count(output),
        array(output, channels_last),
    )
    return output if dtype is None else output.to(dtype)


def similarity_input_ref(taught: Levels, learnt: Levels, dtype: torch.dtype | None = None) -> Tensor:
    """The definition of `similarity_input`, on any device; differentiable."""
    check(taught, learnt)
    size = taught[0].shape[-2:]
    products = [-(unit_vectors(t) * unit_vectors(s)) for t, s in zip(taught, learnt, strict=True)]
    output = torch.cat([resize(product, size) for product in products], dim=1)
    return output if dtype is None else output.to(dtype)


def _similarity_input_on_gpu(taught: Levels, learnt: Levels, dtype: torch.dtype | None) -> Tensor:
    precision, size = taught[0].dtype, taught[0].shape[2:]
    written = precision if dtype == precision else torch.float32
    output = _empty_input(taught, written, True)
    coarse = sum(level.numel() for level in taught if level.shape[2:] != size)
    products = taught[0].new_empty(coarse, dtype=torch.float32)
    kernels.gpu().similarity_input(
        [(t.data_ptr(), s.data_ptr(), tuple(t.shape[1:])) for t, s in zip(taught, learnt, strict=True)],
        len(output),
        tensors.name_of(precision),
        products.data_ptr(),
        tensors.name_of(written),
        output.data_ptr(),
        tensors.place(output),
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
    check(taught, learnt)
    if wants_gradient(*taught):
        return cosine_distances_ref(taught, learnt)
    taught, learnt = to_single(taught), to_single(learnt)
    if not tensors.usable(*taught, *learnt):
        return cosine_distances_ref(taught, learnt)
    if not wants_gradient(*learnt):
        return _distances(taught, learnt)
    return _CosineDistances.apply(*taught, *learnt)


def cosine_distances_ref(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    """The definition of `cosine_distances`, on any device; differentiable also in the teacher."""
    check(taught, learnt)
    return tuple(
        1 - (unit_vectors(t) * unit_vectors(s)).sum(dim=1, keepdim=True)
        for t, s in zip(taught, learnt, strict=True)
    )


class _CosineDistances(torch.autograd.Function):
    """The kernels of `cosine_distances` and of its gradient with respect to the student.

    Only the features are kept for the gradient: computing their sums again costs less than reading them.
    """

    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*features)
        return _distances(*_halves(features))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        features = ctx.saved_tensors
        taught, learnt = _halves(features)
        channels_last = are_channels_last(*features)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        gradients = [torch.empty_like(level, memory_format=layout) for level in learnt]
        kernels.cpu.cosine_gradients(
            arrays(taught, channels_last),
            arrays(learnt, channels_last),
            channels_last,
            thread_count(*learnt),
            arrays(slopes, False),
            arrays(gradients, channels_last),
        )
        return (*(None for _ in taught), *gradients)


def _distances(taught: Levels, learnt: Levels) -> tuple[Tensor, ...]:
    """Compute `cosine_distances` with the kernel."""
    channels_last = are_channels_last(*taught, *learnt)
    distances = tuple(level.new_empty(level.shape[0], 1, *level.shape[2:]) for level in taught)
    kernels.cpu.cosine_distances(
        arrays(taught, channels_last),
        arrays(learnt, channels_last),
        channels_last,
        thread_count(*learnt),
        arrays(distances, False),
    )
    return distances


def _halves(features: Levels) -> tuple[Levels, Levels]:
    return features[: len(features) // 2], features[len(features) // 2 :]
