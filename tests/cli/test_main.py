"""The command `destseg`: wrong usage, choices, help, failures, and who listens."""

import argparse
import inspect
import os
import pkgutil
import shlex
import subprocess
import sys
import tempfile

import pytest
import torch

import destseg
import destseg.detector
from destseg.cli import VERBS, main, parser
from destseg.cli.bench import BENCHES
from destseg.inference.calibration import FEWEST
from destseg.settings import (
    AUGMENTATIONS,
    EXPORT_PRECISIONS,
    FLIPS,
    INFERENCE_PRECISIONS,
    PRECISIONS,
    PRESETS,
    PROTOCOLS,
    SCHEDULES,
    TEACHERS,
    Schedule,
)

FIT = ["fit", "x", "-o", "y"]
CALIBRATE = ["calibrate", "m", "--false-positive-rate"]


def status_of(arguments):
    """Run the command and return its exit status, whether it returns it or argparse exits with it."""
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["fit"], "required: NORMAL, -o/--output"),
        (["predict", "m"], "required: PICTURES"),
        (["evaluate", "m", "d", "--protocol", "mine"], "--protocol: invalid choice: 'mine'"),
        (["export", "m", "o", "--precision", "x"], "--precision: invalid choice: 'x'"),
        ([*FIT, "--preset", "x"], "--preset: invalid choice: 'x'"),
        ([*FIT, "--teacher", "x"], "--teacher: invalid choice: 'x'"),
        ([*FIT, "--precision", "x"], "--precision: invalid choice: 'x'"),
        ([*FIT, "--size", "a"], "--size: must be like 256 or 256x512 (height x width), got 'a'"),
        (
            [*FIT, "--size", "64x64x64"],
            "--size: must be like 256 or 256x512 (height x width), got '64x64x64'",
        ),
        ([*FIT, "--size", "64x"], "--size: must be like 256 or 256x512 (height x width), got '64x'"),
        ([*FIT, "--size", "32"], "fit: image_size must be a number of pixels or (height, width), each"),
        ([*FIT, "--tile", "a"], "--tile: must be like 256 or 256x512 (height x width), got 'a'"),
        ([*FIT, "--overlap", "a"], "--overlap: must be a number, got 'a'"),
        ([*FIT, "--overlap", "0.9"], "fit: overlap must be a share of a tile's side from 0 to 0.75, got 0.9"),
        ([*FIT, "--roi", "1,2 3,4"], '--roi: must be a mask picture, or at least three points "x,y x,y x,y"'),
        ([*FIT, "--device", "x"], "fit: device must be auto, cpu, cuda, cuda:1 or the like, got 'x'"),
        (["predict", "m", "p", "--device", "gpu"], "predict: device must be auto"),
        (["evaluate", "m", "p", "--device", "gpu"], "evaluate: device must be auto"),
        (["calibrate", "m", "--device", "gpu"], "calibrate: device must be auto"),
        (["demo", "--device", "gpu"], "demo: device must be auto"),
        ([*FIT, "--rotate", "x"], 'fit: rotate must be "auto", "90" (quarter turns)'),
        ([*FIT, "--steps", "-1", "1"], "fit: steps must be two whole numbers"),
        ([*FIT, "--steps", "1.5", "1"], "--steps: must be a whole number, got '1.5'"),
        ([*FIT, "--batch-size", "0"], "fit: batch_size must be a whole number of at least 1, got 0"),
        ([*FIT, "--seed", "-1"], "fit: seed must be a whole number of at least 0, got -1"),
        ([*FIT, "--workers", "1.5"], "--workers: must be a whole number, got '1.5'"),
        ([*FIT, "--workers", "-1"], "fit: workers must be a whole number of at least 0, got -1"),
        ([*FIT, "--checkpoint-minutes", "nan"], "fit: checkpoint_minutes must be a number of at least 0"),
        ([*FIT, "--held-out", "0.51"], "fit: held_out must be a share between 0 and 0.5, got 0.51"),
        ([*FIT, "--held-out", "nan"], "fit: held_out must be a share between 0 and 0.5, got nan"),
        ([*FIT, "--false-positive-rate", "0"], "fit: false_positive_rate must lie between 0 and 1"),
        ([*CALIBRATE, "1"], "must lie between 0 and 1, exclusive, got 1.0"),
        (["bench", "speed", "--size", "32"], "bench: image_size must be a number of pixels"),
        (["bench", "speed", "--seconds", "-1"], "bench: seconds must be a number of at least 0, got -1"),
        (["demo", "--size", "32"], "demo: image_size must be a number of pixels"),
        (["demo", "--steps", "1", "-1"], "demo: steps must be two whole numbers"),
        (["demo", "--seed", "-1"], "demo: seed must be a whole number of at least 0, got -1"),
        (["demo", "--pictures", "1"], "demo: pictures must be a whole number of at least 2, got 1"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status_of(arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [[*FIT, "--size", "32"], [*CALIBRATE, "1"], ["demo", "--steps", "-1", "0"]], ids=" ".join
)
def test_wrong_usage_is_told_before_torch_or_numpy_load(arguments):
    process = run_and_list_imports(arguments)
    assert process.returncode == 2
    assert not set(process.stdout.split()) & {"torch", "numpy"}


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        (FIT, {"preset": PRESETS, "teacher": TEACHERS, "precision": PRECISIONS, "flip": FLIPS}),
        (FIT, {"augment": AUGMENTATIONS, "inference-precision": INFERENCE_PRECISIONS}),
        (["calibrate", "m"], {"inference-precision": INFERENCE_PRECISIONS}),
        (["evaluate", "m", "d"], {"protocol": PROTOCOLS}),
        (["export", "m", "o"], {"precision": EXPORT_PRECISIONS}),
        (["demo"], {"teacher": TEACHERS}),
    ],
)
def test_choices_are_those_of_the_library(command, choices):
    for name, values in choices.items():
        for value in values:
            options = vars(parser().parse_args([*command, f"--{name}", value]))
            assert options[name.replace("-", "_")] == value


