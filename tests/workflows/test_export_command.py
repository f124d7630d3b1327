"""Exported models on the command line: `destseg export`, what INT8 costs, `destseg info`."""

import sys

import numpy as np
import pytest
from engines import NAMES, needs, run_whole

import destseg
from destseg.artifacts.formats import read
from destseg.cli import main
from destseg.inference.calibration import TOLERANCE
from destseg.pictures.decoding import to_rgb


@pytest.mark.parametrize("ending", NAMES)
def test_info_tells_about_exported_models(light, ending, tmp_path, capsys):
    needs(ending)
    path = tmp_path / f"part{ending}"
    light.export(path)
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "preset: fast" in lines and any(line.startswith("threshold: ") for line in lines)
    assert f"engine: {NAMES[ending]}, float32" in lines


def test_a_missing_engine_ends_the_command_with_one_line(light, tmp_path, monkeypatch, capsys):
    light.save(tmp_path / "part.destseg")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["export", str(tmp_path / "part.destseg"), str(tmp_path / "part.xml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("destseg export: openvino is missing") and "pip install" in line


@pytest.mark.slow
@pytest.mark.parametrize("ending", NAMES)
def test_the_command_exports_int8_and_tells_its_loss(light, few_parts, ending, tmp_path, capsys, caplog):
    needs(ending, "int8")
    source, path = tmp_path / "part.destseg", tmp_path / f"part{ending}"
    light.save(source)
    normal = [str(one) for one in sorted(few_parts.iterdir())[:8]]
    assert main(["export", str(source), str(path), "--precision", "int8", "--normal", *normal]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["synthetic", "anomalies", n] for n in ("AP", "IAP")]
    loaded = destseg.load(path)
    assert read(path).precision == "int8"
    whole = sum(part.stat().st_size for part in tmp_path.glob("part.*") if part != source)
    tensors = light.network_.student_net.state_dict().values()
    student = sum(tensor.nbytes for tensor in tensors)  # stays in float32
    assert whole < student + 0.4 * (source.stat().st_size - student)  # a quarter of the other weights' bytes
    pixels = to_rgb(normal[0])
    expected, found = light.predict(pixels).anomaly_map, loaded.predict(pixels).anomaly_map
    assert np.abs(found - expected).max() > 0 and np.abs(found - expected).mean() < 0.05
    assert loaded.calibration_ == light.calibration_
    assert f"{path}: scores in int8 differ" in caplog.text and "calibration= (--calibration)" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("ending", NAMES)
def test_int8_is_calibrated_by_its_own_engine(light, few_parts, ending, tmp_path, caplog):
    needs(ending, "int8")
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
    assert whole["is_anomalous"].tolist() == flags.tolist()
    above = np.sort(scores)[5:] - np.sort(scores)[4]  # an untrained network's scores may lie within TOLERANCE
    assert 1 <= flags.sum() == (above > TOLERANCE).sum(), above
