"""Training: reproducibility, no wasted work, averages, small numbers of pictures, the ablation's rows."""

import copy
import itertools
import pathlib
import shutil

import pytest
import torch

import destseg
from destseg.model.networks import DeSTSegNet
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import MEMORY, PictureStore
from destseg.settings import Settings
from destseg.training.checkpoint import plan_of
from destseg.training.synthesis import Synthesis
from destseg.training.textures import from_normals
from destseg.training.trainer import Trainer, fusion_loss, student_loss, training_precision

SETTINGS = {"image_size": 64, "precision": "float32"}
SCHEDULE = {"steps": (3, 3), "batch_size": 2, "progress": False}
PAPER = {"preset": "paper", "teacher": "embedded"}  # the published network, without a download
NO_ENCODER = {"student_encoder": False}


def fit(parts, settings=None, **schedule):
    model = destseg.DeSTSeg(**(SETTINGS | (settings or {})))
    return model.fit(parts, **(SCHEDULE | schedule))


def weights_of(model):
    return model.network_.state_dict()


def assert_same_weights(first, second):
    for name, value in weights_of(first).items():
        assert torch.equal(value, weights_of(second)[name]), name


@pytest.fixture(scope="module")
def uninterrupted(few_parts):
    return fit(few_parts)


@pytest.mark.parametrize("settings", [{}, PAPER, NO_ENCODER, NO_ENCODER | {"denoising": False}])
def test_the_same_seed_gives_the_same_model_whatever_the_workers_and_the_memory(few_parts, settings):
    model = fit(few_parts, settings)
    assert_same_weights(fit(few_parts, settings, workers=3), model)
    # Without memory the teacher is asked at every step, of batches that do not divide the number of pictures.
    kept, again = (
        fit(few_parts, settings, steps=(4, 2), batch_size=7, workers=workers, memory=memory)
        for workers, memory in ((2, MEMORY), (0, 0))
    )
    assert_same_weights(again, kept)


@pytest.mark.parametrize("strict", [False, True])
def test_a_picture_that_is_gone_while_training_runs_is_left_out_by_name(
    few_parts, tmp_path, monkeypatch, caplog, strict
):
    parts = shutil.copytree(few_parts, tmp_path / "parts")
    real_step = Trainer.step

    def step(self, number, batch):
        if number == 0:
            for source in self.synthesis.normals.sources[:2]:
                pathlib.Path(source.name).unlink(missing_ok=True)
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    options = {"steps": (8, 1), "batch_size": 4, "memory": 0, "workers": 0}
    if strict:
        with pytest.raises(FileNotFoundError, match=r"there is no picture file .*\.png"):
            fit(parts, strict=True, **options)
    else:
        assert len(fit(parts, **options).losses_) == 9
        assert sum("left out from now on: there is no picture file" in text for text in caplog.messages) == 2


def test_another_seed_gives_another_model(uninterrupted, few_parts):
    assert fit(few_parts, {"seed": 1}).losses_ != uninterrupted.losses_