HANDED_TO = {  # what each verb hands its options to
    "fit": ["destseg.detector:DeSTSeg", "destseg.detector:DeSTSeg.fit"],
    "predict": ["destseg.detector:load"],
    "evaluate": ["destseg.detector:load", "destseg.detector:DeSTSeg.evaluate"],
    "calibrate": ["destseg.detector:load", "destseg.detector:DeSTSeg.calibrate"],
    "export": ["destseg.detector:DeSTSeg.export"],
    "bench": ["destseg.bench.speed:table"],
    "demo": ["destseg.demo:run"],
}


@pytest.mark.parametrize(
    "command",
    [
        FIT,
        ["predict", "m", "p"],
        ["evaluate", "m", "d"],
        ["calibrate", "m"],
        ["export", "m", "o"],
        ["bench", "speed"],
        ["demo"],
    ],
    ids=lambda command: command[0],
)
def test_defaults_are_those_of_the_library(command):
    options = vars(parser().parse_args(command))
    options.pop("resume", None)  # a switch here, a path there
    if command[0] == "calibrate":
        assert options.pop("normal") == []  # which is handed on as None
    defaults = {}
    for name in HANDED_TO[command[0]]:
        for parameter in inspect.signature(pkgutil.resolve_name(name)).parameters.values():
            if parameter.name in options and parameter.default is not parameter.empty:
                defaults[parameter.name] = parameter.default
    assert defaults and {name: options[name] for name in defaults} == defaults


