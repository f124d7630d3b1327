"""`destseg info`: about the installation and about models."""

import dataclasses
import logging
import sys
import types

import torch

import destseg
import destseg.artifacts.formats
from destseg.cli import _OneLine, main
from destseg.cli.output import show

REST = ["compiled kernels", "threads", "onnxruntime", "openvino"]  # of what info says, beside torch and CUDA


def test_info_tells_about_the_installation_and_a_model(model, capsys, monkeypatch):
    assert main(["info"]) == 0
    assert "compiled kernels: " in capsys.readouterr().out
    monkeypatch.setattr(destseg, "load", None)  # the file is read once
    assert main(["info", str(model)]) == 0
    printed = capsys.readouterr().out
    assert (
        "preset: fast" in printed
        and "teacher: embedded" in printed
        and "training steps: 4" in printed
        and "threshold: " in printed
    )


def test_info_about_a_model_of_one_picture(fitted, tmp_path, capsys):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model.calibration_ = dataclasses.replace(model.calibration_, trained_on=True)
    model.save(tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    words = "guaranteed false-positive rate: none: the only picture was trained on\n"
    assert words in capsys.readouterr().out


def test_info_tells_every_setting_of_a_model(model, fitted, capsys):
    assert main(["info", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{model}: destseg {destseg.__version__}, torch {torch.__version__}"
    settings = fitted.settings.stored()
    assert lines[1 : 1 + len(settings)] == [f"{name}: {value}" for name, value in settings.items()]
    values = sum(tensor.numel() for tensor in fitted.network_.state_dict().values())
    assert lines[1 + len(settings) :] == [
        "engine: torch, float32",
        f"values: {values / 1e6:.2f} million",
        "training steps: 4",
        *fitted.record_.lines(),
        f"calibration pictures: {len(fitted.calibration_.scores)}",
        f"guaranteed false-positive rate: {fitted.calibration_.guaranteed_rate:.4g}",
        f"threshold: {fitted.threshold_:.6g}",
        f"pixel threshold: {fitted.pixel_threshold_:.6g}",
    ]


def test_info_names_the_region_of_interest(model, few_parts, tmp_path, capsys):
    other = str(tmp_path / "m")
    assert main(["calibrate", str(model), str(few_parts), "-o", other, "--roi", "5,5 90,5 40,70"]) == 0
    assert main(["info", other]) == 0
    assert "roi: polygon of 3 points\n" in capsys.readouterr().out


def test_info_about_an_exported_model_needs_no_torch(exported, light, run_without_torch):
    process = run_without_torch("info", exported)
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    engine = {".onnx": "onnx", ".xml": "openvino"}[exported.suffix]
    settings = light.settings.stored()
    assert lines[0].startswith(f"{exported}: destseg {destseg.__version__}, torch ")
    assert lines[1 : 1 + len(settings)] == [f"{name}: {value}" for name, value in settings.items()]
    assert lines[1 + len(settings) :] == [
        f"engine: {engine}, float32",
        "calibration pictures: 12",
        "guaranteed false-positive rate: 0.2",
        f"threshold: {light.threshold_:.6g}",
        f"pixel threshold: {light.pixel_threshold_:.6g}",
    ]


def test_info_about_an_exported_model_does_not_start_its_engine(exported, monkeypatch, capsys):
    monkeypatch.setattr(destseg.artifacts.onnx_file, "OnnxScorer", None)
    monkeypatch.setattr(destseg.artifacts.openvino_file, "OpenVinoScorer", None)
    assert main(["info", str(exported)]) == 0
    assert "calibration pictures: 12\n" in capsys.readouterr().out


def test_info_without_torch_tells_what_is_there(run_without_torch):
    process = run_without_torch("info")
    assert (process.returncode, process.stderr) == (0, "")
    names = [line.split(": ")[0] for line in process.stdout.splitlines()]
    assert names == [f"destseg {destseg.__version__}, no torch", *REST]


def test_info_tells_which_engines_are_installed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(__version__="1.2.3"))
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"destseg {destseg.__version__}, torch {torch.__version__}"
    assert [line.split(": ")[0] for line in lines[1:]] == [REST[0], "CUDA", *REST[1:]]
    assert lines[-2:] == ["onnxruntime: 1.2.3", "openvino: no"]


HOSTILE = "a\x1b[2J\x9b\rb\nthreshold: 0"  # clears the screen, and begins a line of its own
ESCAPED = r"a\x1b[2J\x9b\rb\nthreshold: 0"


def test_what_a_terminal_obeys_is_escaped_wherever_it_comes_from(fitted, tmp_path, capsys):
    fitted.save(tmp_path / "m")
    model = destseg.load(tmp_path / "m")
    model.record_ = dataclasses.replace(model.record_, outliers=(HOSTILE,))
    model.save(tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    assert ESCAPED in capsys.readouterr().out
    assert main(["info", str(tmp_path / HOSTILE)]) == 1  # there is none
    assert capsys.readouterr().err == f"destseg info: no such file: {tmp_path / ESCAPED}\n"
    warning = logging.makeLogRecord({"msg": "left out: %s", "args": (HOSTILE,)})
    assert _OneLine("destseg: %(message)s").format(warning) == f"destseg: left out: {ESCAPED}"


def test_lines_of_a_table_stay_lines_and_other_scripts_as_they_are(capsys):
    show("部品 é\x1b\nzwei")
    assert capsys.readouterr().out == "部品 é\\x1b\nzwei\n"
