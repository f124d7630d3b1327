"""Commands whose results cannot be written when all is computed: nothing is lost, and the cause is told."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg.cli import main

FULL = "No space left on device"
FIT = ["--size", "64", "--steps", "1", "1", "--batch-size", "2", "--false-positive-rate", "0.1"]


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A set of endings of file names: while one is in it, such files cannot be written."""

    def replace(source, target):
        if any(os.fspath(target).endswith(ending) for ending in full):
            raise OSError(errno.ENOSPC, FULL)
        return real(source, target)

    full, real = set(), os.replace
    monkeypatch.setattr("destseg.files.os.replace", replace)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return full


@pytest.fixture
def dataset(few_parts, tmp_path):
    """Two good pictures, and two with a hole."""
    first, second, third, fourth = sorted(few_parts.iterdir())[:4]
    for name, path in (("good/1", first), ("good/2", second), ("hole/3", third), ("hole/4", fourth)):
        (tmp_path / f"set/test/{name}").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / f"set/test/{name}.png")
    (tmp_path / "set/ground_truth/hole").mkdir(parents=True)
    mask = np.pad(np.full((9, 9), 255, np.uint8), ((9, 62), (9, 78)))
    for k in (3, 4):
        PIL.Image.fromarray(mask).save(tmp_path / f"set/ground_truth/hole/{k}_mask.png")
    return tmp_path / "set"


def test_evaluate_prints_its_table_and_writes_what_can_be_written(model, dataset, tmp_path, disk, capsys):
    disk |= {".json", "defects.csv"}
    outputs = {"--json": "r.json", "--csv": "rows.csv", "--defects-csv": "defects.csv"}
    command = ["evaluate", model, dataset]
    for option, name in outputs.items():
        command += [option, tmp_path / name]
    assert main(list(map(str, command))) == 1
    printed = capsys.readouterr()
    assert "image auroc" in printed.out
    last = printed.err.splitlines()[-1]
    assert last.startswith(f"destseg evaluate: {tmp_path / 'r.json'} cannot be written: ") and FULL in last
    assert f"; {tmp_path / 'defects.csv'} cannot be written: " in last
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 5


needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")


def run_into_full_device(*arguments):
    command = [sys.executable, "-m", "destseg", *map(str, arguments)]
    with open("/dev/full", "w") as full:
        return subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)


@needs_full_device
def test_a_table_that_cannot_be_printed_lands_on_standard_error(model, dataset, tmp_path):
    process = run_into_full_device("evaluate", model, dataset, "--json", tmp_path / "r.json")
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert "image auroc" in lines[0] and lines[1].split()[0] == "hole"
    assert lines[-1] == f"destseg evaluate: standard output cannot be written: [Errno 28] {FULL}"
    assert "image_auroc" in json.loads((tmp_path / "r.json").read_text())


@needs_full_device
@pytest.mark.parametrize("verb", ["predict", "info", "calibrate"])
def test_other_results_do_as_well(model, few_parts, tmp_path, verb):
    more = {"predict": [few_parts], "info": [], "calibrate": ["-o", tmp_path / "new.destseg"]}[verb]
    process = run_into_full_device(verb, model, *more)
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert lines[-1] == f"destseg {verb}: standard output cannot be written: [Errno 28] {FULL}"
    words = {"predict": '"score": ', "info": "destseg 0.1.0", "calibrate": "calibration pictures: "}[verb]
    assert words in process.stderr
    assert (tmp_path / "new.destseg").exists() == (verb == "calibrate")


@needs_full_device
def test_a_report_may_be_written_to_a_device(model, dataset):
    command = [sys.executable, "-m", "destseg", "evaluate", model, dataset, "--json", "/dev/stdout"]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert process.returncode == 0
    table, report = process.stdout.split("\n{", 1)
    assert "image auroc" in table and "image_auroc" in json.loads("{" + report)
    process = subprocess.run([*map(str, command[:-1]), "/dev/full"], capture_output=True, text=True)
    assert process.returncode == 1 and process.stdout.rstrip("\n") == table
    assert f"/dev/full cannot be written: [Errno 28] {FULL}" in process.stderr
    assert not os.path.isfile("/dev/full")


def test_predict_tells_which_pictures_have_no_files_and_goes_on(model, few_parts, tmp_path, disk, capsys):
    disk |= {"02_overlay.png", "05_map.npy"}
    command = ["predict", model, few_parts, "-o", tmp_path / "out", "--maps", "npy"]
    assert main(list(map(str, command))) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert len(lines) == 24 and all("score" in line for line in lines)
    assert [k for k, line in enumerate(lines) if "error" in line] == [2, 5]
    path = tmp_path / "out" / "02_overlay.png"
    assert lines[2]["error"] == f"{path} cannot be written: [Errno 28] {FULL}"
    assert "overlay" not in lines[2] and "overlay" in lines[5] and "map" not in lines[5]
    last = printed.err.splitlines()[-1]
    assert last == f"destseg predict: files of 2 of 24 pictures are missing; the first: {lines[2]['error']}"


