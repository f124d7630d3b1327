"""Checkpoints: killed processes continue to the same weights, other runs are refused, signals are kept."""

import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

import destseg
from destseg.model.teachers import EMBEDDED
from destseg.model.tensorfile import read_tensors, write_tensors
from destseg.pictures.decoding import to_rgb
from destseg.training.checkpoint import Plan, stop_requests, write
from destseg.training.trainer import Trainer

PAPER = {"preset": "paper", "teacher": "embedded"}  # the published network, without a download
SCHEDULE = {"steps": (4, 4), "batch_size": 2, "progress": False}


def fit(parts, settings=None, **schedule):
    model = destseg.DeSTSeg(image_size=64, precision="float32", **(settings or {}))
    return model.fit(parts, **(SCHEDULE | schedule))


def assert_same_weights(first, second):
    for name, value in first.network_.state_dict().items():
        assert torch.equal(value, second.network_.state_dict()[name]), name


PROCESS = """
    import os, sys
    import destseg
    from destseg.training.trainer import Trainer

    parts, checkpoint, number, after, minutes = sys.argv[1:]
    real_step = Trainer.step

    def step(self, step, batch):
        if step == int(after) and int(number):
            os.kill(os.getpid(), int(number))
        return real_step(self, step, batch)

    Trainer.step = step
    model = destseg.DeSTSeg(image_size=64, precision="float32")
    resume = checkpoint if os.path.exists(checkpoint) else None
    model.fit(parts, steps=(4, 4), batch_size=2, progress=False, checkpoint=checkpoint, resume=resume,
              checkpoint_minutes=float(minutes))
    model.save(checkpoint + ".model")
"""


def fit_in_a_process(parts, checkpoint, number=0, step=0, minutes=1000.0):
    """Fit, or go on with the checkpoint if there is one; the process sends itself a signal in that step."""
    arguments = [parts, checkpoint, int(number), step, minutes]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=checkpoint.parent)


