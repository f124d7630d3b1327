"""Exported models on their engines against the model that they were made from."""

import copy
import dataclasses
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engines import NAMES, needs, pictures, run_whole

import destseg
from destseg.artifacts.formats import FORMATS, read
from destseg.inference.calibration import TOLERANCE

SIZES = ((64, 96), (64, 64), (200, 150), (97, 131), (51, 40), (1, 2), (700, 61))


@pytest.mark.parametrize("ending", NAMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_engines_predict_what_the_model_predicts(light, exported, ending, size):
    pixels = pictures(size)[0]
    expected, found = light.predict(pixels), destseg.load(exported(ending)).predict(pixels)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-3)
    assert found.anomaly_map.dtype == np.float32 and found.score == pytest.approx(expected.score, abs=1e-3)
    assert (found.threshold, found.pixel_threshold) == (expected.threshold, expected.pixel_threshold)
    assert found.p_value == pytest.approx(expected.p_value, abs=0.1)


@pytest.mark.parametrize("ending", NAMES)
def test_names_as_long_as_is_allowed_are_written(exported, tmp_path, ending):
    path = tmp_path / ("a" * (255 - len(ending)) + ending)
    model = destseg.load(exported(ending))
    model.save(path)
    assert read(path).calibration == model.calibration_


def test_a_file_beside_that_cannot_be_written_is_told_before_any_work(light, tmp_path, monkeypatch):
    monkeypatch.setattr("destseg.artifacts.export.trace", lambda *_: pytest.fail("work was done"))
    (tmp_path / "part.bin").mkdir()
    with pytest.raises(IsADirectoryError, match=r"part\.bin is a folder; a file to write is wanted"):
        light.export(tmp_path / "part.xml")


@pytest.mark.parametrize("ending", NAMES)
def test_the_picture_that_defines_the_threshold_is_normal_in_every_engine(light, exported, ending, tmp_path):
    """At one rate or another every calibration picture does, and engines round scores up as often as down."""
    model, normal = destseg.load(exported(ending)), pictures((64, 96), 12, seed=1)  # those of the calibration
    scores = np.array(light.calibration_.scores)
    path = tmp_path / f"other{ending}"
    for place, score in enumerate(sorted(scores)):
        model.calibrate(false_positive_rate=1 - (place + 1) / 13).save(path)
        verdicts = np.array([one.is_anomalous for one in model.predict(normal)])
        for found in (verdicts, run_whole(path, normal)["is_anomalous"]):
            assert not found[scores <= score].any() and found[scores > score + 2e-5].all()


@pytest.mark.parametrize("ending", NAMES)
def test_the_whole_graph_takes_any_number_of_pictures_of_any_size(light, exported, ending):
    path = exported(ending)
    for count, size in ((1, (64, 96)), (3, (64, 96)), (2, (150, 111)), (1, (33, 200))):
        pixels = pictures(size, count, seed=2)
        found = run_whole(path, pixels)
        expected = light.predict(pixels)
        assert found["anomaly_map"].shape == (count, *size)
        for k, one in enumerate(expected):
            np.testing.assert_allclose(found["anomaly_map"][k], one.anomaly_map, atol=1e-3)
            assert float(found["score"][k]) == pytest.approx(one.score, abs=1e-3)
            if abs(one.score - one.threshold) > 1e-3:
                assert bool(found["is_anomalous"][k]) == one.is_anomalous


@pytest.mark.parametrize("ending", NAMES)
def test_the_whole_graph_refuses_all_but_uint8_pictures_in_colour(exported, ending):
    path, pixels = exported(ending), pictures((64, 96), 2)
    for other in ((pixels / 255).astype(np.float32), pixels.astype(np.uint16), pixels.astype(np.float64)):
        with pytest.raises(Exception, match=r"Unexpected input data type|input tensor precision is: u8"):
            run_whole(path, other)
    alpha = np.concatenate([pixels, pixels[..., :1]], axis=3)
    for other in (pixels[..., :1], alpha, pixels.transpose(0, 3, 1, 2), pixels[0]):
        with pytest.raises(Exception, match=r"invalid dimensions|Invalid rank|shape=\[\?,\?,\?,3\]"):
            run_whole(path, np.ascontiguousarray(other))