def test_fitting_leaves_the_random_state_of_torch_alone(few_parts):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(few_parts, steps=(0, 1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pictures_and_batches_of_one_and_more_than_there_are(few_parts, count):
    pictures = sorted(few_parts.iterdir())[:count]
    for batch_size in (1, 4):
        model = fit(pictures, steps=(1, 1), batch_size=batch_size)
        assert all(loss > 0 for loss in model.losses_)
        assert len(model.calibration_.scores) == max(1, count // 2)


@pytest.mark.parametrize("size", [(65, 97), (64, 130)])
def test_sides_need_not_be_multiples_of_32(few_parts, size):
    model = fit(few_parts, {"image_size": size}, steps=(1, 1))
    picture = sorted(few_parts.iterdir())[0]
    assert model.predict(picture).anomaly_map.shape == model.predict(picture).image.shape[:2]


@pytest.mark.parametrize("switches", list(itertools.product([False, True], repeat=3)))
def test_all_rows_of_the_ablation_can_be_trained_and_predict(few_parts, switches):
    names = ("denoising", "encoder_decoder", "segmentation")
    settings = PAPER | dict(zip(names, switches, strict=True))
    model = fit(few_parts, settings, steps=(2, 2))
    assert len(model.losses_) == (4 if settings["segmentation"] else 2)  # no second stage without its network
    anomaly_map = model.predict(sorted(few_parts.iterdir())[0]).anomaly_map
    assert 0 <= anomaly_map.min() <= anomaly_map.max() <= 1


def test_stpm_is_the_row_without_any_of_them(few_parts):
    model = fit(few_parts, PAPER | {"preset": "stpm"}, steps=(1, 1))
    off = dict.fromkeys(("denoising", "encoder_decoder", "segmentation"), False)
    assert_same_weights(model, fit(few_parts, PAPER | off, steps=(1, 1)))


@pytest.mark.parametrize("settings", [{}, NO_ENCODER])
def test_the_fast_preset_is_light_and_survives_its_file(few_parts, settings, tmp_path):
    model = fit(few_parts, settings)
    model.save(tmp_path / "part.destseg")
    assert (tmp_path / "part.destseg").stat().st_size < 45e6  # a teacher of 11 MB, a student of 25
    loaded, picture = destseg.load(tmp_path / "part.destseg"), sorted(few_parts.iterdir())[0]
    assert loaded.preset == "fast" and (loaded.network_.student_net.encoder is None) == bool(settings)
    assert_same_weights(loaded, model)
    assert (loaded.predict(picture).anomaly_map == model.predict(picture).anomaly_map).all()


def test_each_stage_changes_its_own_network_only(few_parts):
    before, student, both = (weights_of(fit(few_parts, steps=steps)) for steps in ((0, 0), (2, 0), (2, 2)))

    def changed(first, second):
        return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}

    assert changed(before, student) == {"student_net"}
    assert changed(student, both) == {"segmentation_net"}


def test_the_student_learns(few_parts):
    losses = fit(few_parts, steps=(20, 0), batch_size=4).losses_
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize(
    "arguments", [{"rotate": 5}, {"rotate": "90"}, {"flip": "both"}, {"augment": "light"}]
)
def test_changed_pictures_are_trained_with(few_parts, uninterrupted, arguments):
    assert fit(few_parts, **arguments).losses_ != uninterrupted.losses_


def test_bfloat16_training_keeps_float32_weights_and_stays_close(few_parts, uninterrupted):
    model = fit(few_parts, {"precision": "bfloat16"})
    assert all(value.dtype != torch.bfloat16 for value in weights_of(model).values())
    assert model.losses_[0] == pytest.approx(uninterrupted.losses_[0], rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_and_predicts_alike(few_parts, uninterrupted):
    model = fit(few_parts, {"device": "cuda"})
    assert next(model.network_.parameters()).is_cuda
    assert model.losses_ == pytest.approx(uninterrupted.losses_, rel=0.02)
    picture = sorted(few_parts.iterdir())[0]
    assert model.predict(picture).score == pytest.approx(uninterrupted.predict(picture).score, abs=0.05)


def test_auto_precision_is_bfloat16_only_where_the_hardware_has_it():
    assert training_precision("auto", torch.device("cuda")) == "bfloat16"
    assert training_precision("float32", torch.device("cuda")) == "float32"
    assert training_precision("auto", torch.device("cpu")) in ("float32", "bfloat16")
    assert training_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, "bfloat16"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bfloat16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "float32"),
        ({"avx512_f": True}, "float32"),
    ],
)
def test_processors_with_instructions_for_bfloat16_train_in_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training_precision("auto", torch.device("cpu")) == precision


@pytest.fixture
def trainer(few_parts):
    """Of four steps in either stage, ready for the first; 8 pictures, three a batch."""
    sources = as_pictures(sorted(few_parts.iterdir())[:8])
    store = PictureStore(sources, Framing((64, 64)), progress=False)
    synthesis = Synthesis(store, from_normals(store), 3)
    torch.manual_seed(0)
    network = DeSTSegNet()
    return Trainer(
        network,
        synthesis,
        plan_of(network, synthesis, (4, 4), "float32", Settings("paper").parts),
        1 << 30,
    )


