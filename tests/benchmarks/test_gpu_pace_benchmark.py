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
from destseg.inference.calibration import Calibration
from destseg.inference.scoring import scores
from destseg.model.gpu_scorer import BATCH, Lane, in_precision
from destseg.model.networks import DeSTSegNet
from destseg.model.normalisation import normalise
from destseg.pictures.folders import Source
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Settings
from destseg.training.checkpoint import plan_of
from destseg.training.resident import ResidentSynthesis
from destseg.training.synthesis import Synthesis
from destseg.training.textures import PictureTextures
from destseg.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIDE = int(os.environ.get("DESTSEG_BENCHMARK_SIDE", "256"))


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> DeSTSegNet:
    torch.manual_seed(0)
    return DeSTSegNet().eval().cuda().requires_grad_(False)


def plain_maps(network: DeSTSegNet, pixels: np.ndarray) -> np.ndarray:
    """Return the maps that the network gives without a graph, in float32."""
    with torch.inference_mode():
        return network.maps(normalise(torch.from_numpy(pixels).cuda())).cpu().numpy()


@pytest.mark.parametrize("stage", ["student", "segmentation"])
def test_training_step(benchmark, stage):
    sources = [Source(str(k), picture) for k, picture in enumerate(pictures(64))]
    store = PictureStore(sources, Framing((SIDE, SIDE)), progress=False)
    synthesis = Synthesis(store, PictureTextures(store), 32)
    torch.manual_seed(0)
    net = DeSTSegNet().cuda()
    steps = (10**6, 0) if stage == "student" else (0, 10**6)
    trainer = Trainer(
        net, synthesis, plan_of(net, synthesis, steps, "bfloat16", Settings("paper").parts), 4 << 30
    )
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
    lane, pixels = Lane(in_precision(network, torch.float16), (SIDE, SIDE), 1), pictures(1)
    maps = plain_maps(network, pixels)
    found = lane.maps(pixels)
    np.testing.assert_allclose(found, maps, rtol=0, atol=1e-2)
    expected, _ = scores(maps[0], (SIDE, SIDE))
    assert scores(found[0], (SIDE, SIDE))[0] == pytest.approx(expected, abs=5e-3)
    times = []
    for _ in range(1000):
        begin = time.perf_counter()
        lane.maps(pixels)
        times.append(1e3 * (time.perf_counter() - begin))
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "median, ms": round(statistics.median(times), 3),
        "99th percentile, ms": round(statistics.quantiles(times, n=100)[98], 3),
    }
    benchmark.pedantic(lane.maps, (pixels,), rounds=100)


@pytest.mark.parametrize("tf32", [False, True], ids=["TF32 off", "TF32 on"])
def test_a_batch_of_32(benchmark, network, tf32):
    lane, pixels = Lane(in_precision(network, torch.float16), (SIDE, SIDE), 32), pictures(32)
    images = torch.randn(32, 3, SIDE, SIDE, device="cuda")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        np.testing.assert_allclose(lane.maps(pixels), plain_maps(network, pixels), rtol=0, atol=1e-2)
        with torch.inference_mode():

            def published() -> None:
                network.teacher_net(images)  # a second time, as the published code does
                network(images)

            eager = milliseconds(published, 20)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    ours = milliseconds(lambda: lane.maps(pixels), 20)
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "ms, copies included": round(ours, 3),
        "published, eager float32, takes times as long": round(eager / ours, 2),
    }
    benchmark.pedantic(lane.maps, (pixels,), rounds=20)


@pytest.mark.parametrize("format", ["jpg", "png"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_folder(benchmark, network, precision, format, tmp_path, tmp_path_factory):
    """From files to predictions, which a loop drops, beside the networks alone on a resident batch."""
    count = 32 * BATCH
    for k, coarse in enumerate(np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), np.uint8)):
        PIL.Image.fromarray(coarse).resize((2 * SIDE, 2 * SIDE)).save(tmp_path / f"{k}.{format}")
    weights = tmp_path_factory.mktemp("weights") / "network.pckl"
    torch.save(network.state_dict(), weights)
    settings = {"image_size": SIDE, "device": "cuda", "inference_precision": precision}
    model = DeSTSeg.from_checkpoint(weights, **settings)
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
