"""Anomaly maps at another size beside torch's bilinear interpolation and the reference in numpy.

Each entry first checks that all agree, then is timed; `extra_info` says how many times as long the rivals
take, theirs and ours in turn.
"""

import numpy as np
import pytest
import torch

from destseg.ops.resizing import resize_maps, resize_maps_ref

SIZES = {  # a map and the picture that it goes to
    "256 x 256 to 1024 x 1024": ((256, 256), (1024, 1024)),
    "256 x 256 to 900 x 1600": ((256, 256), (900, 1600)),
    "1024 x 1024 to 256 x 256": ((1024, 1024), (256, 256)),
}


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("sizes", SIZES)
def test_resize_maps(benchmark, compare, sizes, count, threads):
    given, wanted = SIZES[sizes]
    benchmark.group = f"{count} maps of {sizes}, {threads} threads"
    maps = np.random.default_rng(0).random((count, *given), np.float32)

    def interpolated() -> torch.Tensor:
        return torch.nn.functional.interpolate(
            torch.from_numpy(maps)[:, None], wanted, mode="bilinear", align_corners=False
        )

    found = resize_maps(maps, wanted)
    assert found.shape == (count, *wanted) and found.dtype == np.float32
    np.testing.assert_allclose(found, interpolated()[:, 0].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, resize_maps_ref(maps, wanted), rtol=0, atol=1e-5)
    compare("torch", lambda: resize_maps(maps, wanted), interpolated)
    compare("reference", lambda: resize_maps(maps, wanted), lambda: resize_maps_ref(maps, wanted))
    benchmark.pedantic(resize_maps, (maps, wanted), rounds=50, warmup_rounds=5)