def calls_of(module):
    """A list that grows by the shape of every batch that the module sees, or of its first features."""
    seen = []

    def look(module, inputs, output):
        seen.append(tuple((inputs[0][0] if isinstance(inputs[0], list) else inputs[0]).shape))

    module.register_forward_hook(look)
    return seen


def test_no_work_is_wasted(trainer):
    network, synthesis = trainer.network, trainer.synthesis
    teacher, student = calls_of(network.teacher_net), calls_of(network.student_net)
    segmentation = calls_of(network.segmentation_net)
    for step in range(4):
        trainer.step(step, synthesis.batch(step))
    assert sum(n for n, *_ in teacher) == 9  # in threes, every clean picture once, not once a step
    assert (len(student), len(segmentation)) == (4, 0)
    teacher.clear()
    for parameter in network.student_net.parameters():
        parameter.grad = None
    for step in range(4, 8):
        trainer.step(step, synthesis.batch(step))
    assert (len(teacher), len(student), len(segmentation)) == (4, 8, 4)
    assert all(parameter.grad is None for parameter in network.student_net.parameters())
    assert not network.student_net.training


def test_one_pass_of_each_network_for_a_prediction(few_parts):
    model = fit(few_parts, steps=(0, 0))
    scoring = model.scorer.network
    networks = (scoring.teacher_net, scoring.student_net, scoring.segmentation_net)
    seen = [calls_of(network) for network in networks]
    model.predict(sorted(few_parts.iterdir())[0])
    assert [len(calls) for calls in seen] == [1, 1, 1]


def test_steps_start_from_the_losses_of_the_method(trainer):
    """The gradient is that of the published scale: 32 / batch times the student's loss, once the other."""
    for step, loss_of, scale in [(0, student_loss, 32 / 3), (4, fusion_loss, 1)]:
        batch, apart = trainer.synthesis.batch(step), copy.deepcopy(trainer.network).eval()
        part = "student_net" if step == 0 else "segmentation_net"
        getattr(apart, part).train()
        loss = loss_of(apart, batch.corrupted, batch.clean if step == 0 else batch.masks)
        loss.backward()
        assert trainer.step(step, batch).item() == pytest.approx(loss.item(), rel=1e-4)
        expected = dict(getattr(apart, part).named_parameters())
        for name, parameter in getattr(trainer.network, part).named_parameters():
            tolerance = 1e-3 * scale * expected[name].grad.abs().max()
            torch.testing.assert_close(parameter.grad, scale * expected[name].grad, rtol=0, atol=tolerance)


def test_each_stage_ends_with_the_average_of_its_last_quarter(few_parts):
    """Eight steps, of which the last two count, against the weights after seven and eight steps."""
    kept = []
    real_average = Trainer._keep_average

    def spy(self, step):
        network = self._trained_network(step < 8)
        kept.append({name: value.clone() for name, value in network.state_dict().items()})
        real_average(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_keep_average", spy)
        model = fit(few_parts, PAPER, steps=(8, 8))
    for part, (before_last, last) in (("student_net", kept[6:8]), ("segmentation_net", kept[14:])):
        for name, value in getattr(model.network_, part).state_dict().items():
            if value.is_floating_point():
                assert not torch.equal(before_last[name], last[name])
                torch.testing.assert_close(value, (before_last[name] + last[name]) / 2)


def test_training_that_diverges_says_so(few_parts, monkeypatch):
    monkeypatch.setattr("destseg.training.optimizers.STUDENT_RATE", float("inf"))
    with pytest.raises(RuntimeError, match="training diverged: the loss of step 5 is nan"):
        fit(few_parts, PAPER)


@pytest.mark.parametrize("steps", [5, (1,), (1, 2.5), (-1, 2), "ab"])
def test_words_about_wrong_schedules(few_parts, steps):
    with pytest.raises(
        ValueError, match=r"steps must be two whole numbers of at least 0, \(student, segmentation\), got"
    ):
        fit(few_parts, steps=steps)
