"""What a PC without torch runs: exported models, calibration, overlays, the command line, metrics."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from engines import PACKAGES, needs

from destseg.inference.calibration import TOLERANCE

BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it raises ImportError

"""
NEEDED_TO_MAKE_FILES = ("torch", "onnx", "onnxscript", "nncf")


def run(code, *arguments, blocked=NEEDED_TO_MAKE_FILES):
    """Run code in a process in which importing some packages is forbidden; return what it prints."""
    command = [sys.executable, "-c", BLOCKED.format(blocked=blocked) + code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module", params=PACKAGES)
def exported(request, light, tmp_path_factory):
    """An exported model, and a folder of six pictures."""
    needs(request.param)
    folder = tmp_path_factory.mktemp("exported")
    path = folder / f"part{request.param}"
    light.export(path)
    (folder / "pictures").mkdir()
    for k in range(6):
        pixels = np.random.default_rng(k).integers(0, 256, (70, 100, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "pictures" / f"{k}.png")
    return path, folder / "pictures"


def test_an_exported_model_predicts_as_with_torch(exported, light):
    path, pictures = exported
    code = """
import json, destseg
model = destseg.load(sys.argv[1])
results = model.predict(sys.argv[2])
results[0].overlay().save(sys.argv[2] + "/../overlay.png")
print(json.dumps([[p.score, p.p_value, bool(p.is_anomalous), len(p.regions), float(p.anomaly_map.mean())]
                  for p in results]))
assert model.network_ is None and model.preset == "fast"
"""
    found = json.loads(run(code, path, pictures))
    expected = light.predict(pictures)
    for (score, p_value, verdict, regions, mean), prediction in zip(found, expected, strict=True):
        assert score == pytest.approx(prediction.score, abs=1e-6)
        assert mean == pytest.approx(float(prediction.anomaly_map.mean()), abs=1e-6)
        assert (p_value, verdict) == (prediction.p_value, prediction.is_anomalous)
        assert regions == len(prediction.regions)
    with PIL.Image.open(pictures.parent / "overlay.png") as overlay:
        assert overlay.size == (100, 70)


def test_an_exported_model_is_calibrated_and_saved(exported, tmp_path):
    path, pictures = exported
    code = """
import destseg
model = destseg.load(sys.argv[1]).calibrate(sys.argv[2], 0.3)
model.save(sys.argv[3])
again = destseg.load(sys.argv[3])
assert again.threshold_ == model.threshold_ and again.calibration_ == model.calibration_
print(model.threshold_)
"""
    copy = tmp_path / path.name
    threshold = float(run(code, path, pictures, copy))
    scores = json.loads(
        run("import json, destseg; print(json.dumps([p.score for p in destseg.load(sys.argv[1])"
            ".predict(sys.argv[2])]))", copy, pictures)
    )  # fmt: skip
    assert threshold == sorted(scores)[4] + TOLERANCE  # of six: the fifth smallest, 7 * 0.7 = 4.9 rounded up


def test_an_exported_model_is_evaluated(exported, light, tmp_path):
    path, pictures = exported
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / folder).mkdir(parents=True)
    mask = np.zeros((70, 100), np.uint8)
    mask[20:40, 30:60] = 255
    for k, picture in enumerate(sorted(pathlib.Path(pictures).iterdir())):
        kind = "good" if k < 3 else "hole"
        (tmp_path / "test" / kind / picture.name).write_bytes(picture.read_bytes())
        if kind == "hole":
            PIL.Image.fromarray(mask).save(tmp_path / f"ground_truth/hole/{picture.stem}_mask.png")
    code = """
import destseg
print(destseg.load(sys.argv[1]).evaluate(sys.argv[2], robustness=True).table())
"""
    expected = light.evaluate(tmp_path, progress=False, robustness=True)
    assert run(code, path, tmp_path).strip() == expected.table()


def test_the_command_line_predicts_calibrates_and_tells(exported, tmp_path):
    path, pictures = exported
    code = "import destseg.cli; sys.exit(destseg.cli.main(sys.argv[1:]))"
    lines = run(code, "predict", path, pictures, "-o", tmp_path / "out", "--maps", "png").splitlines()
    assert len(lines) == 6 and all(json.loads(line)["score"] > 0 for line in lines)
    assert len(list((tmp_path / "out").iterdir())) == 12
    copy = tmp_path / path.name
    run(code, "calibrate", path, pictures, "--false-positive-rate", "0.2", "-o", copy)
    told = run(code, "info", copy)
    assert "calibration pictures: 6" in told and "engine: " in told
    assert "destseg" in run(code, "info")


def test_metrics_need_no_torch():
    code = """
import numpy as np, destseg
maps, masks = np.random.default_rng(0).random((2, 8, 9)), np.zeros((2, 8, 9), bool)
masks[0, 2:5, 3:6] = True
print(destseg.metrics.evaluate(maps, masks).instances)
"""
    assert run(code).strip() == "1"


def test_a_fitted_model_says_that_it_needs_torch(light, tmp_path):
    light.save(tmp_path / "part.destseg")
    code = """
import destseg
try: destseg.load(sys.argv[1])
except ImportError as error: print(error)
"""
    assert "torch" in run(code, tmp_path / "part.destseg")
