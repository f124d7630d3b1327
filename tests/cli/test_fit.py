"""`destseg fit` on the command line, in a process of its own where that matters."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg.cli import main
from destseg.training.trainer import Trainer


def run(*arguments):
    """Run the command in a new process and return it, finished."""
    command = [sys.executable, "-m", "destseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())


def test_fit_then_predict_in_another_process_with_only_the_saved_file(few_parts, tmp_path):
    output = tmp_path / "new" / "part.destseg"
    schedule = ["--size", "64", "--steps", "1", "1", "--batch-size", "2"]
    fitting = run("fit", few_parts, "-o", output, *schedule, "--false-positive-rate", "0.1")
    assert (fitting.returncode, fitting.stdout, fitting.stderr) == (0, "", "")  # quiet when piped
    assert [path.name for path in output.parent.iterdir()] == ["part.destseg"]  # and no checkpoint left
    prediction = run("predict", output, few_parts, "-o", tmp_path / "out", "--maps", "png")
    assert (prediction.returncode, prediction.stderr) == (0, "")
    lines = [json.loads(line) for line in prediction.stdout.splitlines()]
    assert [line["source"] for line in lines] == [str(path) for path in sorted(few_parts.iterdir())]
    assert {"score", "threshold", "is_anomalous", "p_value", "regions", "overlay", "map"} < set(lines[0])
    assert PIL.Image.open(lines[0]["overlay"]).size == (96, 80)
    assert np.asarray(PIL.Image.open(lines[0]["map"])).shape == (80, 96)


@pytest.mark.parametrize(
    ("options", "preset", "teacher", "schedule"),
    [
        ([], "fast", "embedded", ((600, 800), 8)),
        (["--preset", "paper", "--size", "64"], "paper", "resnet18", ((1000, 4000), 32)),
        (
            ["--preset", "paper", "--teacher", "embedded", "--size", "64"],
            "paper",
            "embedded",
            ((1000, 4000), 32),
        ),
    ],
)
def test_what_is_left_open_is_the_presets(
    few_parts, teacher_weights, tmp_path, monkeypatch, options, preset, teacher, schedule
):
    def train(network, settings, schedule, *_):
        done.append((settings.preset, settings.teacher, network.light, (schedule.steps, schedule.batch_size)))
        return []

    done = []
    monkeypatch.setattr("destseg.training.fit.train", train)
    monkeypatch.setenv("DESTSEG_TEACHER_WEIGHTS", str(teacher_weights))
    output = tmp_path / "part.destseg"
    assert main(["fit", str(few_parts), "-o", str(output), *options]) == 0
    assert done == [(preset, teacher, preset == "fast", schedule)]
    assert (destseg.load(output).preset, destseg.load(output).teacher) == (preset, teacher)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_fit_shows_stage_loss_and_time_left_on_a_terminal(few_parts, tmp_path):
    import fcntl
    import pty
    import select
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "destseg", "fit", few_parts, "-o", tmp_path / "m", "--size", "64"]
    command += ["--steps", "1", "1", "--batch-size", "2"]
    process = subprocess.Popen(list(map(str, command)), stderr=theirs, cwd=tmp_path)
    content = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:  # a terminal holds 4 kB
        if select.select([ours], [], [], 0.1)[0]:
            content += os.read(ours, 1 << 16)
    shown = content.decode()
    assert process.returncode == 0, shown
    assert "pictures found; preset fast, teacher embedded, on " in shown
    assert "training: 1 + 1 steps of 2 on " in shown and " none left out; " in shown
    assert "fitted; of new normal pictures at most " in shown and "; threshold " in shown
    assert f"next: destseg predict {tmp_path / 'm'} PICTURES -o results" in shown
    assert "student:" in shown and "segmentation: 100%" in shown
    assert "loss=" in shown and "2/2 [" in shown
    assert f"wrote {tmp_path / 'm'}" in shown


def test_an_interrupted_fit_is_not_overwritten(few_parts, tmp_path, capsys):
    (tmp_path / "part.destseg.checkpoint").write_bytes(b"hours of work")
    arguments = ["fit", str(few_parts), "-o", str(tmp_path / "part.destseg"), "--size", "64"]
    assert main(arguments) == 1
    assert "go on with --resume, or delete it" in capsys.readouterr().err
    assert (tmp_path / "part.destseg.checkpoint").read_bytes() == b"hours of work"


def test_an_interrupted_fit_is_continued_by_resume(few_parts, tmp_path, monkeypatch, capsys):
    output, done, real_step = tmp_path / "part.destseg", [], Trainer.step
    command = ["fit", str(few_parts), "-o", str(output), "--size", "64", "--steps", "1", "2"]
    command += ["--batch-size", "2", "--checkpoint-minutes", "0"]

    def step(self, number, batch):
        if number == 1 and not done.count(1):
            done.append(number)
            raise KeyboardInterrupt
        done.append(number)
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    assert main(command) == 130
    words = "destseg fit: interrupted: the same command with --resume goes on from the last checkpoint\n"
    assert capsys.readouterr().err.endswith(words)
    assert [path.name for path in tmp_path.iterdir()] == ["part.destseg.checkpoint"]
    assert main([*command, "--resume"]) == 0
    assert done == [0, 1, 1, 2]  # the first step was not done again
    assert len(destseg.load(output).losses_) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["part.destseg"]


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(few_parts, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("destseg.detector.PictureStore", stop)
    assert main(["fit", str(few_parts), "-o", str(tmp_path / "m"), "--size", "64"]) == 130
    assert capsys.readouterr().err.endswith("destseg fit: interrupted\n")


def test_nothing_to_resume(tmp_path, capsys):
    assert main(["fit", "parts", "-o", str(tmp_path / "part.destseg"), "--resume"]) == 1
    assert "there is no" in (error := capsys.readouterr().err) and "part.destseg.checkpoint" in error
    assert "leave out --resume to begin anew" in error


def test_options_that_do_not_fit_together_are_wrong_usage(tmp_path, capsys):
    command = ["fit", "missing", "-o", str(tmp_path / "m"), "--size", "64", "--tile"]
    assert main([*command, "5"]) == 2
    assert "tile must be at least a quarter of the input" in capsys.readouterr().err
    assert main([*command, "64x96", "--keep-aspect"]) == 2
    assert "must have the aspect of the input" in capsys.readouterr().err
