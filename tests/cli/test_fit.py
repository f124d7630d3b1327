"""The command line: the same verbs, in a process of their own where that matters."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg.cli import _OutputNames, main
from destseg.training import Trainer


@pytest.fixture(scope="module")
def model(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "part.destseg"
    fitted.save(path)
    return path


def run(*arguments):
    """Run the command in a new process and return it, finished."""
    command = [sys.executable, "-m", "destseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())


def test_fit_then_predict_in_another_process_with_only_the_saved_file(few_parts, teacher_weights, tmp_path):
    output = tmp_path / "new" / "part.destseg"
    schedule = [
        "--size",
        "64",
        "--steps",
        "1",
        "1",
        "--batch-size",
        "2",
        "--teacher-weights",
        teacher_weights,
    ]
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


def test_nobody_reads_on(model, few_parts, tmp_path):
    for arguments in (["info", model], ["predict", model, few_parts, "-o", tmp_path]):
        command = [sys.executable, "-m", "destseg", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_fit_shows_stage_loss_and_time_left_on_a_terminal(few_parts, teacher_weights, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "destseg", "fit", few_parts, "-o", tmp_path / "m", "--size", "64"]
    command += ["--steps", "1", "1", "--batch-size", "2", "--teacher-weights", teacher_weights]
    process = subprocess.Popen(list(map(str, command)), stderr=theirs, cwd=tmp_path)
    assert process.wait() == 0
    shown = os.read(ours, 1 << 16).decode()
    assert "student:" in shown and "segmentation: 100%" in shown
    assert "loss=" in shown and "2/2 [" in shown
    assert f"wrote {tmp_path / 'm'}" in shown


def test_an_interrupted_fit_is_not_overwritten(few_parts, teacher_weights, tmp_path, capsys):
    (tmp_path / "part.destseg.checkpoint").write_bytes(b"hours of work")
    arguments = ["fit", str(few_parts), "-o", str(tmp_path / "part.destseg"), "--size", "64"]
    assert main([*arguments, "--teacher-weights", str(teacher_weights)]) == 1
    assert "go on with --resume, or delete it" in capsys.readouterr().err
    assert (tmp_path / "part.destseg.checkpoint").read_bytes() == b"hours of work"


def test_an_interrupted_fit_is_continued_by_resume(few_parts, teacher_weights, tmp_path, monkeypatch, capsys):
    output, done, real_step = tmp_path / "part.destseg", [], Trainer.step
    command = ["fit", str(few_parts), "-o", str(output), "--size", "64", "--steps", "1", "2"]
    command += ["--batch-size", "2", "--teacher-weights", str(teacher_weights), "--checkpoint-minutes", "0"]

    def step(self, number, batch):
        if number == 1 and not done.count(1):
            done.append(number)
            raise KeyboardInterrupt
        done.append(number)
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("destseg fit: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["part.destseg.checkpoint"]
    assert main([*command, "--resume"]) == 0
    assert done == [0, 1, 1, 2]  # the first step was not done again
    assert len(destseg.load(output).losses_) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["part.destseg"]


def test_nothing_to_resume(tmp_path, capsys):
    assert main(["fit", "parts", "-o", str(tmp_path / "part.destseg"), "--resume"]) == 1
    assert "there is no" in (error := capsys.readouterr().err) and "part.destseg.checkpoint" in error
    assert "leave out --resume to begin anew" in error


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "parts", "-o"],
        ["calibrate", "m", "-o"],
        *(["evaluate", "m", "d", f"--{kind}"] for kind in ("json", "csv", "defects-csv")),
    ],
    ids=" ".join,
)
def test_outputs_that_cannot_be_written_are_refused_before_anything_is_read(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*command, str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder; a file to write is wanted" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "file" / "output")]) == 2
    assert "output cannot be written: " in capsys.readouterr().err


def test_models_are_not_written_under_the_names_of_exported_ones(tmp_path, capsys):
    for command in (["fit", "missing", "-o"], ["calibrate", "missing", "-o"]):
        assert main([*command, str(tmp_path / "part.onnx")]) == 2
        assert "are for exported models; save a fitted one as part.destseg" in capsys.readouterr().err


def test_options_that_do_not_fit_together_are_wrong_usage(tmp_path, capsys):
    command = ["fit", "missing", "-o", str(tmp_path / "m"), "--size", "64", "--tile"]
    assert main([*command, "5"]) == 2
    assert "tile must be at least a quarter of the input" in capsys.readouterr().err
    assert main([*command, "64x96", "--keep-aspect"]) == 2
    assert "must have the aspect of the input" in capsys.readouterr().err


def test_predict_names_the_pictures_it_cannot_read_and_goes_on(model, few_parts, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = sorted(few_parts.iterdir())[0]
    assert main(["predict", str(model), str(broken), str(good)]) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["source"] == str(broken) and "broken.png" in first["error"]
    assert second["source"] == str(good) and "score" in second
    assert main(["predict", str(model), str(broken), "--strict"]) == 1
    assert "broken.png" in capsys.readouterr().err


def test_pictures_of_the_same_name_do_not_overwrite_each_other(model, few_parts, tmp_path, capsys):
    picture = PIL.Image.open(sorted(few_parts.iterdir())[0])
    for path in ("a/x/1.png", "a/y/1.png", "a/y/1.bmp", "b/1.png", "c/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / path)
    given = [tmp_path / "a", tmp_path / "b" / "1.png", tmp_path / "c" / "1.png"]
    out = tmp_path / "out"
    assert main(["predict", str(model), *map(str, given), "-o", str(out), "--maps", "npy"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({line["overlay"] for line in lines} | {line["map"] for line in lines}) == 10
    assert (out / "x" / "1_map.npy").exists() and (out / "y" / "1_overlay.png").exists()


def test_names_of_many_outputs_take_no_time():
    names, started = _OutputNames([]), time.monotonic()
    found = [names.of(f"{folder}/part.1.png") for folder in range(2000)]
    assert time.monotonic() - started < 3  # trying all names for each picture took 10 seconds and more
    assert [str(path) for path in found[:4]] == ["part.1", "part_1_png", "part.1_2", "part.1_3"]
    assert len(set(found)) == 2000


def test_no_overlays_and_no_folder_write_nothing(model, few_parts, tmp_path, capsys):
    picture = str(sorted(few_parts.iterdir())[0])
    assert main(["predict", str(model), picture]) == 0
    assert main(["predict", str(model), picture, "-o", str(tmp_path / "o"), "--no-overlays"]) == 0
    assert not (tmp_path / "o").exists()
    assert "overlay" not in capsys.readouterr().out


def test_evaluate_prints_a_table_and_writes_json_and_csv(model, few_parts, tmp_path, capsys):
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / folder).mkdir(parents=True)
    first, second = (PIL.Image.open(path) for path in sorted(few_parts.iterdir())[:2])
    first.save(tmp_path / "test/good/1.png")
    second.save(tmp_path / "test/hole/2.png")
    PIL.Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), ((9, 62), (9, 78)))).save(
        tmp_path / "ground_truth/hole/2_mask.png"
    )
    written = [
        "--json",
        tmp_path / "r.json",
        "--csv",
        tmp_path / "r.csv",
        "--defects-csv",
        tmp_path / "d.csv",
    ]
    assert main(["evaluate", *map(str, [model, tmp_path, *written])]) == 0
    assert "image auroc" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["instances"] == 1
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3
    assert [line.split(",")[0] for line in (tmp_path / "d.csv").read_text().splitlines()[1:]] == [
        "hole",
        "good",
        "all",
    ]


def test_calibrate_writes_a_new_threshold(model, few_parts, tmp_path, capsys):
    output = tmp_path / "new.destseg"
    command = ["calibrate", str(model), str(few_parts), "-o", str(output), "--false-positive-rate", "0.5"]
    assert main(command) == 0
    assert "calibration pictures: 24\nguaranteed false-positive rate: 0.5\n" in capsys.readouterr().out
    assert main(["info", str(output)]) == 0
    assert "calibration pictures: 24" in capsys.readouterr().out


def test_info_tells_about_the_installation_and_a_model(model, capsys, monkeypatch):
    assert main(["info"]) == 0
    assert "compiled kernels: " in capsys.readouterr().out
    monkeypatch.setattr(destseg, "load", None)  # the file is read once
    assert main(["info", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "preset: paper" in printed and "training steps: 4" in printed and "threshold: " in printed


def test_info_about_a_model_of_one_picture(fitted, tmp_path, capsys):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model.calibration_ = dataclasses.replace(model.calibration_, trained_on=True)
    model.save(tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    words = "guaranteed false-positive rate: none: the only picture was trained on\n"
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "missing.destseg", "a.png"], "no such file: missing.destseg"),
        (["evaluate", "missing.destseg", "."], "no such file: missing.destseg"),
        (["fit", "missing", "-o", "m"], "missing"),
    ],
)
def test_failure_exits_with_1_and_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import destseg.metrics", "destseg runs without its compiled kernels: same results"),
        ("destseg.cli.main(['fit', 'missing', '-o', 'm', '--size', '64'])", "destseg fit: there is no"),
    ],
)
def test_one_line_of_notice_without_kernels_but_not_where_commands_are_piped(code, words, tmp_path):
    command = f"import sys, destseg.cli; sys.modules['destseg._C'] = None; {code}"
    environment = {name: value for name, value in os.environ.items() if name != "DESTSEG_EXT"}
    arguments = [sys.executable, "-c", command]
    process = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    (line,) = process.stderr.splitlines()
    assert line.startswith(words)
