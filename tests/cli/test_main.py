"""What the command line takes: wrong usage, choices, help."""

import subprocess
import sys
import tempfile

import pytest

from destseg.cli import main
from destseg.cuda_graph import INFERENCE_PRECISIONS
from destseg.evaluation import PROTOCOLS
from destseg.options import EXAMPLES, parser
from destseg.presets import PRESETS
from destseg.synthesis import FLIPS
from destseg.teachers import TEACHERS
from destseg.training import PRECISIONS

FIT = ["fit", "x", "-o", "y"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["fit"], "required: NORMAL, -o/--output"),
        (["predict", "m"], "required: PICTURES"),
        (["evaluate", "m", "d", "--protocol", "mine"], "--protocol: invalid choice: 'mine'"),
        ([*FIT, "--preset", "x"], "--preset: invalid choice: 'x'"),
        ([*FIT, "--teacher", "x"], "--teacher: invalid choice: 'x'"),
        ([*FIT, "--precision", "x"], "--precision: invalid choice: 'x'"),
        ([*FIT, "--size", "a"], "--size: must be like 256 or 256x512 (height x width), got 'a'"),
        ([*FIT, "--size", "32"], "--size: image_size must be a number of pixels or (height, width), each"),
        ([*FIT, "--tile", "a"], "--tile: must be like 256 or 256x512 (height x width), got 'a'"),
        ([*FIT, "--overlap", "0.9"], "--overlap: overlap must be a share of a tile's side from 0 to 0.75"),
        ([*FIT, "--roi", "1,2 3,4"], '--roi: must be a mask picture, or at least three points "x,y x,y x,y"'),
        ([*FIT, "--device", "x"], "--device: device must be auto, or what torch calls a device"),
        (["predict", "m", "p", "--device", "gpu"], "--device: device must be auto"),
        ([*FIT, "--rotate", "x"], '--rotate: rotate must be "90" (quarter turns) or degrees from 0 to 180'),
        ([*FIT, "--batch-size", "0"], "--batch-size: must be a whole number of at least 1, got '0'"),
        ([*FIT, "--seed", "-1"], "--seed: must be a whole number of at least 0, got '-1'"),
        ([*FIT, "--workers", "1.5"], "--workers: must be a whole number of at least 0, got '1.5'"),
        ([*FIT, "--checkpoint-minutes", "nan"], "--checkpoint-minutes: must be a number of at least 0"),
        (["calibrate", "m", "--false-positive-rate", "1"], "must lie between 0 and 1, exclusive, got 1.0"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(arguments)
    assert exit_status.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        (FIT, {"preset": PRESETS, "teacher": TEACHERS, "precision": PRECISIONS, "flip": FLIPS}),
        (FIT, {"inference-precision": INFERENCE_PRECISIONS}),
        (["calibrate", "m"], {"inference-precision": INFERENCE_PRECISIONS}),
        (["evaluate", "m", "d"], {"protocol": PROTOCOLS}),
    ],
)
def test_choices_are_those_of_the_library(command, choices):
    for name, values in choices.items():
        for value in values:
            options = vars(parser().parse_args([*command, f"--{name}", value]))
            assert options[name.replace("-", "_")] == value


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_gives_an_example_and_needs_no_torch(command):
    code = (
        "import sys; sys.argv = ['destseg', sys.argv[1], '--help']\n"
        "import destseg.cli\n"
        "try: destseg.cli.main()\n"
        "finally: sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    arguments = [sys.executable, "-c", code, command]
    process = subprocess.run(arguments, capture_output=True, text=True, cwd=tempfile.gettempdir())
    assert process.returncode == 0
    assert f"example: destseg {command}" in process.stdout
