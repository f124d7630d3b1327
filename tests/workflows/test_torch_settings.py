"""Torch as a user may have set it: gradients, default dtype and device, autocast; models do not heed it."""

import numpy as np
import pytest
import torch

import destseg

PARTS = np.random.default_rng(0).integers(90, 110, (12, 64, 64, 3), dtype=np.uint8)


def fit():
    model = destseg.DeSTSeg(image_size=64, device="cpu", precision="float32")
    return model.fit(PARTS, (1, 1), 2, progress=False, workers=0, false_positive_rate=0.2)


@pytest.fixture(scope="module")
def usual():
    return fit()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_learns_where_gradients_are_switched_off(usual, mode):
    with mode():
        model = fit()
        assert not torch.is_grad_enabled()
    assert model.losses_ == usual.losses_
    assert model.predict(PARTS[0]).score == usual.predict(PARTS[0]).score


def test_fit_predict_and_load_do_not_heed_the_default_dtype(usual, tmp_path, float64):
    model, path = fit(), tmp_path / "m"
    assert torch.get_default_dtype() == torch.float64
    assert np.isfinite(model.losses_).all()  # its first weights are others: they were drawn in float64
    for one in (model, usual):
        one.save(path)
        loaded = destseg.load(path, "cpu")
        assert {value.dtype for value in loaded.network_.parameters()} == {torch.float32}
        assert loaded.predict(PARTS[0]).score == one.predict(PARTS[0]).score


AROUND = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16), "device": lambda: torch.device("meta")}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_nothing_heeds_autocast_or_the_default_device_around_it(usual, tmp_path, around):
    with around():
        model, path = fit(), tmp_path / "m"
        model.save(path)
        scores = [one.predict(PARTS[0]).score for one in (usual, model, destseg.load(path, "cpu"))]
    assert model.losses_ == usual.losses_ and model.threshold_ == usual.threshold_
    assert scores == [usual.predict(PARTS[0]).score] * 3


def test_an_export_does_not_heed_them_either(light, tmp_path):
    pytest.importorskip("onnxscript")
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with AROUND["autocast"](), AROUND["device"]():
        light.export(tmp_path / "m.onnx", progress=False)
    score = destseg.load(tmp_path / "m.onnx").predict(picture).score
    assert score == pytest.approx(light.predict(picture).score, abs=1e-5)
