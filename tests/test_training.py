"""Training: checkpoints, interruptions, reproducibility, small numbers of pictures, the ablation's rows."""

import itertools
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import destseg
from destseg.training import Plan, Trainer, plain, stop_requests, training_precision

SETTINGS = {"image_size": 64, "precision": "float32"}
SCHEDULE = {"steps": (3, 3), "batch_size": 2, "progress": False}


def fit(parts, weights, settings=None, **schedule):
    model = destseg.DeSTSeg(**(SETTINGS | {"teacher_weights": weights} | (settings or {})))
    return model.fit(parts, **(SCHEDULE | schedule))


def weights_of(model):
    return model.network_.state_dict()


def assert_same_weights(first, second):
    for name, value in weights_of(first).items():
        assert torch.equal(value, weights_of(second)[name]), name


@pytest.fixture(scope="module")
def uninterrupted(few_parts, teacher_weights):
    return fit(few_parts, teacher_weights)


def test_the_same_seed_gives_the_same_model_whatever_the_workers_and_the_memory(
    uninterrupted, few_parts, teacher_weights
):
    again = fit(few_parts, teacher_weights, workers=0, memory=0)
    # Without memory the teacher is asked at every step instead of once: equal but for rounding.
    assert again.losses_ == pytest.approx(uninterrupted.losses_, rel=1e-3)
    assert_same_weights(fit(few_parts, teacher_weights, workers=3), uninterrupted)


def test_another_seed_gives_another_model(uninterrupted, few_parts, teacher_weights):
    assert fit(few_parts, teacher_weights, {"seed": 1}).losses_ != uninterrupted.losses_


def test_fitting_leaves_the_random_state_of_torch_alone(few_parts, teacher_weights):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(few_parts, teacher_weights, steps=(0, 1))
    assert torch.equal(torch.rand(3), expected)


PROCESS = """
    import os, sys
    import destseg
    from destseg.training import Trainer

    parts, weights, checkpoint, number, after, minutes = sys.argv[1:]
    real_step = Trainer.step

    def step(self, step, batch):
        if step == int(after) and int(number):
            os.kill(os.getpid(), int(number))
        return real_step(self, step, batch)

    Trainer.step = step
    model = destseg.DeSTSeg(image_size=64, precision="float32", teacher_weights=weights)
    resume = checkpoint if os.path.exists(checkpoint) else None
    model.fit(parts, steps=(3, 3), batch_size=2, progress=False, checkpoint=checkpoint, resume=resume,
              checkpoint_minutes=float(minutes))
    model.save(checkpoint + ".model")
"""


def fit_in_a_process(parts, weights, checkpoint, number=0, step=0, minutes=1000.0):
    """Fit, or go on with the checkpoint if there is one; the process sends itself a signal in that step."""
    arguments = [parts, weights, checkpoint, int(number), step, minutes]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=checkpoint.parent)


