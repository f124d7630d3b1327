"""The benchmark: its table, and that its rival does what the published implementation does."""

import numpy as np
import PIL.Image
import pytest

import destseg
from destseg.bench import speed


def test_the_published_side_predicts_what_the_model_predicts(light, tmp_path):
    light.save(tmp_path / "part.destseg")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    _, found = speed.published_predictor(tmp_path / "part.destseg")(pixels)
    expected = light.predict(pixels)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5, rtol=0)
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    assert (found.threshold, found.pixel_threshold) == (expected.threshold, expected.pixel_threshold)


def test_an_untrained_side_is_a_file_that_predicts(tmp_path):
    side = speed.untrained("fast", (64, 96), tmp_path)
    assert side == speed.Side("fast", "torch", "float32", tmp_path / "fast.destseg")
    model = destseg.load(side.path, "cpu")
    assert (model.preset, model.image_size) == ("fast", (64, 96))
    assert 0 <= model.predict(np.zeros((64, 96, 3), np.uint8)).score <= 1


@pytest.mark.filterwarnings("ignore")
def test_the_table_compares_a_model_with_the_published_network(light, tmp_path):
    light.save(tmp_path / "part.destseg")
    lines = speed.table([tmp_path / "part.destseg"], 64, seconds=0.1).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["model", "published", "part.destseg"]
    published, own = (line.split() for line in lines[1:3])
    assert published[5] == "1.00" and own[1:3] == ["torch", "float32"]
    assert float(own[3]) > 0 and float(own[4]) > 0 and float(own[6]) > 100
    assert float(own[7]) == pytest.approx((tmp_path / "part.destseg").stat().st_size / 1e6, abs=0.1)
    assert "64 x 64" in lines[3]


@pytest.mark.filterwarnings("ignore")
def test_the_table_tells_what_models_find(light, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / folder).mkdir(parents=True)
    PIL.Image.fromarray(pictures[0]).save(tmp_path / "test/good/1.png")
    PIL.Image.fromarray(pictures[1]).save(tmp_path / "test/hole/2.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 30:40] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "ground_truth/hole/2_mask.png")
    path = tmp_path / "part.destseg"
    light.save(path)
    header, published, own, _ = speed.table([path], 64, seconds=0.1, dataset=tmp_path).splitlines()
    assert header.split()[-3:] == ["AUROC", "AP", "IAP"] and len(published.split()) == len(own.split()) - 3
    report = light.evaluate(tmp_path, progress=False)
    expected = [100 * number for number in (report.image_auroc, report.pixel_ap, report.iap)]
    assert [float(number) for number in own.split()[-3:]] == pytest.approx(expected, abs=0.051)


def test_a_test_set_that_is_none_is_refused_before_anything_is_measured(light, tmp_path, monkeypatch):
    light.save(tmp_path / "part.destseg")
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(FileNotFoundError, match="is not in the MVTec layout"):
        speed.table([tmp_path / "part.destseg"], 64, dataset=tmp_path)


def test_untrained_networks_are_not_evaluated(tmp_path):
    with pytest.raises(ValueError, match="a dataset goes with models"):
        speed.table([], 64, dataset=tmp_path)
