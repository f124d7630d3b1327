"""Exported models on their engines against the model that they were made from."""

import pathlib
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import destseg
from destseg import engines
from destseg.cli import main
from destseg.graph import INPUT, OUTPUTS, Inference, fixed_point_weights, resized, traced
from destseg.images import resize
from destseg.networks import DeSTSegNet, folded
from destseg.presets import parts_of
from destseg.scoring import anomaly_maps

MODULES = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("openvino",)}
SIZES = ((64, 96), (64, 64), (200, 150), (97, 131), (51, 40), (1, 2), (700, 61))


def needs(ending, int8=False):
    for name in MODULES[ending]:
        pytest.importorskip(name)
    if int8 and ending == ".xml":
        pytest.importorskip("nncf")


def pictures(size, count=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(light, tmp_path_factory):
    """Make the exported file of an ending, once."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def path_of(ending):
        if ending not in made:
            if ending != ".pt2":
                needs(ending)
            made[ending] = folder / f"part{ending}"
            light.export(made[ending])
        return made[ending]

    return path_of


@pytest.mark.parametrize("given", [1, 2, 7, 64, 65, 150, 333, 1000])
def test_weights_are_those_of_pillow(given):
    """A picture of one white column gives a weight away, where it is the only one to be rounded."""
    high, low = fixed_point_weights(given, 64)
    weights = (high.double() * 2**11 + low.double()) / 2**22
    assert torch.allclose(weights.sum(dim=1), torch.ones(64, dtype=torch.float64), atol=1e-4)
    for column in {0, given // 3, given - 1}:
        pixels = np.zeros((1, given, 3), np.uint8)
        pixels[:, column] = 255
        expected = PIL.Image.fromarray(pixels).resize((64, 1), PIL.Image.Resampling.BILINEAR)
        found = torch.floor(255 * weights[:, column] + 0.5)
        np.testing.assert_array_equal(found, np.asarray(expected)[0, :, 0])


@pytest.mark.parametrize("size", [*SIZES, (517, 733), (1000, 100)])
def test_the_graph_resizes_to_the_very_grey_levels_of_pillow(size):
    pixels = pictures(size)
    found = resized(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), (64, 96))
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), resize(pixels[0], (64, 96)))


def test_folded_networks_give_the_same_and_leave_the_network_alone(light):
    before = {name: tensor.clone() for name, tensor in light.network_.state_dict().items()}
    small = folded(light.network_)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in small.modules())
    pixels = pictures((64, 96), 2)
    torch.testing.assert_close(
        anomaly_maps(small, pixels), anomaly_maps(light.network_, pixels), atol=1e-5, rtol=0
    )
    after = light.network_.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("preset", ["paper", "stpm"])
def test_graphs_of_every_preset_hold_standard_operators_only(preset):
    network = DeSTSegNet(**parts_of(preset)).eval()
    program = traced(Inference(network, (64, 64), 0.5))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called and all(
        name.startswith(("aten.", "<built-in function")) for name in called
    )  # none of destseg.ops
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


@pytest.mark.parametrize("ending", MODULES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_engines_predict_what_the_model_predicts(light, exported, ending, size):
    pixels = pictures(size)[0]
    expected, found = light.predict(pixels), destseg.load(exported(ending)).predict(pixels)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-3)
    assert found.anomaly_map.dtype == np.float32 and found.score == pytest.approx(expected.score, abs=1e-3)
    assert (found.threshold, found.pixel_threshold) == (expected.threshold, expected.pixel_threshold)
    assert found.p_value == pytest.approx(expected.p_value, abs=0.1)


def run_whole(path, pixels):
    """Run an exported file as somebody without this package does, and return its outputs by name."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_outputs()] == list(OUTPUTS)
        return dict(zip(OUTPUTS, session.run(None, {INPUT: pixels}), strict=True))
    if path.suffix == ".xml":
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(openvino.Core().read_model(path), "CPU", settings)
        assert len(compiled.outputs) == len(OUTPUTS)
        results = compiled({INPUT: pixels})
        return {name: results[name] for name in OUTPUTS}
    program = torch.export.load(path)  # a file of our own
    return dict(zip(OUTPUTS, program.module()(torch.from_numpy(pixels)), strict=True))


@pytest.mark.parametrize("ending", [*MODULES, ".pt2"])
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


def test_the_flag_compares_with_the_threshold(light):
    pixels = torch.from_numpy(pictures((64, 96), 4, seed=3))
    scores = [one.score for one in light.predict(pixels.numpy())]
    between = sum(sorted(scores)[1:3]) / 2
    flags = Inference(light.network_, (64, 96), between)(pixels)[2]
    assert flags.tolist() == [score > between for score in scores]


@pytest.mark.parametrize("ending", MODULES)
def test_what_travels_in_the_file(light, exported, ending):
    loaded = destseg.load(exported(ending))
    assert loaded.calibration_ == light.calibration_
    assert (loaded.preset, loaded.image_size, loaded.seed) == ("fast", (64, 96), 0)
    assert loaded.network_.name == {".onnx": "onnx", ".xml": "openvino"}[ending]
    for action in (lambda: loaded.save("x.destseg"), lambda: loaded.export("x.onnx")):
        with pytest.raises(RuntimeError, match="exported model: save or export the one"):
            action()
    assert str(pathlib.Path(destseg.__file__).parent).encode() not in exported(ending).read_bytes()


@pytest.mark.parametrize("ending", MODULES)
def test_the_command_line_tells_about_it(exported, ending, capsys):
    assert main(["info", str(exported(ending))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "preset: fast" in lines and any(line.startswith("threshold: ") for line in lines)
    assert f"engine: { {'.onnx': 'onnx', '.xml': 'openvino'}[ending] }, float32" in lines


@pytest.mark.parametrize("ending", MODULES)
def test_threads_share_an_engine(exported, ending):
    from concurrent.futures import ThreadPoolExecutor

    loaded, several = destseg.load(exported(ending)), pictures((64, 96), 8, seed=4)
    alone = [loaded.predict(pixels).anomaly_map for pixels in several]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pixels: loaded.predict(pixels).anomaly_map, several))
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_torch_programs_are_not_loaded(exported):
    with pytest.raises(ValueError, match=r"unpickles.*destseg does not"):
        destseg.load(exported(".pt2"))


@pytest.mark.parametrize("ending", MODULES)
def test_damaged_and_foreign_files(exported, ending, tmp_path):
    path = tmp_path / f"x{ending}"
    with pytest.raises(FileNotFoundError, match="no such file"):
        destseg.load(path)
    path.write_bytes(exported(ending).read_bytes()[:1000])
    if ending == ".xml":
        with pytest.raises(FileNotFoundError, match=r"x.bin, which holds the weights of x.xml"):
            destseg.load(path)
        path.with_suffix(".bin").write_bytes(exported(ending).with_suffix(".bin").read_bytes())
    with pytest.raises(ValueError, match=r"x.* is damaged"):
        destseg.load(path)
    with pytest.raises(ValueError, match=r"weights only; load .*part.xml"):
        destseg.load("part.bin")
    with pytest.raises(ValueError, match="cpu"):
        destseg.load(exported(ending), device="cuda")


def test_files_of_others_are_told_from_ours():
    for text, words in (("null", "not exported"), ("{}", "format"), ('{"format": "destseg export 9"}', "9")):
        with pytest.raises(ValueError, match=f"by this version.*{words}|{words}"):
            engines.content_of(text, pathlib.Path("x.onnx"))


def test_arguments_that_do_not_fit_together(light, tmp_path):
    cases = (
        ({"path": "x.pt"}, "must end in .onnx or .xml or .pt2, got .*x.pt"),
        ({"path": "x.onnx", "format": "openvino"}, "must end in .xml"),
        ({"path": "x.onnx", "format": "tensorrt"}, "format must be one of onnx, openvino, torch"),
        ({"path": "x.onnx", "precision": "float16"}, "precision must be one of float32, int8"),
        (
            {"path": "x.pt2", "precision": "int8", "normal": pictures((64, 96))},
            "for the formats onnx and openvino",
        ),
        ({"path": "x.onnx", "precision": "int8"}, "needs normal pictures"),
    )
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            light.export(**arguments | {"path": tmp_path / arguments["path"]})
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="call calibrate"):
        bare = destseg.DeSTSeg("fast", image_size=64, device="cpu")
        bare._adopt(DeSTSegNet(**parts_of("fast")), [])
        bare.export(tmp_path / "x.onnx")


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
    model = destseg.DeSTSeg("fast", image_size=(64, 96), device="cpu", **settings)
    model._adopt(light.network_, [])
    model.calibration_ = light.calibration_
    with pytest.raises(ValueError, match=f"stretches whole pictures .* was fitted with {name}: export"):
        model.export(tmp_path / "part.onnx")