@pytest.mark.parametrize("ending", NAMES)
def test_floats_from_0_to_1_are_the_same_picture_to_every_engine(light, exported, ending):
    loaded, pixels = destseg.load(exported(ending)), pictures((64, 96))[0]
    for model in (light, loaded):
        np.testing.assert_array_equal(model.predict(pixels / 255).image, pixels)
        assert model.predict((pixels / 255).astype(np.float32)).score == model.predict(pixels).score
        with pytest.raises(ValueError, match=r"image of floats must lie in \[0, 1\], got values from"):
            model.predict(pixels.astype(np.float32))


@pytest.mark.parametrize("ending", NAMES)
def test_what_travels_in_the_file(light, exported, ending):
    loaded = destseg.load(exported(ending))
    assert loaded.calibration_ == light.calibration_
    assert (loaded.preset, loaded.image_size, loaded.seed) == ("fast", (64, 96), 0)
    assert loaded.network_ is None
    artifact = read(exported(ending))
    assert (artifact.engine, artifact.precision) == (NAMES[ending], "float32")
    assert artifact.versions == {"destseg": destseg.__version__, "torch": str(torch.__version__)}
    with pytest.raises(RuntimeError, match="exported model: export the one that it was made from"):
        loaded.export("x.onnx")
    with pytest.raises(ValueError, match=rf"must end in {ending}, got x\.destseg"):
        loaded.save("x.destseg")
    assert str(pathlib.Path(destseg.__file__).parent).encode() not in exported(ending).read_bytes()


@pytest.mark.parametrize("ending", NAMES)
def test_threads_share_an_engine(exported, ending):
    loaded, several = destseg.load(exported(ending)), pictures((64, 96), 8, seed=4)
    alone = [loaded.predict(pixels).anomaly_map for pixels in several]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pixels: loaded.predict(pixels).anomaly_map, several))
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("ending", NAMES)
def test_damaged_and_foreign_files(exported, ending, tmp_path):
    path = tmp_path / f"x{ending}"
    with pytest.raises(FileNotFoundError, match="no such file"):
        destseg.load(path)
    path.write_bytes(exported(ending).read_bytes()[:1000])
    if ending == ".xml":
        with pytest.raises(FileNotFoundError, match=r"no such file: .*x\.bin, the weights"):
            destseg.load(path)
        path.with_suffix(".bin").write_bytes(exported(ending).with_suffix(".bin").read_bytes())
    with pytest.raises(ValueError, match=r"x.* is damaged"):
        destseg.load(path)
    with pytest.raises(
        ValueError, match=r"part\.bin is no model: it holds the weights .* name the \.xml beside it"
    ):
        destseg.load("part.bin")


@pytest.mark.parametrize("ending", NAMES)
def test_exported_models_run_on_the_cpu_in_the_precision_of_their_file(exported, ending):
    with pytest.raises(ValueError, match=r"exported models run on device \"cpu\" .* got 'cuda'"):
        destseg.load(exported(ending), device="cuda")
    with pytest.raises(ValueError, match=rf"inference_precision of .*part\{ending} was chosen by export"):
        destseg.load(exported(ending), inference_precision="float16")


def test_arguments_that_do_not_fit_together(light, tmp_path):
    cases = (
        ({"path": "x.pt"}, r"must end in \.onnx or \.xml, got .*x\.pt"),
        ({"path": "x.onnx", "format": "openvino"}, "must end in .xml"),
        ({"path": "x.onnx", "format": "tensorrt"}, "format must be one of onnx, openvino, got 'tensorrt'"),
        ({"path": "x.onnx", "precision": "float16"}, "precision must be one of float32, int8"),
        ({"path": "x.xml", "format": "onnx"}, "must end in .onnx"),
        ({"path": "x.pt2"}, "x.pt2 is no model: torch unpickles such files"),
        ({"path": "x.pt2", "format": "torch"}, "format must be one of onnx, openvino, got 'torch'"),
        ({"path": "x.pt2", "format": "onnx"}, "x.pt2 is no model: torch unpickles such files"),
        (
            {"path": "x.pt2", "calibration": pictures((64, 96))},
            "x.pt2 is no model: torch unpickles such files",
        ),
        ({"path": "x.onnx", "precision": "int8"}, "needs normal pictures"),
    )
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            light.export(**arguments | {"path": tmp_path / arguments["path"]})
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="call calibrate"):
        again(light, tmp_path).export(tmp_path / "x.onnx")
    with pytest.raises(RuntimeError, match="learnt nothing yet"):
        destseg.DeSTSeg("fast", image_size=64, device="cpu").export(tmp_path / "x.onnx")