@pytest.fixture(scope="module")
def uninterrupted_process(few_parts, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("whole") / "part"
    assert fit_in_a_process(few_parts, checkpoint).returncode == 0
    return destseg.load(f"{checkpoint}.model")


@pytest.mark.parametrize(
    ("number", "step", "minutes"),
    [
        (signal.SIGTERM, 3, 1000),  # asked to stop, at the last step of the first stage
        (signal.SIGINT, 5, 1000),  # Ctrl-C, in the second stage
        (signal.SIGKILL, 2, 0),  # without a chance to react: the last regular checkpoint
    ],
)
def test_a_killed_process_is_continued_to_the_same_weights(
    uninterrupted_process, few_parts, tmp_path, number, step, minutes
):
    checkpoint = tmp_path / "part"
    process = fit_in_a_process(few_parts, checkpoint, number, step, minutes)
    # Python turns SIGINT into KeyboardInterrupt, and ends itself with the signal after that; or with 1, where
    # what is installed beside torch runs code of its own at the end.
    interrupted = number == signal.SIGINT and process.stderr.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -number or (interrupted and process.returncode == 1), process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert fit_in_a_process(few_parts, checkpoint).returncode == 0
    resumed = destseg.load(f"{checkpoint}.model")
    assert resumed.losses_ == uninterrupted_process.losses_
    assert_same_weights(resumed, uninterrupted_process)


@pytest.mark.parametrize("settings", [PAPER, {"student_encoder": False}], ids=["paper", "no encoder"])
def test_every_step_is_continued_to_the_same_weights(few_parts, settings, tmp_path, monkeypatch):
    """Also where the average of a stage's last quarter, which the published network keeps, has begun."""
    path, steps, copies = tmp_path / "part.checkpoint", {"steps": (8, 8)}, []

    def keep(target, *state):
        write(target, *state)
        copies.append(target.read_bytes())

    monkeypatch.setattr("destseg.training.checkpoint.write", keep)
    whole = fit(few_parts, settings, checkpoint=path, checkpoint_minutes=0, **steps)
    assert len(copies) == 16
    for content in (copies[6], copies[7], copies[14], copies[15]):
        path.write_bytes(content)
        assert_same_weights(fit(few_parts, settings, resume=path, **steps), whole)


def test_a_plan_without_newer_options_means_what_its_version_did(few_parts, tmp_path):
    path = tmp_path / "part.checkpoint"
    whole = fit(few_parts, PAPER, checkpoint=path, checkpoint_minutes=0)
    state = read_tensors(path)
    for name in ("augment", "memory_bank", "bounded", "student_encoder"):
        del state["plan"][name]
    write_tensors(path, state)
    assert_same_weights(fit(few_parts, PAPER, resume=path), whole)


def test_a_checkpoint_from_before_distances_counted_ends_with_todays_weights(few_parts, tmp_path):
    """No thresholds belong to the maps of a network that is still trained."""
    path = tmp_path / "part.checkpoint"
    whole = fit(few_parts, checkpoint=path, checkpoint_minutes=0)
    state = read_tensors(path)
    assert state["network"].pop("memory_bank.distance_weight") == 1 / 4
    state["network"]["memory_bank.weight"] = torch.tensor(2 / 3)
    write_tensors(path, state)
    assert_same_weights(fit(few_parts, resume=path), whole)


def test_a_signal_at_any_moment_leaves_a_checkpoint(few_parts, tmp_path, monkeypatch):
    """Here while the time is looked up, when it has been decided that no checkpoint is due."""
    path, real_time = tmp_path / "part.checkpoint", time.monotonic

    def monotonic():
        caller = sys._getframe(1)
        if caller.f_code.co_name == "run" and caller.f_locals.get("step") == 2:
            signal.raise_signal(signal.SIGINT)
        return real_time()

    monkeypatch.setattr(time, "monotonic", monotonic)
    with pytest.raises(KeyboardInterrupt):
        fit(few_parts, checkpoint=path)
    assert path.exists()


@pytest.fixture
def asked_with_a_handler(few_parts, tmp_path, monkeypatch):
    """Fit, be asked to stop in the second step, with a handler of one's own in place; None if it returns."""
    real_step = Trainer.step

    def step(self, number, batch):
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        return real_step(self, number, batch)

    def run(handler):
        before = signal.signal(signal.SIGTERM, handler)
        try:
            return fit(few_parts, checkpoint=tmp_path / "part.checkpoint", steps=(2, 1))
        finally:
            signal.signal(signal.SIGTERM, before)

    monkeypatch.setattr(Trainer, "step", step)
    return run


def test_an_application_that_handles_the_signal_gets_no_part_trained_model(asked_with_a_handler, tmp_path):
    handled = []
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 2 of 3; go on with resume='.*part.checkp"):
        asked_with_a_handler(lambda number, frame: handled.append(number))
    assert handled == [signal.SIGTERM]
    assert (tmp_path / "part.checkpoint").exists()


def test_ignored_signals_stay_ignored(asked_with_a_handler):
    assert len(asked_with_a_handler(signal.SIG_IGN).losses_) == 3


def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(few_parts, tmp_path):
    path = tmp_path / "a.checkpoint"
    fit(few_parts, steps=(1, 0), checkpoint=path, checkpoint_minutes=0)
    with pytest.raises(ValueError, match=r"another run: steps was \[1, 0\], now \[4, 4\]$"):
        fit(few_parts, resume=path)
    with pytest.raises(ValueError, match=r"another run: textures was 0, now \d+$"):
        fit(few_parts, steps=(1, 0), resume=path, texture_source=few_parts)
    with pytest.raises(ValueError, match=r"another run: rotate was 0.0, now '90'$"):
        fit(few_parts, steps=(1, 0), resume=path, rotate="90")
    with pytest.raises(ValueError, match=r"another run: augment was '', now 'light'$"):
        fit(few_parts, steps=(1, 0), resume=path, augment="light")
    changed = np.stack([to_rgb(part) for part in sorted(few_parts.iterdir())])
    changed[-1] += 1
    with pytest.raises(ValueError, match=r"another run: normals was \d+, now \d+$"):
        fit(changed, steps=(1, 0), resume=path)
    state = read_tensors(EMBEDDED)
    other = {"teacher_weights": state | {"bn1.bias": state["bn1.bias"] + 1}}
    with pytest.raises(ValueError, match=r"another run: teacher was \d+, now \d+$"):
        fit(few_parts, other, steps=(1, 0), resume=path)
    with pytest.raises(
        ValueError, match=r"another run: light was True, now False; memory_bank was True, now False$"
    ):
        fit(few_parts, PAPER, steps=(1, 0), resume=path)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*b\.checkpoint"):
        fit(few_parts, resume=tmp_path / "b.checkpoint")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="damaged, truncated"):
        fit(few_parts, steps=(1, 0), resume=path)
    torch.save({"format": "something else"}, path)
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        fit(few_parts, steps=(1, 0), resume=path)


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