@pytest.fixture(scope="module")
def uninterrupted_process(few_parts, teacher_weights, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("whole") / "part"
    assert fit_in_a_process(few_parts, teacher_weights, checkpoint).returncode == 0
    return destseg.load(f"{checkpoint}.model")


@pytest.mark.parametrize(
    ("number", "step", "minutes"),
    [
        (signal.SIGTERM, 2, 1000),  # asked to stop, at the last step of the first stage
        (signal.SIGINT, 4, 1000),  # Ctrl-C, in the second stage
        (signal.SIGKILL, 2, 0),  # without a chance to react: the last regular checkpoint
    ],
)
def test_a_killed_process_is_continued_to_the_same_weights(
    uninterrupted_process, few_parts, teacher_weights, tmp_path, number, step, minutes
):
    checkpoint = tmp_path / "part"
    process = fit_in_a_process(few_parts, teacher_weights, checkpoint, number, step, minutes)
    # Python turns SIGINT into KeyboardInterrupt, and ends itself with the signal after that.
    assert process.returncode == -number, process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert fit_in_a_process(few_parts, teacher_weights, checkpoint).returncode == 0
    resumed = destseg.load(f"{checkpoint}.model")
    assert resumed.losses_ == uninterrupted_process.losses_
    assert_same_weights(resumed, uninterrupted_process)


def test_a_finished_checkpoint_is_continued_without_a_step(
    uninterrupted, few_parts, teacher_weights, tmp_path
):
    path = tmp_path / "done.checkpoint"
    fit(few_parts, teacher_weights, checkpoint=path, checkpoint_minutes=0)
    assert_same_weights(fit(few_parts, teacher_weights, resume=path), uninterrupted)


def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(
    few_parts, teacher_weights, tmp_path
):
    path = tmp_path / "a.checkpoint"
    fit(few_parts, teacher_weights, steps=(1, 0), checkpoint=path, checkpoint_minutes=0)
    with pytest.raises(ValueError, match=r"another run: steps was \[1, 0\], now \[3, 3\]"):
        fit(few_parts, teacher_weights, resume=path)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*b\.checkpoint"):
        fit(few_parts, teacher_weights, resume=tmp_path / "b.checkpoint")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="damaged, truncated"):
        fit(few_parts, teacher_weights, steps=(1, 0), resume=path)
    torch.save({"format": "something else"}, path)
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        fit(few_parts, teacher_weights, steps=(1, 0), resume=path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pictures_and_batches_of_one_and_more_than_there_are(few_parts, teacher_weights, count):
    pictures = sorted(few_parts.iterdir())[:count]
    for batch_size in (1, 4):
        model = fit(pictures, teacher_weights, steps=(1, 1), batch_size=batch_size)
        assert all(loss > 0 for loss in model.losses_)
        assert len(model.calibration_.scores) == max(1, count // 2)


@pytest.mark.parametrize("size", [(65, 97), (64, 130)])
def test_sides_need_not_be_multiples_of_32(few_parts, teacher_weights, size):
    model = fit(few_parts, teacher_weights, {"image_size": size}, steps=(1, 1))
    picture = sorted(few_parts.iterdir())[0]
    assert model.predict(picture).anomaly_map.shape == model.predict(picture).image.shape[:2]


@pytest.mark.parametrize("switches", list(itertools.product([False, True], repeat=3)))
def test_all_rows_of_the_ablation_can_be_trained_and_predict(few_parts, teacher_weights, switches):
    names = ("denoising", "encoder_decoder", "segmentation")
    settings = dict(zip(names, switches, strict=True))
    model = fit(few_parts, teacher_weights, settings, steps=(2, 2))
    assert len(model.losses_) == (4 if settings["segmentation"] else 2)  # no second stage without its network
    anomaly_map = model.predict(sorted(few_parts.iterdir())[0]).anomaly_map
    assert 0 <= anomaly_map.min() <= anomaly_map.max() <= 1


def test_stpm_is_the_row_without_any_of_them(few_parts, teacher_weights):
    model = fit(few_parts, teacher_weights, {"preset": "stpm"}, steps=(1, 1))
    off = dict.fromkeys(("denoising", "encoder_decoder", "segmentation"), False)
    assert_same_weights(model, fit(few_parts, teacher_weights, off, steps=(1, 1)))


def test_each_stage_changes_its_own_network_only(few_parts, teacher_weights):
    before, student, both = (
        weights_of(fit(few_parts, teacher_weights, steps=steps)) for steps in ((0, 0), (2, 0), (2, 2))
    )

    def changed(first, second):
        return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}

    assert changed(before, student) == {"student_net"}
    assert changed(student, both) == {"segmentation_net"}


def test_the_student_learns(few_parts, teacher_weights):
    losses = fit(few_parts, teacher_weights, steps=(20, 0), batch_size=4).losses_
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize("arguments", [{"rotate": 5}, {"rotate": "90"}, {"flip": "both"}])
def test_rotations_and_flips_are_trained_with(few_parts, teacher_weights, uninterrupted, arguments):
    assert fit(few_parts, teacher_weights, **arguments).losses_ != uninterrupted.losses_


def test_bfloat16_training_keeps_float32_weights_and_stays_close(few_parts, teacher_weights, uninterrupted):
    model = fit(few_parts, teacher_weights, {"precision": "bfloat16"})
    assert all(value.dtype != torch.bfloat16 for value in weights_of(model).values())
    assert model.losses_[0] == pytest.approx(uninterrupted.losses_[0], rel=0.02)


def test_auto_precision_is_bfloat16_only_where_the_hardware_has_it():
    assert training_precision("auto", torch.device("cuda")) == "bfloat16"
    assert training_precision("float32", torch.device("cuda")) == "float32"
    assert training_precision("auto", torch.device("cpu")) in ("float32", "bfloat16")
    assert training_precision("auto", torch.device("mps")) == "float32"


def test_signals_keep_their_handlers_where_no_checkpoint_is_wanted():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests(wanted=False):
        assert signal.getsignal(signal.SIGINT) is before
    with stop_requests(wanted=True) as requests:
        signal.raise_signal(signal.SIGTERM)
        assert requests == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):  # asked twice: at once
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_plan_survives_a_file_of_tensors():
    plan = Plan((1, 2), 3, 4, (64, 96), "90", "", 5, "float32", True, True, True)
    assert plain(plan)["steps"] == [1, 2]
    assert plain(plan)["image_size"] == [64, 96]
    assert Trainer.__doc__