def again(light, folder, **settings):
    """Return a model with the weights of another one, but without thresholds."""
    path = folder / "weights.pth"
    torch.save(light.network_.state_dict(), path)
    settings = {"preset": "fast", "image_size": (64, 96), "device": "cpu"} | settings
    return destseg.DeSTSeg.from_checkpoint(path, **settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"keep_aspect": True}, "keep_aspect"),
        ({"tile": 96}, "tile"),
        ({"roi": [(0, 0), (60, 0), (60, 60)]}, "roi"),
        ({"roi": np.eye(64, dtype=bool)}, "roi"),
    ],
    ids=["aspect", "tile", "polygon", "mask"],
)
def test_models_that_do_more_than_stretch_are_not_exported(light, tmp_path, settings, name):
    model = again(light, tmp_path, **settings)
    model.calibration_ = light.calibration_
    with pytest.raises(ValueError, match=f"stretches whole pictures .* was fitted with {name}: export"):
        model.export(tmp_path / "part.onnx")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_is_exported_from_a_copy_on_the_cpu(light, picture, tmp_path):
    needs(".onnx")
    light.save(tmp_path / "part.destseg")
    model = destseg.load(tmp_path / "part.destseg", "cuda")
    model.export(tmp_path / "part.onnx")
    assert next(model.network_.parameters()).is_cuda
    found = destseg.load(tmp_path / "part.onnx").predict(picture)
    assert found.score == pytest.approx(light.predict(picture).score, abs=1e-3)


def load_calibrated(path, rate=0.5):
    """Return an exported model, calibrated anew with nine pictures, and these pictures."""
    normal = pictures((64, 96), 9, seed=5)
    return destseg.load(path).calibrate(normal, rate), normal


def copied(path, folder):
    """Copy an exported model, of however many files."""
    for part in path.parent.glob(f"{path.stem}.*" if path.suffix == ".xml" else path.name):
        if part.suffix in (path.suffix, ".bin"):
            shutil.copy(part, folder)
    return folder / path.name


def contents(path):
    return {part.name: part.read_bytes() for part in (path, path.with_suffix(".bin")) if part.exists()}


def check_verdicts(path, model, pixels, expected):
    """The file's own graph, run without this package, judges by its threshold; all else is as it was."""
    found = run_whole(path, pixels)
    flags = found["score"] > np.float32(model.threshold_)
    assert found["is_anomalous"].tolist() == flags.tolist()
    np.testing.assert_array_equal(found["anomaly_map"], expected["anomaly_map"])
    np.testing.assert_array_equal(found["score"], expected["score"])
    loaded = destseg.load(path)
    assert (loaded.calibration_, loaded.settings) == (model.calibration_, model.settings)
    return flags.tolist()


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("ending", NAMES)
def test_a_copy_with_new_thresholds_judges_by_them(exported, ending, precision, tmp_path):
    source, copy = exported(ending, precision), tmp_path / f"other{ending}"
    model, normal = load_calibrated(source)
    scores = sorted(model.calibration_.scores)
    assert model.threshold_ == scores[4] + TOLERANCE  # of 9: the fifth, 10 * 0.5 up
    before, expected = contents(source), run_whole(source, normal)
    model.save(copy)
    flags = check_verdicts(copy, model, normal, expected)
    assert 3 <= sum(flags) <= 5 and flags != expected["is_anomalous"].tolist()
    assert contents(source) == before
    ours, theirs = read(copy), read(source)
    assert (ours.versions, ours.precision, ours.engine) == (theirs.versions, theirs.precision, theirs.engine)
    parts = [copy.name, "other.bin"] if ending == ".xml" else [copy.name]
    assert sorted(part.name for part in tmp_path.iterdir()) == sorted(parts)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("ending", NAMES)
def test_a_file_may_be_written_over_again_and_again(exported, ending, precision, tmp_path):
    path = copied(exported(ending, precision), tmp_path)
    files = sorted(part.name for part in tmp_path.iterdir())
    model, normal = load_calibrated(path)
    expected, found = run_whole(path, normal), []
    for rate in (0.5, 0.2, 0.8):  # the second and the third from the scores of the first
        model.calibrate(false_positive_rate=rate).save(path)
        found.append(sum(check_verdicts(path, model, normal, expected)))
    assert found[1] < found[0] < found[2]
    assert sorted(part.name for part in tmp_path.iterdir()) == files


