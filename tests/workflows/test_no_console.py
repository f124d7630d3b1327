"""Programs without a console: standard error is None, closed, or an object that is hardly a stream."""

import io
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

import destseg


class Strange:
    """A stream as windowed programs have it, without isatty."""

    def write(self, text):
        return len(text)


class Odd(Strange):
    """A stream with an isatty that fails."""

    def isatty(self):
        raise RuntimeError("no such thing here")


class Gone(Strange):
    """A terminal, or the window of a program, that is no longer there."""

    closed = False

    def isatty(self):
        return True

    def write(self, text):
        raise RuntimeError("wrapped object has been deleted")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "strange": Strange,
    "odd": Odd,
    "bare": object,
    "gone": Gone,
}


each_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


def take_console(monkeypatch, stream):
    """To be called by the test itself: between fixtures and test, pytest sets standard error anew."""
    monkeypatch.setattr(sys, "stderr", stream())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A test set of two good pictures and a defective one."""
    folder = tmp_path_factory.mktemp("dataset")
    for kind, count in (("test/good", 2), ("test/spot", 1), ("ground_truth/spot", 1)):
        (folder / kind).mkdir(parents=True)
        for k in range(count):
            pixels = np.random.default_rng(k).integers(0, 256, (64, 96), np.uint8)
            pixels = np.where(pixels > 200, 255, 0).astype(np.uint8) if "truth" in kind else pixels
            PIL.Image.fromarray(pixels).save(folder / kind / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def tiled(few_parts):
    """A model that sees pictures of 80 x 96 in four tiles."""
    model = destseg.DeSTSeg(image_size=64, tile=64, precision="float32", device="cpu")
    return model.fit(few_parts, steps=(0, 0), progress=False, false_positive_rate=0.1)


@each_stream
def test_fit_works(few_parts, monkeypatch, stream):
    take_console(monkeypatch, stream)
    model = destseg.DeSTSeg(image_size=64, device="cpu")
    model.fit(few_parts, steps=(1, 1), batch_size=2, false_positive_rate=0.1)
    assert len(model.losses_) == 2


@each_stream
def test_calibrate_and_evaluate_work(tiled, few_parts, dataset, monkeypatch, stream):
    take_console(monkeypatch, stream)
    tiled.calibrate(sorted(few_parts.iterdir())[:9], 0.1)
    assert len(tiled.calibration_.scores) == 9
    assert len(tiled.evaluate(dataset).rows) == 3


@each_stream
def test_prediction_in_tiles_works(tiled, picture, monkeypatch, stream):
    take_console(monkeypatch, stream)
    assert tiled.predict(picture).anomaly_map.shape == picture.shape[:2]


@pytest.mark.parametrize(
    ("stream", "precision"),
    [
        pytest.param("none", "int8", marks=pytest.mark.slow),
        ("closed", "float32"),
        ("strange", "float32"),
    ],
)
def test_export_works(light, tmp_path, monkeypatch, stream, precision):
    pytest.importorskip("onnxscript")
    pytest.importorskip("nncf")
    take_console(monkeypatch, STREAMS[stream])
    normal = np.random.default_rng(2).integers(0, 256, (5, 64, 96, 3), np.uint8)
    pictures = {"normal": normal, "calibration": normal}
    light.export(tmp_path / "m.onnx", precision=precision, **pictures)
    assert destseg.load(tmp_path / "m.onnx").predict(normal[0]).score >= 0


@pytest.mark.parametrize("stderr", ["closed()", "object()", "Gone()", "io.BytesIO()"])
def test_warnings_end_nothing(few_parts, stderr):
    """Where nobody has set logging up, it writes warnings to standard error itself."""
    code = f"""
import io, sys, destseg
sys.path.append({str(pathlib.Path(__file__).parent)!r})
from test_no_console import Gone, closed
sys.stderr = {stderr}
model = destseg.DeSTSeg(image_size=64, device="cpu")
model.fit({str(few_parts)!r}, steps=(0, 0))  # too few pictures for the rate: a warning
print(model.threshold_)
sys.stderr = sys.__stderr__  # which Python flushes at its end
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert 0 < float(process.stdout) < 1


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_commands_run_with_closed_streams(few_parts, tmp_path, closed):
    model = tmp_path / "m.destseg"
    options = "--size 64 --steps 0 0 --false-positive-rate 0.1 --device cpu"
    command = f"'{sys.executable}' -m destseg fit '{few_parts}' -o '{model}' {options} {closed}"
    assert subprocess.run(command, shell=True).returncode == 0
    assert model.exists()


def test_the_reason_of_a_failure_never_lands_among_results(tmp_path):
    command = f"'{sys.executable}' -m destseg predict '{tmp_path}/missing.destseg' picture.png 2>&-"
    process = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
    assert (process.returncode, process.stdout) == (1, "")
