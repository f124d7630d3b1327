"""What the kernels are worth to whole jobs: training steps, prediction, evaluation, with and without them.

"Without" runs the references, as `DESTSEG_EXT=0` does; both in turn, in one process. Results are checked to
agree first. Steps include making their batch, which training otherwise does meanwhile.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import torch

import destseg
from destseg.inference.report import Report
from destseg.model.networks import DeSTSegNet
from destseg.ops import kernels
from destseg.pictures.folders import Source
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Settings
from destseg.training.checkpoint import plan_of
from destseg.training.synthesis import Synthesis
from destseg.training.textures import from_normals
from destseg.training.trainer import Trainer, training_precision

STEPS = {"student": 0, "segmentation": 10**6}  # number of the step that is done again and again
BATCH, SIDE = 8, 128


def without_kernels(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        compiled, kernels.cpu = kernels.cpu, None
        try:
            return call()
        finally:
            kernels.cpu = compiled

    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twenty test pictures of 512 x 512, half of them with a defect of a few discs."""
    folder, random = tmp_path_factory.mktemp("dataset"), np.random.default_rng(0)
    rows, columns = np.ogrid[:512, :512]
    for k in range(20):
        kind = "good" if k % 2 else "spots"
        picture, mask = random.integers(90, 120, (512, 512), np.uint8), np.zeros((512, 512), bool)
        for row, column, radius in random.integers((0, 0, 10), (512, 512, 60), (3, 3)):
            mask |= (kind == "spots") & ((rows - row) ** 2 + (columns - column) ** 2 < radius**2)
        for place, pixels in (
            (f"test/{kind}/{k:02}.png", picture + mask * np.uint8(80)),
            (f"ground_truth/{kind}/{k:02}_mask.png", mask * np.uint8(255)),
        ):
            if place.startswith("test") or kind != "good":
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(pixels).save(folder / place)
    return folder


@pytest.fixture(scope="module", params=["paper", "stpm"])
def model(request, teacher_weights, few_parts):
    model = destseg.DeSTSeg(request.param, teacher_weights=teacher_weights)
    return model.fit(few_parts, steps=(1, 1), batch_size=2, progress=False)


@pytest.mark.parametrize("stage", STEPS)
def test_training_step(benchmark, compare, stage):
    benchmark.group = f"{stage} step and its batch, {BATCH} pictures of {SIDE} x {SIDE}"
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(BATCH)]
    store = PictureStore(
        [Source(str(k), p) for k, p in enumerate(pictures)], Framing((SIDE, SIDE)), progress=False
    )
    synthesis = Synthesis(store, from_normals(store), BATCH)
    precision = training_precision("auto", torch.device("cpu"))
    steps = (1, 0) if stage == "student" else (0, 10**6 + 1)

    def new_step() -> Callable[[], float]:
        torch.manual_seed(0)
        network = DeSTSegNet()
        plan = plan_of(network, synthesis, steps, precision, Settings("paper").parts)
        trainer = Trainer(network, synthesis, plan, 2 << 30)
        trainer.optimizer = trainer._enter(stage == "student")
        return lambda: trainer.step(STEPS[stage], synthesis.batch(0)).item()

    ours, rival = new_step(), without_kernels(new_step())
    assert ours() == pytest.approx(rival(), rel=0.02 if precision == "bfloat16" else 1e-4)
    compare("without kernels", ours, rival, seconds=20)
    benchmark.pedantic(ours, rounds=5)


def test_predict(benchmark, compare, model):
    benchmark.group = f"predict 512 x 512, preset {model.preset}"
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)

    def predict() -> destseg.Prediction:
        return model.predict(picture)

    rival = without_kernels(predict)
    np.testing.assert_allclose(predict().anomaly_map, rival().anomaly_map, atol=1e-4)
    compare("without kernels", predict, rival, seconds=10)
    benchmark.pedantic(predict, rounds=10)


def test_evaluate(benchmark, compare, model, dataset):
    benchmark.group = f"evaluate 20 pictures of 512 x 512, preset {model.preset}"

    def evaluate() -> Report:
        return model.evaluate(dataset, progress=False)

    rival = without_kernels(evaluate)
    assert evaluate().pixel_ap == pytest.approx(rival().pixel_ap, abs=1e-3)
    compare("without kernels", evaluate, rival, seconds=30)
    benchmark.pedantic(evaluate, rounds=2)