@pytest.mark.parametrize("ending", NAMES)
def test_another_rate_alone_changes_the_thresholds(light, exported, ending, tmp_path):
    source, copy = exported(ending), tmp_path / f"other{ending}"
    normal = pictures((64, 96), 6, seed=6)
    model = destseg.load(source).calibrate(false_positive_rate=0.7)
    assert model.calibration_ == light.calibration_.at_rate(0.7)
    assert model.threshold_ < light.threshold_ and model.pixel_threshold_ < light.pixel_threshold_
    model.save(copy)
    check_verdicts(copy, model, normal, run_whole(source, normal))


@pytest.mark.parametrize("ending", NAMES)
def test_files_that_changed_since_they_were_loaded_are_refused(exported, ending, tmp_path):
    path = copied(exported(ending), tmp_path)
    early, (late, _) = destseg.load(path), load_calibrated(path)
    late.save(path)
    before, files = contents(path), sorted(tmp_path.iterdir())
    for target in (path, tmp_path / f"other{ending}"):
        with pytest.raises(
            ValueError, match=rf"part\{ending} has changed since it was loaded: load it again"
        ):
            early.calibrate(false_positive_rate=0.5).save(target)
    assert contents(path) == before and sorted(tmp_path.iterdir()) == files
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no such file"):
        early.save(tmp_path / f"other{ending}")


@pytest.mark.parametrize("ending", NAMES)
def test_exported_models_are_saved_in_their_own_format(exported, ending, tmp_path):
    model = destseg.load(exported(ending))
    for other in {".onnx", ".xml", ".destseg", ""} - {ending}:
        with pytest.raises(ValueError, match=rf"of this format must end in \{ending}, got .*part{other}$"):
            model.save(tmp_path / f"part{other}")
    for other in (".bin", ".pt2"):
        with pytest.raises(ValueError, match="is no model"):
            model.save(tmp_path / f"part{other}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "roi", [[(0, 0), (60, 0), (60, 60)], np.eye(64, dtype=bool)], ids=["polygon", "mask"]
)
@pytest.mark.parametrize("ending", NAMES)
def test_a_region_is_not_saved_beside_a_graph_that_knows_none(exported, ending, roi, tmp_path):
    normal = pictures((64, 96), 4, seed=5)
    model = destseg.load(exported(ending)).calibrate(normal, 0.5, roi=roi)
    with pytest.raises(ValueError, match="judges whole pictures: calibrate without roi before saving"):
        model.save(tmp_path / f"other{ending}")
    assert not list(tmp_path.iterdir())


def test_a_format_without_int8_refuses_it_before_any_work(light, tmp_path, monkeypatch):
    plain = dataclasses.replace(FORMATS["onnx"], quantise=None)
    monkeypatch.setitem(FORMATS, "onnx", plain)
    with pytest.raises(ValueError, match=r"precision of onnx files must be one of float32, got 'int8'"):
        light.export(tmp_path / "part.onnx", "onnx", "int8")


@pytest.mark.parametrize("ending", NAMES)
def test_an_export_of_a_model_calibrated_in_half_precision_loads_with_a_warning(
    light, exported, ending, tmp_path, caplog
):
    """On a GPU a model may compute in float16; what it exports never does."""
    needs(ending)
    form = FORMATS[NAMES[ending]]
    path = tmp_path / f"part{ending}"
    artifact = form.read(exported(ending))
    half = dataclasses.replace(artifact.settings, inference_precision="float16")
    form.set_threshold(exported(ending), path, dataclasses.replace(artifact, settings=half))
    pixels = pictures((64, 96))[0]
    assert destseg.load(path).predict(pixels).score == destseg.load(exported(ending)).predict(pixels).score
    assert "was calibrated in float16 on a GPU; here it predicts in float32" in caplog.text


@pytest.mark.parametrize("ending", NAMES)
def test_an_exported_model_can_be_copied(exported, ending):
    needs(ending)
    model = destseg.load(exported(ending))
    pixels = pictures((64, 96))[0]
    assert copy.deepcopy(model).predict(pixels).score == model.predict(pixels).score


def test_pictures_to_calibrate_with_are_read_before_the_export_begins(light, tmp_path, monkeypatch):
    needs(".onnx")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr("destseg.artifacts.export.trace", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ValueError, match=r"broken\.png"):
        light.export(tmp_path / "part.onnx", calibration=tmp_path / "broken.png", strict=True)
