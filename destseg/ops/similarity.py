"""Similarity of teacher and student features on several levels, and what is made of it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def normalised(features: Tensor) -> Tensor:
    """Divide each feature vector of (n, c, h, w) by its L2 norm + 1e-12, in at least single precision."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-12)


def cosine_distances(taught: list[Tensor], learnt: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return 1 - cosine similarity of each level, (n, 1, h_k, w_k), from features of unit length."""
    first, second, third = (
        1 - (teacher * student).sum(dim=1, keepdim=True)
        for teacher, student in zip(taught, learnt, strict=True)
    )
    return first, second, third


def similarity_input(taught: list[Tensor], learnt: list[Tensor]) -> Tensor:
    """Return the segmentation network's input, (n, sum of c_k, h_1, w_1): minus the element-wise products.

    Each level is normalised before, and resized bilinearly (align_corners=False) after the product. The sign
    is the published one, so that published weights keep their meaning.
    """
    size = taught[0].shape[-2:]
    products = [-(teacher * student) for teacher, student in zip(taught, learnt, strict=True)]
    return torch.cat([_resized(product, size) for product in products], dim=1)


def destmap(distances: tuple[Tensor, ...]) -> Tensor:
    """Return the DeST map (n, 1, h_1, w_1): the product over levels of the resized cosine distances."""
    size = distances[0].shape[-2:]
    product = distances[0]
    for distance in distances[1:]:
        product = product * _resized(distance, size)
    return product


def _resized(image: Tensor, size: torch.Size) -> Tensor:
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