def test_names_in_capitals_are_found_again(light, picture, tmp_path):
    needs(".xml")
    path = tmp_path / "PART.XML"
    light.export(path)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["PART.XML", "PART.bin"]
    assert destseg.load(path).predict(picture).score == pytest.approx(light.predict(picture).score, abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_is_exported_from_a_copy_on_the_cpu(light, picture, tmp_path):
    needs(".onnx")
    light.save(tmp_path / "part.destseg")
    model = destseg.load(tmp_path / "part.destseg", "cuda")
    model.export(tmp_path / "part.onnx")
    assert next(model.network_.parameters()).is_cuda
    found = destseg.load(tmp_path / "part.onnx").predict(picture)
    assert found.score == pytest.approx(light.predict(picture).score, abs=1e-3)


def test_a_missing_engine_ends_the_command_with_one_line(light, tmp_path, monkeypatch, capsys):
    light.save(tmp_path / "part.destseg")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["export", str(tmp_path / "part.destseg"), str(tmp_path / "part.xml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("destseg export: openvino is missing") and "pip install" in line


def test_a_missing_engine_names_what_to_install(monkeypatch):
    for name, extra in (("openvino", "openvino"), ("onnxruntime", "onnx"), ("nncf", "openvino")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"{name} is missing.*pip install 'destseg\[{extra}\]'"):
            engines.imported(name)
