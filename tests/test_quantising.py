"""INT8: what it is made from, what it costs, and what the command says of it."""

import numpy as np
import pytest
from test_engines import run_whole

import destseg
from destseg.cli import main
from destseg.folders import as_pictures
from destseg.framing import Framing
from destseg.graph import INPUT
from destseg.images import to_rgb
from destseg.metrics import Metrics
from destseg.quantising import corrupted, loss_table, quantised, samples
from destseg.store import PictureStore

PACKAGES = {".onnx": ("onnx", "onnxscript", "onnxruntime", "nncf"), ".xml": ("openvino", "nncf")}


@pytest.fixture(scope="module")
def store(few_parts):
    return PictureStore(as_pictures(few_parts), Framing((64, 64)), progress=False)


def test_samples_are_pictures_and_the_same_with_anomalies(store):
    batches = list(corrupted(store, seed=0))
    assert len(batches) == 3  # of 8: each of the 24 pictures once
    for clean, changed, masks in batches:
        assert clean.shape == changed.shape == (8, 64, 64, 3) and clean.dtype == changed.dtype == np.uint8
        np.testing.assert_array_equal(changed[~masks], clean[~masks])  # to the grey level
        assert masks.any() and (changed[masks] != clean[masks]).any()
    assert samples(store, seed=0).shape == (48, 64, 64, 3)
    np.testing.assert_array_equal(samples(store, seed=0)[:8], batches[0][0])
    assert not np.array_equal(samples(store, seed=1), samples(store, seed=0))


def test_one_wild_picture_spoils_no_range():
    openvino, _ = pytest.importorskip("openvino"), pytest.importorskip("nncf")
    generator, operations = np.random.default_rng(0), openvino.opset13
    parameter = operations.parameter([1, 4, 16, 16], np.float32)
    parameter.output(0).get_tensor().set_names({INPUT})
    weights = generator.normal(size=(8, 4, 3, 3)).astype(np.float32)
    convolution = operations.convolution(parameter, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([convolution], [parameter])
    pictures = generator.random((9, 4, 16, 16), np.float32)
    pictures[3] *= 1000
    expected, found = (
        openvino.Core().compile_model(one, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([pictures[:1]])[0]
        for one in (model, quantised(model, pictures, []))
    )
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()  # by an average range: 0.26


def test_losses_are_in_points_and_large_ones_are_marked():
    before = Metrics(1.0, 1.0, 0.80, 1.0, 0.70, 0.0, 3)
    after = Metrics(1.0, 1.0, 0.796, 1.0, 0.60, 0.0, 3)
    lines = loss_table({"here": (before, after)}).splitlines()
    assert lines[1].split() == ["here", "AP", "80.00", "79.60", "+0.40"]
    assert lines[2].split() == ["here", "IAP", "70.00", "60.00", "+10.00", "more", "than", "0.5"]


@pytest.mark.parametrize("ending", PACKAGES)
def test_the_command_exports_int8_and_tells_its_loss(light, few_parts, ending, tmp_path, capsys, caplog):
    for name in PACKAGES[ending]:
        pytest.importorskip(name)
    source, path = tmp_path / "part.destseg", tmp_path / f"part{ending}"
    light.save(source)
    normal = [str(one) for one in sorted(few_parts.iterdir())[:8]]
    assert main(["export", str(source), str(path), "--precision", "int8", "--normal", *normal]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["synthetic", "anomalies", n] for n in ("AP", "IAP")]
    loaded = destseg.load(path)
    assert loaded.network_.precision == "int8"
    whole = sum(part.stat().st_size for part in tmp_path.glob("part.*") if part != source)
    tensors = light.network_.student_net.state_dict().values()
    student = sum(tensor.nbytes for tensor in tensors)  # stays in float32
    assert whole < student + 0.4 * (source.stat().st_size - student)  # a quarter of the other weights' bytes
    pixels = to_rgb(normal[0])
    expected, found = light.predict(pixels).anomaly_map, loaded.predict(pixels).anomaly_map
    assert np.abs(found - expected).max() > 0 and np.abs(found - expected).mean() < 0.05
    assert loaded.calibration_ == light.calibration_
    assert f"{path}: scores in int8 differ" in caplog.text and "calibration= (--calibration)" in caplog.text


@pytest.mark.parametrize("ending", PACKAGES)
def test_int8_is_calibrated_by_its_own_engine(light, few_parts, ending, tmp_path, caplog):
    for name in PACKAGES[ending]:
        pytest.importorskip(name)
    source, path, normal = tmp_path / "part.destseg", tmp_path / f"part{ending}", sorted(few_parts.iterdir())
    light.save(source)
    destseg.load(source, "cpu").calibrate(false_positive_rate=0.5).save(source)
    command = ["export", source, path, "--precision", "int8", "--normal", *normal[:8]]
    assert main([*map(str, command), "--calibration", *map(str, normal[8:16])]) == 0
    assert not [record for record in caplog.records if record.name == "destseg"]
    loaded, held_out = destseg.load(path), [to_rgb(one) for one in normal[8:16]]
    scores = [found.score for found in loaded.predict(held_out)]
    assert loaded.calibration_.scores == pytest.approx(scores, abs=1e-4)
    assert loaded.threshold_ == pytest.approx(sorted(scores)[4], abs=1e-4)  # of 8: the fifth, 9 * 0.5 up
    whole = run_whole(path, np.stack(held_out))  # the threshold inside of the graph is the new one, too
    flags = whole["score"] > np.float32(loaded.threshold_)
    assert whole["is_anomalous"].tolist() == flags.tolist() and 2 <= flags.sum() <= 5


def test_torch_programs_are_calibrated_by_nobody(light, picture, tmp_path):
    with pytest.raises(ValueError, match="calibration is for the formats onnx and openvino"):
        light.export(tmp_path / "part.pt2", calibration=[picture])
    assert not list(tmp_path.iterdir())
