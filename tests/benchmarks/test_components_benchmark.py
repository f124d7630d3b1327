"""Connected components beside OpenCV and scipy, one thread: one mask of 1024 x 1024, 8-connected.

Each entry first checks its labels against the reference's, then is timed; compare within a group.
"""

from collections.abc import Callable

import numpy as np
import pytest

from destseg.ops.components import components, components_ref

SIDE = 1024
NEIGHBOURS = np.ones((3, 3), int)


def discs() -> np.ndarray:
    """Like a ground truth: a few filled discs."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), bool)
    for _ in range(6):
        (row, column), radius = random.integers(0, SIDE, 2), random.integers(20, 130)
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return mask


MASKS: dict[str, Callable[[], np.ndarray]] = {
    "discs": discs,
    "empty": lambda: np.zeros((SIDE, SIDE), bool),
    "full": lambda: np.ones((SIDE, SIDE), bool),
    "noise, 5 % set": lambda: np.random.default_rng(1).random((SIDE, SIDE)) < 0.05,
    "noise, half set": lambda: np.random.default_rng(2).random((SIDE, SIDE)) < 0.5,
    "noise, 90 % set": lambda: np.random.default_rng(3).random((SIDE, SIDE)) < 0.9,
}


@pytest.fixture(params=MASKS, ids=str)
def mask(request, benchmark) -> np.ndarray:
    benchmark.group = f"components: {request.param}"
    return MASKS[request.param]()


def check_and_time(benchmark, label: Callable[[], np.ndarray], mask: np.ndarray) -> None:
    expected, sizes = components_ref(mask[None])
    pairs = np.unique(np.stack([label().ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == np.unique(expected).size
    assert len(sizes) == expected.max()
    benchmark(label)
    if benchmark.stats:
        benchmark.extra_info["megapixels per second"] = mask.size / benchmark.stats["min"] / 1e6


def test_destseg(benchmark, mask):
    check_and_time(benchmark, lambda: components(mask[None])[0][0], mask)


def test_reference(benchmark, mask):
    check_and_time(benchmark, lambda: components_ref(mask[None])[0][0], mask)


def test_opencv(benchmark, mask):
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(1)
    pixels = mask.view(np.uint8)
    check_and_time(benchmark, lambda: cv2.connectedComponents(pixels, connectivity=8)[1], mask)


def test_scipy(benchmark, mask):
    ndimage = pytest.importorskip("scipy.ndimage")
    check_and_time(benchmark, lambda: ndimage.label(mask, NEIGHBOURS)[0], mask)