def test_a_picture_whose_name_leaves_no_room_for_an_ending_ends_nothing(model, few_parts, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    first, second = sorted(few_parts.iterdir())[:2]
    shutil.copy(first, tmp_path / "in" / ("a" * 250 + ".png"))
    shutil.copy(second, tmp_path / "in" / "b.png")
    assert main(["predict", str(model), str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    long, short = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "score" in long and "name too long" in long["error"]
    assert "error" not in short and os.path.exists(short["overlay"])


def test_an_overlay_too_large_for_memory_ends_nothing(model, few_parts, tmp_path, capsys, monkeypatch):
    def overlay(prediction):
        if prediction.source.endswith("03.png"):
            raise MemoryError
        return real(prediction)

    real = destseg.Prediction.overlay
    monkeypatch.setattr(destseg.Prediction, "overlay", overlay)
    assert main(["predict", str(model), str(few_parts), "-o", str(tmp_path / "out")]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    errors = [line["error"] for line in lines if "error" in line]
    assert errors == [f"{few_parts / '03.png'}: there is not enough memory for this picture"]


def test_calibrate_tells_the_thresholds_and_saves_the_model_elsewhere(model, tmp_path, disk, capsys):
    disk |= {str(tmp_path / "new.destseg")}
    command = ["calibrate", model, "-o", tmp_path / "new.destseg", "--false-positive-rate", "0.5"]
    assert main(list(map(str, command))) == 1
    printed = capsys.readouterr()
    assert "guaranteed false-positive rate: 0.5\n" in printed.out
    (rescued,) = (tmp_path / "temporary").rglob("new.destseg")
    error = f"{tmp_path / 'new.destseg'} cannot be written: [Errno 28] {FULL}"
    words = f"destseg calibrate: {error}; the model is saved as {rescued} instead"
    assert printed.err.splitlines()[-1] == words
    assert destseg.load(rescued).calibration_.false_positive_rate == 0.5


def test_exported_models_are_saved_elsewhere_too(exported, tmp_path, disk, capsys):
    output = tmp_path / f"new{exported.suffix}"
    disk |= {str(output), str(output.with_suffix(".bin"))}
    command = ["calibrate", exported, "-o", output, "--false-positive-rate", "0.5"]
    assert main(list(map(str, command))) == 1
    (rescued,) = (tmp_path / "temporary").rglob(output.name)
    assert f"is saved as {rescued} instead" in capsys.readouterr().err
    assert destseg.load(rescued).calibration_.false_positive_rate == 0.5


def test_fit_saves_the_model_elsewhere_and_keeps_the_checkpoint(few_parts, tmp_path, disk, capsys):
    output = tmp_path / "part.destseg"
    disk |= {str(output)}
    command = ["fit", str(few_parts), "-o", str(output), *FIT]
    assert main(command) == 1
    (rescued,) = (tmp_path / "temporary").rglob("part.destseg")
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"destseg fit: {output} cannot be written: [Errno 28] {FULL}; the model is saved as {rescued} "
        "instead; the same command with --resume goes on from the last checkpoint"
    )
    assert len(destseg.load(rescued).losses_) == 2
    disk.clear()
    assert main([*command, "--resume"]) == 0
    assert destseg.load(output).losses_ == destseg.load(rescued).losses_
    assert not (tmp_path / "part.destseg.checkpoint").exists()


def test_where_nothing_can_be_written_the_checkpoint_is_what_is_left(few_parts, tmp_path, disk, capsys):
    disk |= {"part.destseg"}
    assert main(["fit", str(few_parts), "-o", str(tmp_path / "part.destseg"), *FIT]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"destseg fit: {tmp_path / 'part.destseg'} cannot be written: ")
    assert "saved as" not in last and last.endswith("--resume goes on from the last checkpoint")
    assert not list((tmp_path / "temporary").iterdir())


def test_fit_goes_on_without_its_checkpoint(few_parts, tmp_path, disk, caplog):
    disk |= {".checkpoint"}
    output = tmp_path / "part.destseg"
    assert main(["fit", str(few_parts), "-o", str(output), *FIT, "--checkpoint-minutes", "0"]) == 0
    assert len(destseg.load(output).losses_) == 2
    assert sum("part.destseg.checkpoint cannot be written: " in text for text in caplog.messages) == 2


def test_names_are_checked_before_training_with_that_of_the_checkpoint(few_parts, tmp_path, capsys):
    output = tmp_path / ("a" * (255 - len(".destseg.checkpoint")) + ".destseg")
    command = ["fit", str(few_parts), "-o", str(output), *FIT]
    assert main(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    longer = output.with_name(f"a{output.name}")
    assert main(["fit", "missing", "-o", str(longer)]) == 2
    assert f"{longer}.checkpoint cannot be written: " in capsys.readouterr().err
    assert not longer.exists()


def test_a_model_that_cannot_be_saved_is_still_there(fitted, picture, tmp_path, disk):
    expected = fitted.predict(picture)
    disk |= {"part.destseg"}
    with pytest.raises(OSError, match=r"part\.destseg cannot be written: .*No space left"):
        fitted.save(tmp_path / "part.destseg")
    assert fitted.predict(picture).score == expected.score
    fitted.save(tmp_path / "other.destseg")


def test_too_little_memory_is_told_in_one_line(model, monkeypatch, capsys):
    def load(*_):
        raise MemoryError

    monkeypatch.setattr(destseg, "load", load)
    assert main(["predict", str(model), "a.png"]) == 1
    assert capsys.readouterr().err == "destseg predict: there is not enough memory\n"
