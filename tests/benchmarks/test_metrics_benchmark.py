"""All six metrics beside numpy's sort of the same pixels, scikit-learn and adeval.

Maps are 1024 x 1024 float32; DESTSEG_BENCHMARK_MAPS sets how many (100 in the tables; scikit-learn then takes
minutes). Each entry is checked against the others' values first; compare within the group.
"""

import os

import numpy as np
import pytest

from destseg import metrics
from destseg.ops import kernels

COUNT = int(os.environ.get("DESTSEG_BENCHMARK_MAPS", "20"))
SIDE = 1024

pytestmark = pytest.mark.benchmark(group=f"metrics: {COUNT} maps of {SIDE} x {SIDE}")


@pytest.fixture(scope="module")
def test_set() -> tuple[np.ndarray, np.ndarray]:
    """Maps that differ in nearly every pixel, and masks of discs in three of four pictures."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    masks = np.zeros((COUNT, SIDE, SIDE), bool)
    for k in range(COUNT):
        for _ in range(random.integers(1, 6) if k % 4 else 0):
            (row, column), radius = random.integers(0, SIDE, 2), random.integers(20, 130)
            masks[k] |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    maps = random.random(masks.shape, dtype=np.float32) ** 2
    maps[masks] **= 0.25
    return maps, masks


@pytest.fixture(scope="module")
def result(test_set) -> metrics.Metrics:
    return metrics.evaluate(*test_set)


def rate(benchmark, maps: np.ndarray) -> None:
    if benchmark.stats:
        benchmark.extra_info["megapixels per second"] = maps.size / benchmark.stats["min"] / 1e6


@pytest.mark.usefixtures("threads")
def test_destseg_all_six(benchmark, test_set, result):
    found = benchmark.pedantic(metrics.evaluate, test_set, rounds=3, warmup_rounds=1)
    assert found == result
    rate(benchmark, test_set[0])


def test_reference_all_six(benchmark, test_set, result, monkeypatch):
    monkeypatch.setattr(kernels, "cpu", None)
    found = benchmark.pedantic(metrics.evaluate, test_set, rounds=1)
    assert found == result
    rate(benchmark, test_set[0])


def test_numpy_sort(benchmark, test_set):
    maps, _ = test_set
    benchmark.pedantic(np.ndarray.sort, setup=lambda: ((maps.ravel().copy(),), {}), rounds=3, warmup_rounds=1)
    rate(benchmark, maps)


def test_scikit_learn_auroc_and_ap(benchmark, test_set, result):
    rival = pytest.importorskip("sklearn.metrics")
    scores, labels = test_set[0].ravel(), test_set[1].ravel()

    def both() -> tuple[float, float]:
        return rival.roc_auc_score(labels, scores), rival.average_precision_score(labels, scores)

    found = benchmark.pedantic(both, rounds=1)
    assert found == pytest.approx((result.pixel_auroc, result.pixel_ap), abs=1e-6)
    rate(benchmark, scores)


def test_adeval_binned_auroc_ap_and_pro(benchmark, test_set, result, monkeypatch):
    monkeypatch.setattr(np, "trapz", getattr(np, "trapezoid", None), raising=False)  # which adeval 1.1 calls
    rival = pytest.importorskip("adeval")
    maps, masks = test_set[0], test_set[1].view(np.uint8)
    found = benchmark.pedantic(rival.auroc_aupr_aupro, (maps, masks), rounds=1)
    assert found == pytest.approx((result.pixel_auroc, result.pixel_ap, result.pro), abs=0.02)
    rate(benchmark, maps)
