"""Many pictures through the whole model in batches, as on a GPU: all as one by one."""

import contextlib
import threading

import numpy as np
import PIL.Image
import pytest
import torch
from threads import in_threads

import destseg
from destseg.model import gpu_scorer
from destseg.model.gpu_scorer import GpuScorer, Lane

COUNT = 10
SHAPES = [(64, 96), (150, 90), (40, 30)]  # the first is the network's own


@pytest.fixture
def folder(tmp_path):
    for k in range(COUNT):
        pixels = np.random.default_rng(k).integers(0, 256, (*SHAPES[k % 3], 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return tmp_path


@pytest.fixture
def counts(monkeypatch):
    """How many inputs each call of a network got, in no order."""
    found, real = [], Lane.maps

    def counted(lane, pixels):
        found.append(len(pixels))
        return real(lane, pixels)

    monkeypatch.setattr(Lane, "maps", counted)
    return found


@pytest.fixture
def as_on_a_gpu(light, tmp_path_factory, monkeypatch):
    """Load the light model to predict on the CPU by the way of a GPU, four pictures at once."""
    path = tmp_path_factory.mktemp("model") / "light.destseg"
    light.save(path)
    monkeypatch.setattr(gpu_scorer, "FEW", 2)
    monkeypatch.setattr(GpuScorer, "batch", 4)

    def load(precision="float32"):
        with monkeypatch.context() as patch:
            patch.setattr("destseg.model.scorer.scorer_of", lambda n, size, _: GpuScorer(n, size, precision))
            return destseg.load(path, "cpu")

    return load


@pytest.fixture
def batched(as_on_a_gpu):
    return as_on_a_gpu()


@pytest.fixture
def no_threads_are_left():
    before = set(threading.enumerate())  # other packages keep theirs
    yield
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if "ThreadPoolExecutor" in thread.name]


def check_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.source == theirs.source
        assert ours.score == pytest.approx(theirs.score, abs=1e-6)
        assert ours.is_anomalous == theirs.is_anomalous
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-5)
        assert np.array_equal(ours.image, theirs.image)


def new(counts):
    """The counts since the last time, the largest first."""
    found = sorted(counts, reverse=True)
    counts.clear()
    return found


@pytest.mark.usefixtures("no_threads_are_left")
def test_predictions_in_batches_are_those_one_by_one(batched, light, folder, counts):
    expected = light.predict(folder)
    check_alike(batched.predict(folder), expected)
    assert new(counts) == [4, 4, 2]
    assert len({result.score for result in expected}) == COUNT  # an exchange would be seen
    check_alike([batched.predict(folder / "3.png")], [light.predict(folder / "3.png")])
    assert new(counts) == [1]
    check_alike(batched.predict([folder / "3.png"]), [expected[3]])
    assert new(counts) == [1]
    few = sorted(folder.iterdir())[:3]
    check_alike(batched.predict(few), expected[:3])
    assert new(counts) == [3]


def test_calibration_in_batches_is_that_one_by_one(batched, light, folder, counts):
    batched.calibrate(folder, 0.5)
    assert new(counts) == [4, 4, 2]
    assert batched.calibration_.scores == pytest.approx([p.score for p in light.predict(folder)], abs=1e-6)


