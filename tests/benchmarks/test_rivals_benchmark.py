"""One picture through the light network and through rivals of its class, from decoded pixels to a verdict.

Untrained networks all of them, which take as long as trained ones. Rivals are those of anomalib, where it is
installed: EfficientAD-S, and PatchCore on ResNet18 with 1 and 10 % of 213 pictures' patches kept.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import destseg
from destseg.bench.speed import Side, export_everywhere, published_predictor, untrained

SIDE = int(os.environ.get("DESTSEG_BENCHMARK_SIDE", "256"))
PICTURES = 213  # of MVTec's transistor
GROUP = f"one picture of {SIDE} x {SIDE}, {torch.get_num_threads()} threads"

pytestmark = pytest.mark.benchmark(group=GROUP, min_rounds=20, max_time=8)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> dict[tuple[str, str], Side]:
    side = untrained("fast", SIDE, Path(tmp_path_factory.mktemp("models")))
    return {(one.engine, one.precision): one for one in export_everywhere(side)}


def test_published(benchmark, pixels, tmp_path):
    path = untrained("paper", SIDE, tmp_path).path
    own = destseg.load(path, "cpu").predict(pixels).score
    _, found = benchmark(published_predictor(path), pixels)
    assert found.score == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize(
    ("engine", "precision"), [("torch", "float32"), ("openvino", "float32"), ("openvino", "int8")]
)
def test_fast(benchmark, pixels, sides, engine, precision):
    if (engine, precision) not in sides:
        pytest.skip(f"{engine} is not installed")
    plain = destseg.load(sides["torch", "float32"].path, "cpu").predict(pixels)
    model = destseg.load(sides[engine, precision].path, "cpu")
    found = benchmark(model.predict, pixels)
    assert np.abs(found.anomaly_map - plain.anomaly_map).max() < (1e-3 if precision == "float32" else 0.1)


def prepared(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def verdict(model: torch.nn.Module, pixels: np.ndarray) -> tuple[torch.Tensor, bool]:
    with torch.inference_mode():
        result = model(prepared(pixels))
    return result.anomaly_map, bool(result.pred_score > 0.5)


def test_efficient_ad_small(benchmark, pixels):
    rivals = pytest.importorskip("anomalib.models.image.efficient_ad.torch_model")
    torch.manual_seed(0)
    model = rivals.EfficientAdModel().eval()
    for values in model.mean_std.values():
        torch.nn.init.ones_(values)
    found, _ = benchmark(verdict, model, pixels)
    assert found.shape[-2:] == (SIDE, SIDE) and found.isfinite().all()


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_patchcore(benchmark, pixels, share):
    rivals = pytest.importorskip("anomalib.models.image.patchcore.torch_model")
    torch.manual_seed(0)
    model = rivals.PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False).eval()
    patches = (SIDE // 8) ** 2
    width = 128 + 256
    model.memory_bank = F.relu(torch.randn(round(share * PICTURES * patches), width))
    found, _ = benchmark(verdict, model, pixels)
    assert found.shape[-2:] == (SIDE, SIDE) and found.isfinite().all()