@pytest.fixture
def full_disk(monkeypatch):
    """A list of the steps after which a checkpoint can be written; at first none."""

    def write_some(path, plan, network, optimizer, average, losses):
        if len(losses) not in fine:
            raise OSError(f"{path} cannot be written: [Errno 28] No space left on device")
        write(path, plan, network, optimizer, average, losses)

    fine = []
    monkeypatch.setattr("destseg.training.checkpoint.write", write_some)
    return fine


def test_a_checkpoint_that_cannot_be_written_is_a_warning(few_parts, tmp_path, full_disk, caplog):
    path, schedule = tmp_path / "part.checkpoint", {"false_positive_rate": 0.1}
    model = fit(few_parts, checkpoint=path, checkpoint_minutes=0, **schedule)
    assert_same_weights(model, fit(few_parts, **schedule))
    assert model.calibration_ is not None and not path.exists()
    first, last = (text for text in caplog.messages if "No space left" in text)
    cause = f"{path} cannot be written: [Errno 28] No space left on device"
    assert first == f"{cause}; training goes on without it"
    assert last == f"{cause}; all is trained, but the model is in memory only until it is saved"


def test_a_disk_that_fills_while_torch_writes_is_no_more_than_that(
    few_parts, tmp_path, caplog, no_file_grows
):
    """Torch says "enforce fail at inline_container.cc"."""
    path = tmp_path / "part.checkpoint"
    model = fit(few_parts, steps=(1, 1), checkpoint=path, checkpoint_minutes=0)
    assert len(model.losses_) == 2 and model.calibration_ is not None and not list(tmp_path.iterdir())
    told = [text for text in caplog.messages if "too large" in text]
    assert len(told) == 2 and all(text.startswith(f"{path} cannot be written: ") for text in told)


def test_it_is_told_once_and_no_more_when_it_can_be_written_again(few_parts, tmp_path, full_disk, caplog):
    full_disk += [5, 6, 7, 8]
    path = tmp_path / "part.checkpoint"
    fit(few_parts, checkpoint=path, checkpoint_minutes=0)
    told = [text for text in caplog.messages if "No space left" in text]
    assert len(told) == 1 and told[0].endswith("training goes on without it")
    assert path.exists()


def test_what_an_interrupted_run_could_not_write_is_told(few_parts, tmp_path, full_disk, monkeypatch, caplog):
    real_step = Trainer.step

    def step(self, number, batch):
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    path = tmp_path / "part.checkpoint"
    before = signal.signal(signal.SIGINT, lambda *_: None)  # an application's own handler, which returns
    try:
        with pytest.raises(KeyboardInterrupt, match=r"stopped at step 4 of 8; .* cannot be written: .*space"):
            fit(few_parts, checkpoint=path)
        assert caplog.messages[-1].endswith("left on device; the steps since the last checkpoint are lost")
        full_disk.append(2)
        with pytest.raises(KeyboardInterrupt, match=r"stopped at step 4 of 8; go on with resume="):
            fit(few_parts, checkpoint=path, checkpoint_minutes=0)
        assert caplog.messages[-1].endswith("left on device; the steps since the last checkpoint are lost")
    finally:
        signal.signal(signal.SIGINT, before)


def test_rotation_as_text_is_the_same_run(few_parts, tmp_path):
    path = tmp_path / "a.checkpoint"
    fit(few_parts, steps=(1, 0), checkpoint=path, rotate=0)
    assert len(fit(few_parts, steps=(1, 0), resume=path, rotate="0").losses_) == 1


def test_a_plan_survives_a_file_of_tensors(tmp_path):
    parts = {"denoising": True, "encoder_decoder": True, "segmentation": False, "light": False}
    stored = Plan((1, 2), 3, "90", "", "light", 4, (64, 96), parts, "float32", 5, 6, 7, 8, None).stored()
    assert stored["steps"] == [1, 2]
    assert stored["image_size"] == [64, 96]
    assert parts.items() < stored.items() and "parts" not in stored  # as in files of earlier versions
    write_tensors(tmp_path / "plan", stored)
    assert read_tensors(tmp_path / "plan") == stored
