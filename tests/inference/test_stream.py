"""Prediction of many pictures in batches, as on a GPU: results, order, errors and threads as one by one."""

import threading

import numpy as np
import PIL.Image
import pytest
import torch
from test_threads import in_threads

import destseg
from destseg import prediction
from destseg.cuda_graph import GpuNetwork, GraphScorer
from destseg.folders import as_pictures
from destseg.framing import Framing

COUNT = 10
SHAPES = [(64, 96), (150, 90), (40, 30)]  # the first is the network's own


@pytest.fixture
def folder(tmp_path):
    for k in range(COUNT):
        pixels = np.random.default_rng(k).integers(0, 256, (*SHAPES[k % 3], 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return tmp_path


@pytest.fixture
def batched(light, tmp_path_factory, monkeypatch):
    """The light model, on the CPU by the way of a GPU, four pictures at once; and how many each call got."""
    path = tmp_path_factory.mktemp("model") / "light.destseg"
    light.save(path)
    model = destseg.load(path, "cpu")
    model._scoring = GpuNetwork(model.network_, (64, 96), "float32")
    monkeypatch.setattr(prediction, "BATCH", 4)
    monkeypatch.setattr(model, "counts", [], raising=False)
    start = GraphScorer.start

    def counted(scorer, pixels):
        model.counts.append(len(pixels))
        return start(scorer, pixels)

    monkeypatch.setattr(GraphScorer, "start", counted)
    return model


def check_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.source == theirs.source
        assert ours.score == pytest.approx(theirs.score, abs=1e-6)
        assert ours.is_anomalous == theirs.is_anomalous
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-5)
        assert np.array_equal(ours.image, theirs.image)


POLYGON = [(0, 0), (20, 0), (20, 25), (0, 25)]


@pytest.mark.parametrize("roi", [None, POLYGON], ids=["all", "region"])
@pytest.mark.parametrize("keep_aspect", [False, True], ids=["stretched", "padded"])
def test_batches_give_what_single_pictures_give_in_their_order(batched, light, folder, roi, keep_aspect):
    framing = Framing((64, 96), keep_aspect).within(roi)
    arguments = (framing, light.calibration_, as_pictures(folder), False)
    found = [result for _, result in prediction.predictions(batched._scoring, *arguments)]
    assert batched.counts == [4, 4, 2]
    check_alike(found, [result for _, result in prediction.predictions(light.network_, *arguments)])
    assert len({result.score for result in found}) == COUNT  # an exchange would be seen


def test_the_public_way_is_the_batched_one(batched, light, folder):
    check_alike(batched.predict(folder), light.predict(folder))
    assert batched.counts == [4, 4, 2]
    check_alike([batched.predict(folder / "3.png")], [light.predict(folder / "3.png")])
    check_alike(batched.predict([folder / "3.png"]), light.predict([folder / "3.png"]))
    few = sorted(folder.iterdir())[:3]
    check_alike(batched.predict(few), light.predict(few))
    assert batched.counts == [4, 4, 2] + 5 * [1]  # fewer than a batch go one by one
    batched.calibrate(folder, 0.5)  # it scores by the same way
    assert batched.counts == [4, 4, 2] + 15 * [1]
    assert batched.calibration_.scores == pytest.approx([p.score for p in light.predict(folder)], abs=1e-6)


def test_tiles_go_one_picture_after_the_other(batched, light, folder):
    framing = Framing((64, 96), tile=(64, 96))
    arguments = (framing, light.calibration_, as_pictures(folder), False)
    found = [result for _, result in prediction.predictions(batched._scoring, *arguments)]
    check_alike(found, [result for _, result in prediction.predictions(light.network_, *arguments)])
    assert len(batched.counts) == COUNT and max(batched.counts) > 1


@pytest.mark.parametrize("broken", [[5], [0], [9], [4, 5, 6, 7], list(range(COUNT))], ids=str)
def test_unreadable_pictures_keep_their_places(batched, light, folder, broken, caplog):
    expected = light.predict(folder)
    for k in broken:
        (folder / f"{k}.png").write_bytes(b"no picture")
    results = list(batched.predict_each(folder))
    assert [source.name for source, _ in results] == [str(folder / f"{k}.png") for k in range(COUNT)]
    assert [k for k, (_, result) in enumerate(results) if isinstance(result, ValueError)] == broken
    assert [f"{k}.png" in text for k, text in zip(broken, caplog.messages, strict=True)] == [True] * len(
        broken
    )
    readable = [k for k in range(COUNT) if k not in broken]
    check_alike([results[k][1] for k in readable], [expected[k] for k in readable])


@pytest.fixture
def check_no_threads_are_left():
    before = set(threading.enumerate())  # other packages keep theirs

    def check():
        new = set(threading.enumerate()) - before
        assert not [thread for thread in new if "ThreadPoolExecutor" in thread.name]

    return check


def test_strict_raises_when_its_turn_comes(check_no_threads_are_left, batched, folder):
    (folder / "5.png").write_bytes(b"no picture")
    found = []
    with pytest.raises(ValueError, match=r"5\.png"):
        for source, _ in batched.predict_each(folder, strict=True):
            found.append(source.name[-5:])
    assert found == [f"{k}.png" for k in range(5)]
    check_no_threads_are_left()


def test_a_network_that_gives_nan_says_so(check_no_threads_are_left, batched, folder):
    batched.network_.student_net.state_dict()["decoder_layer1.0.conv1.weight"].fill_(np.nan)
    with pytest.raises(RuntimeError, match=r"the network gives NaN.*inference_precision"):
        batched.predict(folder)
    check_no_threads_are_left()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_whoever_stops_early_leaves_no_thread_and_a_model_that_works(
    check_no_threads_are_left, batched, light, folder, taken
):
    results = batched.predict_each(folder)
    for _ in range(taken):
        next(results)
    results.close()
    check_no_threads_are_left()
    check_alike(batched.predict(folder), light.predict(folder))


def test_a_result_is_waited_for_only_after_the_next_batch_was_started(batched, folder, monkeypatch):
    waited = []
    wait = GraphScorer.wait

    def noted(scorer):
        waited.append(len(batched.counts))
        wait(scorer)

    monkeypatch.setattr(GraphScorer, "wait", noted)
    handed_over = []
    for _ in batched.predict_each(folder):
        handed_over.append(len(batched.counts))
    assert handed_over == [2] * 4 + [3] * 6  # batches started when each picture was handed over
    assert len(waited) >= COUNT


def test_batches_stay_small_where_pictures_are_large(batched, light, folder, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH_BYTES", 3 * 64 * 96 + 3 * 150 * 90)
    check_alike(batched.predict(folder), light.predict(folder))
    assert batched.counts == [2, 3, 3, 2]


def test_two_threads_and_two_unfinished_iterators_do_not_disturb_one_another(batched, light, folder):
    expected = light.predict(folder)
    for found in in_threads(3, lambda _: batched.predict(folder)):
        check_alike(found, expected)
    pairs = zip(batched.predict_each(folder), batched.predict_each(folder), strict=True)
    check_alike([result for pair in pairs for _, result in pair], [one for one in expected for _ in (0, 1)])


def test_half_precision_gives_nearly_the_same(batched, light, folder):
    batched._scoring = GpuNetwork(batched.network_, (64, 96), "float16")
    for ours, theirs in zip(batched.predict(folder), light.predict(folder), strict=True):
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-2)
        assert ours.score == pytest.approx(theirs.score, abs=5e-3)
    assert batched._scoring.network is not batched.network_
    assert next(batched.network_.parameters()).dtype == torch.float32


THIN = np.zeros((64, 96), np.uint8)
THIN[:, 47] = 1  # a column, which no picture of a quarter of the size has


def test_a_picture_in_which_the_region_vanishes_is_left_out_by_name(light, caplog):
    large = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    first, small, last = light.predict([large, large[:24, :24], large], roi=THIN)
    assert small is None and first.score == last.score
    assert "left out: picture 1: roi must hold at least one pixel, got none in a picture of 24" in caplog.text


def test_evaluation_names_such_a_picture(light, tmp_path):
    PIL.Image.new("RGB", (24, 24)).save(tmp_path / "small.png")
    score = prediction.scorer(light.network_, Framing((64, 96)).within(THIN))
    with pytest.raises(ValueError, match=r"small\.png: roi must hold at least one pixel"):
        score(tmp_path / "small.png")