def test_evaluation_in_batches_is_that_one_by_one(batched, light, tmp_path, counts):
    for k in range(6):
        pixels = np.random.default_rng(k).integers(0, 256, (64, 96, 3), np.uint8)
        name = f"test/{'good' if k < 3 else 'hole'}/{k}.png"
        mask = np.zeros((64, 96), np.uint8)
        mask[10 : 20 + k, 30:40] = 255
        for path, content in ((name, pixels), (f"ground_truth/hole/{k}_mask.png", mask)):
            if k >= 3 or path == name:
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(content).save(tmp_path / path)
    found = batched.evaluate(tmp_path, progress=False)
    assert new(counts) == [4, 2]
    expected = light.evaluate(tmp_path, progress=False)
    assert [row.name for row in found.rows] == [row.name for row in expected.rows]
    assert [row.score for row in found.rows] == pytest.approx([r.score for r in expected.rows], abs=1e-6)
    assert found.instances == expected.instances == 3


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("broken", [[5], [4, 5, 6, 7]], ids=str)
def test_unreadable_pictures_keep_their_places_and_are_named(batched, light, folder, broken, caplog):
    expected = light.predict(folder)
    for k in broken:
        (folder / f"{k}.png").write_bytes(b"no picture")
    results = list(batched.predict_each(folder))
    assert [source.name for source, _ in results] == [str(folder / f"{k}.png") for k in range(COUNT)]
    assert [k for k, (_, result) in enumerate(results) if isinstance(result, ValueError)] == broken
    assert len(caplog.messages) == len(broken)
    assert all(f"{k}.png" in text for k, text in zip(broken, caplog.messages, strict=True))
    readable = [k for k in range(COUNT) if k not in broken]
    check_alike([results[k][1] for k in readable], [expected[k] for k in readable])


@pytest.mark.usefixtures("no_threads_are_left")
def test_strict_raises_when_its_turn_comes(batched, folder):
    (folder / "5.png").write_bytes(b"no picture")
    found = []
    with pytest.raises(ValueError, match=r"5\.png"):
        for source, _ in batched.predict_each(folder, strict=True):
            found.append(source.name[-5:])
    assert found == [f"{k}.png" for k in range(5)]


@pytest.mark.usefixtures("no_threads_are_left")
def test_a_network_that_gives_nan_says_so(batched, folder):
    batched.scorer.network.student_net.state_dict()["decoder_layer1.0.conv1.weight"].fill_(np.nan)
    with pytest.raises(RuntimeError, match=r"the network gives NaN.*inference_precision"):
        batched.predict(folder)


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_whoever_stops_early_has_a_model_that_works(batched, light, folder, taken):
    with contextlib.closing(batched.predict_each(folder)) as results:
        for _ in range(taken):
            next(results)
    few = sorted(folder.iterdir())[:4]
    check_alike(batched.predict(few), light.predict(few))


def test_threads_and_unfinished_iterators_do_not_disturb_one_another(batched, light, folder):
    expected = light.predict(folder)
    for found in in_threads(3, lambda _: batched.predict(folder)):
        check_alike(found, expected)
    pairs = zip(batched.predict_each(folder), batched.predict_each(folder), strict=True)
    check_alike([result for pair in pairs for _, result in pair], [one for one in expected for _ in (0, 1)])


def test_half_precision_gives_nearly_the_same(as_on_a_gpu, light, folder):
    model = as_on_a_gpu("float16")
    for ours, theirs in zip(model.predict(folder), light.predict(folder), strict=True):
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-2)
        assert ours.score == pytest.approx(theirs.score, abs=5e-3)
    assert model.scorer.network is not model.network_
    assert next(model.network_.parameters()).dtype == torch.float32


THIN = np.zeros((64, 96), np.uint8)
THIN[:, 47] = 1  # a column, which no picture of a quarter of the size has


def test_a_picture_in_which_the_region_vanishes_is_left_out_by_name(light, caplog):
    large = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    first, small, last = light.predict([large, large[:24, :24], large], roi=THIN)
    assert small is None and first.score == last.score
    assert "left out: picture 1: roi must hold at least one pixel, got none in a picture of 24" in caplog.text


def test_evaluation_names_such_a_picture(light, tmp_path):
    (tmp_path / "test" / "good").mkdir(parents=True)
    PIL.Image.new("RGB", (24, 24)).save(tmp_path / "test" / "good" / "small.png")
    with pytest.raises(ValueError, match=r"small\.png: roi must hold at least one pixel"):
        light.evaluate(tmp_path, progress=False, roi=THIN)
