"""Whole jobs on a GPU: a training step of either stage, scoring one picture, a batch of 32, a folder.

Each is checked against the CPU or the plain network before it is timed; DESTSEG_BENCHMARK_SIDE sets pixels.
"""

import os
import statistics
import time

import numpy as np
import PIL.Image
import pytest
import torch
from gpu import milliseconds

from destseg import DeSTSeg
from destseg.calibration import Calibration
from destseg.checkpoints import plan_of
from destseg.cuda_graph import GraphScorer, in_precision
from destseg.folders import Source
from destseg.framing import Framing
from destseg.images import normalise
from destseg.networks import DeSTSegNet
from destseg.prediction import BATCH
from destseg.presets import parts_of
from destseg.resident import ResidentSynthesis
from destseg.scoring import anomaly_maps, scores
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import PictureTextures
from destseg.training import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIDE = int(os.environ.get("DESTSEG_BENCHMARK_SIDE", "256"))


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> DeSTSegNet:
    torch.manual_seed(0)
    return DeSTSegNet().eval().cuda().requires_grad_(False)


@pytest.mark.parametrize("stage", ["student", "segmentation"])
def test_training_step(benchmark, stage):
    sources = [Source(str(k), picture) for k, picture in enumerate(pictures(64))]
    store = PictureStore(sources, Framing((SIDE, SIDE)), progress=False)
    synthesis = Synthesis(store, PictureTextures(store), 32)
    torch.manual_seed(0)
    net = DeSTSegNet().cuda()
    steps = (10**6, 0) if stage == "student" else (0, 10**6)
    trainer = Trainer(net, synthesis, plan_of(net, synthesis, steps, "bfloat16", parts_of("paper")), 4 << 30)
    made = ResidentSynthesis(synthesis, trainer.device, 4 << 30)
    ours, theirs = made.batch(made.draft(0)), synthesis.batch(0)
    assert (ours.masks.cpu() == theirs.masks).float().mean() > 0.9999
    batches = made.batches(range(1, 10**6), workers=4)
    first = trainer.step(0, ours).item()
    assert np.isfinite(first)

    def ten_steps() -> None:
        for step, batch in zip(range(1, 11), batches, strict=False):
            trainer.step(step, batch)
        torch.cuda.synchronize()

    benchmark.extra_info |= {"GPU": torch.cuda.get_device_name(), "steps": 10}
    benchmark.pedantic(ten_steps, rounds=10, warmup_rounds=2)
    torch.cuda.set_sync_debug_mode("error")  # a step and its batch wait for nothing
    try:
        trainer.step(11, next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_one_picture(benchmark, network):
    scorer, pixels = GraphScorer(in_precision(network, torch.float16), (SIDE, SIDE)), pictures(1)
    maps = anomaly_maps(network, pixels)
    found = scorer(pixels)
    torch.testing.assert_close(found.anomaly_maps, maps.cpu(), rtol=0, atol=1e-2)
    assert found.scores.item() == pytest.approx(scores(maps[0], (SIDE, SIDE))[0], abs=5e-3)
    times = []
    for _ in range(1000):
        begin = time.perf_counter()
        scorer(pixels)
        times.append(1e3 * (time.perf_counter() - begin))
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "median, ms": round(statistics.median(times), 3),
        "99th percentile, ms": round(statistics.quantiles(times, n=100)[98], 3),
    }
    benchmark.pedantic(scorer, (pixels,), rounds=100)


@pytest.mark.parametrize("tf32", [False, True], ids=["TF32 off", "TF32 on"])
def test_a_batch_of_32(benchmark, network, tf32):
    scorer, pixels = GraphScorer(in_precision(network, torch.float16), (SIDE, SIDE), 32), pictures(32)
    images = torch.randn(32, 3, SIDE, SIDE, device="cuda")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        maps = anomaly_maps(network, pixels)
        torch.testing.assert_close(scorer(pixels).anomaly_maps, maps.cpu(), rtol=0, atol=1e-2)
        with torch.inference_mode():

            def published() -> None:
                network.teacher_net(images)  # a second time, as the published code does
                network(images)

            eager = milliseconds(published, 20)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    ours = milliseconds(lambda: scorer(pixels), 20)
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "ms, copies included": round(ours, 3),
        "published, eager float32, takes times as long": round(eager / ours, 2),
    }
    benchmark.pedantic(scorer, (pixels,), rounds=20)


@pytest.mark.parametrize("format", ["jpg", "png"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_folder(benchmark, network, precision, format, tmp_path):
    """From files to predictions, which a loop drops, beside the networks alone on a resident batch."""
    count = 32 * BATCH
    for k, coarse in enumerate(np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), np.uint8)):
        PIL.Image.fromarray(coarse).resize((2 * SIDE, 2 * SIDE)).save(tmp_path / f"{k}.{format}")
    model = DeSTSeg(image_size=SIDE, device="cuda", inference_precision=precision)
    model._adopt(network, [])
    model.calibration_ = Calibration((0.5,), (0.5,), 0.5)
    few = sorted(tmp_path.iterdir())[: 2 * BATCH + 1]
    for path, found in zip(few, model.predict(few), strict=True):  # in batches
        alone = model.predict(path)
        assert found.score == pytest.approx(alone.score, abs=5e-3)
        np.testing.assert_allclose(found.anomaly_map, alone.anomaly_map, atol=1e-2)

    net = in_precision(network, getattr(torch, precision))
    images = normalise(torch.from_numpy(pictures(BATCH)).cuda()).to(getattr(torch, precision))

    @torch.inference_mode()
    def network_alone() -> None:
        net.logits(*net.features(images))

    aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # nor may its starting count
    with torch.cuda.stream(aside):
        network_alone()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        network_alone()
    alone_per_second = 1e3 * BATCH / milliseconds(graph.replay, 50)

    rates = []

    def whole_folder() -> None:
        begin = time.perf_counter()
        assert sum(not isinstance(result, Exception) for _, result in model.predict_each(tmp_path)) == count
        rates.append(count / (time.perf_counter() - begin))

    benchmark.pedantic(whole_folder, rounds=5, warmup_rounds=1)
    per_second = statistics.median(rates[-5:])
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "processors": os.cpu_count(),
        "pictures": f"{count} {format} of {2 * SIDE} x {2 * SIDE}",
        "pictures/s, files to predictions": round(per_second),
        "pictures/s, network alone": round(alone_per_second),
        "share of the network's pace": round(per_second / alone_per_second, 3),
    }
