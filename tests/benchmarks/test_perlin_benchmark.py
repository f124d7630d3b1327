"""Synthetic anomalies beside the published way of making them: numpy, one sample of 256 x 256 at a time.

The rival is written from its description: noise on the whole picture through arrays of gradients, then a
rotation that resamples it (scipy), a threshold, and the blend in floating point. Each entry first checks that
both agree, then is timed; `extra_info` says how many times as long the rival takes, both in turn.
"""

import math

import numpy as np
import pytest
import torch

from destseg.ops.corruption import THRESHOLD, Corruption, corrupt
from destseg.ops.perlin import perlin

ndimage = pytest.importorskip("scipy.ndimage")

SIDE = 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published_noise(angles: np.ndarray, rotation: float) -> np.ndarray:
    cells_y, cells_x = angles.shape[0] - 1, angles.shape[1] - 1
    y, x = np.mgrid[0:SIDE, 0:SIDE] * np.array([cells_y, cells_x]).reshape(2, 1, 1) / SIDE
    v, u = y % 1, x % 1
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    def dot(below: int, right: int) -> np.ndarray:
        corner = gradients[below : cells_y + below, right : cells_x + right]
        of_pixels = corner.repeat(SIDE // cells_y, axis=0).repeat(SIDE // cells_x, axis=1)
        return (of_pixels * np.stack([v - below, u - right], axis=-1)).sum(axis=-1)

    def fade(t: np.ndarray) -> np.ndarray:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    top = dot(0, 0) + fade(u) * (dot(0, 1) - dot(0, 0))
    bottom = dot(1, 0) + fade(u) * (dot(1, 1) - dot(1, 0))
    noise = math.sqrt(2) * (top + fade(v) * (bottom - top))
    if rotation == 0:
        return noise
    return ndimage.rotate(noise, math.degrees(rotation), order=1, reshape=False)


def published_sample(picture: np.ndarray, texture: np.ndarray, corruption: Corruption):
    mask = published_noise(corruption.angles, corruption.rotation)[..., None] > THRESHOLD
    blend = (1 - corruption.share) * texture + corruption.share * picture
    corrupted = ((1 - mask) * picture + mask * blend) / 255
    return ((corrupted - MEAN) / STD).astype(np.float32), mask.astype(np.uint8)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rotation", [0.0, 0.4], ids=["upright", "rotated"])
@pytest.mark.parametrize("cells", [1, 2, 4, 8, 16, 32])
def test_noise(benchmark, compare, cells, rotation):
    benchmark.group = f"noise, {cells} x {cells} cells, {'rotated' if rotation else 'upright'}, 1 thread"
    angles = np.random.default_rng(cells).random((cells + 1, cells + 1), np.float32) * np.float32(2 * math.pi)
    ours = perlin(angles, (SIDE, SIDE))
    np.testing.assert_allclose(ours, published_noise(angles.astype(np.float64), 0), atol=1e-5)
    if cells <= 8:  # finer noise loses too much to the rival's resampling
        turned = perlin(angles, (SIDE, SIDE), rotation)[64:192, 64:192]
        np.testing.assert_allclose(turned, published_noise(angles, rotation)[64:192, 64:192], atol=0.02)
    compare(
        "published",
        lambda: perlin(angles, (SIDE, SIDE), rotation),
        lambda: published_noise(angles, rotation),
    )
    benchmark.pedantic(perlin, (angles, (SIDE, SIDE), rotation), rounds=300, warmup_rounds=10)


def test_corrupt_32_samples(benchmark, compare, threads):
    benchmark.group = f"32 corrupted samples, {threads} threads"
    generator = torch.Generator().manual_seed(0)
    pictures, textures = (
        torch.randint(0, 256, (32, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator) for _ in range(2)
    )
    corruptions = []
    for _ in range(32):
        rows, columns = (2 ** torch.randint(0, 6, (2,), generator=generator)).tolist()
        angles = (torch.rand(rows + 1, columns + 1, generator=generator) * 2 * math.pi).numpy()
        corruptions.append(
            Corruption(angles, float(torch.rand((), generator=generator) - 0.5) * math.pi, 0.4)
        )
    upright = [corruption._replace(rotation=0.0) for corruption in corruptions[:4]]
    found, masks = corrupt(pictures[:4], textures[:4], upright, MEAN, STD)
    for k, corruption in enumerate(upright):
        expected, mask = published_sample(pictures[k].numpy(), textures[k].numpy(), corruption)
        same = masks[k, 0].numpy() == mask[..., 0]
        assert same.mean() > 0.9999  # noise within rounding of the threshold
        np.testing.assert_allclose(found[k].permute(1, 2, 0).numpy()[same], expected[same], atol=1e-4)
    samples = list(zip(pictures.numpy(), textures.numpy(), corruptions, strict=True))
    compare(
        "published",
        lambda: corrupt(pictures, textures, corruptions, MEAN, STD),
        lambda: [published_sample(*sample) for sample in samples],
    )
    benchmark.pedantic(corrupt, (pictures, textures, corruptions, MEAN, STD), rounds=40, warmup_rounds=3)