def test_help_of_fit_tells_what_the_presets_and_calibration_take(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert status_of(["fit", "--help"]) == 0
    printed = capsys.readouterr().out
    ((student, later), batch_size), ((fast_student, fast_later), fast_batch_size) = (
        SCHEDULES[preset] for preset in ("paper", "fast")
    )
    assert f"(default: {fast_student} {fast_later}; {student} {later} for paper and stpm)" in printed
    assert f"(default: {fast_batch_size}; {batch_size} for paper and stpm)" in printed
    assert "(default: embedded; resnet18 for paper and stpm)" in printed
    assert f"at most 0.5; at least {FEWEST} if there are {2 * FEWEST} or more (default: 0.2)" in printed
    assert Schedule.of("paper", None, None, held_out=0.5).held_out == 0.5


def run_and_list_imports(arguments):
    """Run the command in a new process; the last line it prints names the modules that it has imported."""
    code = (
        "import sys, destseg.cli\n"
        "try: status = destseg.cli.main(sys.argv[1:])\n"
        "except SystemExit as error: status = error.code\n"
        "print(*sys.modules)\n"
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_gives_an_example_and_needs_neither_torch_nor_numpy(verb):
    process = run_and_list_imports(["--help"] if verb is None else [verb, "--help"])
    assert process.returncode == 0
    printed, imported = process.stdout.rstrip("\n").rsplit("\n", 1)
    assert "destseg.settings" in imported.split()
    assert not set(imported.split()) & {"torch", "numpy", "PIL", "tqdm"}
    if verb is not None:
        assert f"example: destseg {verb} " in printed


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_right_usage(verb):
    program, *arguments = shlex.split(VERBS[verb].EXAMPLE)
    if ">" in arguments:  # the rest is the shell's
        del arguments[arguments.index(">") :]
    options = parser().parse_args(arguments)
    assert program == "destseg" and options.verb == verb


@pytest.mark.parametrize("bench", BENCHES)
def test_benches_have_an_example_help_and_the_switch_for_progress(bench, capsys):
    verb = BENCHES[bench]
    _, *arguments = shlex.split(verb.EXAMPLE)
    for switch in ([], ["--no-progress"]):
        options = parser().parse_args([*arguments, *switch])
        assert (options.verb, options.bench, options.progress) == ("bench", bench, not switch)
    made = argparse.ArgumentParser()
    verb.add_arguments(made)
    assert all(action.help for action in made._actions)
    assert status_of(["bench", bench, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert verb.HELP in printed and f"example: {verb.EXAMPLE}" in printed


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_say_in_one_sentence_what_they_do(verb, capsys):
    sentence = VERBS[verb].HELP
    assert sentence.endswith(".") and "\n" not in sentence and ". " not in sentence
    assert status_of(["--help"]) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
    for action in actions(verb):
        assert action.help, f"{verb} {action.dest}"


def actions(verb):
    made = argparse.ArgumentParser()
    VERBS[verb].add_arguments(made)
    return made._actions


def test_nobody_reads_on(model, few_parts, tmp_path):
    for arguments in (["info", model], ["predict", model, few_parts, "-o", tmp_path]):
        command = [sys.executable, "-m", "destseg", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 1


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


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["predict", "m", "p", "-o", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'}/overlay.png cannot be written: " in capsys.readouterr().err


def test_models_are_not_written_under_the_names_of_exported_ones(tmp_path, capsys):
    for command in (["fit", "missing", "-o"], ["calibrate", "missing", "-o"]):
        assert main([*command, str(tmp_path / "part.onnx")]) == 2
        assert "are for exported models; save a fitted one as part.destseg" in capsys.readouterr().err


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
        ("import destseg.metrics", "destseg runs without its compiled kernels, and more slowly"),
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


ABSENT = ["cuda", "cuda:7", "cuda:99", "xpu", "xpu:1", "mps"]  # on this machine, as the tests see it
UNKNOWN = ["meta", "gpu", "CUDA", "cuda:", "cuda:01", "cuda:256", f"cuda:{10**20}", "cpu:1", ""]


@pytest.mark.parametrize("device", [*ABSENT, *UNKNOWN])
def test_a_device_that_is_not_there_fails_in_one_line_before_any_work(
    model, few_parts, tmp_path, monkeypatch, capsys, device
):
    for backend in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    nothing, demo = str(tmp_path / "no folder"), tmp_path / "demo"
    commands = {  # what they name does not exist: the device comes first
        "fit": [nothing, "-o", str(tmp_path / "m"), "--teacher-weights", "missing.pth"],
        "predict": [str(model), nothing],
        "calibrate": [str(model), nothing],
        "evaluate": [str(model), nothing],
        "demo": [str(demo), "--pictures", "2", "--steps", "0", "0"],
    }
    for verb, arguments in commands.items():
        assert main([verb, *arguments, "--device", device]) == (1 if device in ABSENT else 2)
        (line,) = capsys.readouterr().err.splitlines()
        if device in ABSENT:
            assert line.startswith(
                f"destseg {verb}: device {device}: torch {torch.__version__} finds no such"
            )
            assert line.endswith("use auto or cpu")
        else:
            assert line.startswith(f"destseg {verb}: device must be ") and line.endswith(f"got {device!r}")
    assert not demo.exists()


@pytest.mark.parametrize("device", [*ABSENT, *UNKNOWN])
def test_python_refuses_such_a_device_before_any_work(model, monkeypatch, device):
    for backend in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    words = "finds no such device here" if device in ABSENT else "device must be "
    with pytest.raises(ValueError, match=words):
        destseg.load(model, device)
    with pytest.raises(ValueError, match=words):
        destseg.DeSTSeg(device=device).fit("no folder")
