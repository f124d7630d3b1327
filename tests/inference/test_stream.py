"""From pictures to scores in one stream: order, batches, errors in place, threads, and how far ahead."""

import contextlib
import inspect
import itertools
import os
import threading
import time

import numpy as np
import PIL.Image
import pytest
from threads import in_threads

from destseg.inference import stream as road
from destseg.inference.calibration import Calibration
from destseg.inference.prediction import Prediction
from destseg.inference.scoring import Scored, score
from destseg.inference.stream import predictions, stream
from destseg.pictures.folders import Source, as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import read

COUNT = 10
SIZE = (64, 96)
SHAPES = [SIZE, (150, 90), (40, 30)]
POLYGON = [(0, 0), (20, 0), (20, 25), (0, 25)]
CALIBRATION = Calibration((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.5)


class Grey:
    """Stands in for a network: the map of an input is how bright it is. It remembers what came, and where."""

    def __init__(self, batch, size=SIZE):
        self.size, self.batch = size, batch
        self.counts, self.threads = [], set()

    def maps(self, pixels):
        assert 1 <= len(pixels) <= self.batch
        self.counts.append(len(pixels))
        self.threads.add(threading.current_thread())
        return pixels.mean(axis=3, dtype=np.float32) / 255


def picture(k):
    return np.random.default_rng(k).integers(0, 256, (*SHAPES[k % 3], 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for k in range(COUNT):
        PIL.Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
    return tmp_path


@pytest.fixture
def no_threads_are_left():
    before = set(threading.enumerate())  # other packages keep theirs
    yield
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if "ThreadPoolExecutor" in thread.name]


def check_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert (ours.score, ours.pixel_score, ours.roi) == (theirs.score, theirs.pixel_score, theirs.roi)


def one_by_one(framing, sources):
    """The pictures scored without any stream."""
    return [score(Grey(1), framing, [read(source, framing)])[0] for source in sources]


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("roi", [None, POLYGON], ids=["all", "region"])
@pytest.mark.parametrize("keep_aspect", [False, True], ids=["stretched", "padded"])
@pytest.mark.parametrize(("batch", "counts"), [(1, [1] * 10), (4, [4, 4, 2]), (32, [10])])
def test_batches_give_what_single_pictures_give_in_their_order(folder, roi, keep_aspect, batch, counts):
    framing, sources = Framing(SIZE, keep_aspect).within(roi), as_pictures(folder)
    scorer = Grey(batch)
    found = list(stream(scorer, framing, sources))
    assert [source for source, _ in found] == sources
    expected = one_by_one(framing, sources)
    check_same([result for _, result in found], expected)
    assert len({result.score for result in expected}) == COUNT  # an exchange would be seen
    assert sorted(scorer.counts, reverse=True) == counts


@pytest.mark.parametrize("batch", [1, 4])
def test_predictions_are_the_verdicts_on_what_the_stream_yields(folder, batch):
    framing, sources = Framing(SIZE), as_pictures(folder)
    found = list(predictions(Grey(batch), framing, CALIBRATION, sources))
    assert [source for source, _ in found] == sources
    for (source, ours), scored in zip(found, one_by_one(framing, sources), strict=True):
        theirs = CALIBRATION.judge(scored, source.name)
        assert ours.to_dict() == theirs.to_dict() and ours.source == source.name
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert ours.anomaly_map.shape == ours.image.shape[:2]


@pytest.mark.parametrize("batch", [4, 32])
def test_pictures_in_tiles_go_one_after_the_other_and_their_tiles_in_batches(folder, batch):
    framing, sources = Framing(SIZE, tile=SIZE), as_pictures(folder)
    scorer = Grey(batch)
    check_same([result for _, result in stream(scorer, framing, sources)], one_by_one(framing, sources))
    assert len(scorer.counts) == COUNT and max(scorer.counts) > 1


def test_a_batch_is_closed_early_where_pictures_are_large(folder, monkeypatch):
    monkeypatch.setattr(road, "BATCH_BYTES", 3 * 64 * 96 + 3 * 150 * 90)
    monkeypatch.setattr(road, "SCORERS", 1)  # so that counts stand in the batches' order
    scorer, framing, sources = Grey(4), Framing(SIZE), as_pictures(folder)
    check_same([result for _, result in stream(scorer, framing, sources)], one_by_one(framing, sources))
    assert scorer.counts == [2, 3, 3, 2]


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("broken", [[5], [0], [9], [4, 5, 6, 7], list(range(COUNT))], ids=str)
def test_unreadable_pictures_keep_their_places(folder, batch, broken):
    framing, sources = Framing(SIZE), as_pictures(folder)
    expected = one_by_one(framing, sources)
    for k in broken:
        (folder / f"{k}.png").write_bytes(b"no picture")
    for way in (stream, lambda *arguments: predictions(*arguments[:2], CALIBRATION, arguments[2])):
        found = list(way(Grey(batch), framing, sources))
        assert [source for source, _ in found] == sources
        assert [k for k, (_, result) in enumerate(found) if isinstance(result, ValueError)] == broken
        assert all(f"{k}.png" in str(found[k][1]) for k in broken)
        for k in set(range(COUNT)) - set(broken):
            result = found[k][1]
            assert isinstance(result, (Scored, Prediction)) and result.score == expected[k].score


def test_a_picture_in_which_the_region_vanishes_is_an_error_in_its_place():
    thin = np.zeros(SIZE, np.uint8)
    thin[:, 47] = 1  # a column, which no picture of a quarter of the size has
    large, small = np.zeros((*SIZE, 3), np.uint8), np.zeros((24, 24, 3), np.uint8)
    found = list(stream(Grey(4), Framing(SIZE).within(thin), as_pictures([large, small, large])))
    words = r"^picture 1: roi must hold at least one pixel, got none in a picture of 24"
    with pytest.raises(ValueError, match=words):
        raise found[1][1]
    check_same([found[0][1]], [found[2][1]])


@pytest.mark.parametrize("batch", [1, 4])
def test_of_no_pictures_nothing_comes(batch):
    for sources in ([], iter(())):
        assert list(stream(Grey(batch), Framing(SIZE), sources)) == []
        assert list(predictions(Grey(batch), Framing(SIZE), CALIBRATION, sources)) == []


# How far ahead

MOST_DECODERS = min(road.MOST_DECODERS, os.cpu_count() or 1)
TAKEN_AHEAD = {  # beyond the batch that was handed over, at most: what is decoded and what is scored
    1: road.DECODERS,
    4: MOST_DECODERS + road.SCORERS * 4,
    32: MOST_DECODERS + road.SCORERS * 32,
}


class Endless:
    """Sources without end, and how many of them were taken."""

    def __init__(self, first=0):
        self.taken, self.closed, self.threads = 0, False, set()

    def sources(self):
        try:
            for k in itertools.count():
                self.taken += 1
                self.threads.add(threading.current_thread())
                yield Source(f"picture {k}", np.full((*SIZE, 3), k % 256, np.uint8))
        finally:
            self.closed = True


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", TAKEN_AHEAD)
def test_an_endless_source_yields_and_few_pictures_are_taken_ahead(batch):
    endless = Endless()
    with contextlib.closing(stream(Grey(batch), Framing(SIZE), endless.sources())) as results:
        assert endless.taken == 0
        for yielded, (source, scored) in enumerate(itertools.islice(results, 200), 1):
            assert source.name == f"picture {yielded - 1}"
            assert scored.score == pytest.approx((yielded - 1) % 256 / 255)
            handed_over = -(-yielded // batch) * batch  # the rest of a batch waits for nothing
            assert yielded <= endless.taken <= handed_over + TAKEN_AHEAD[batch]
        assert not endless.closed
    assert endless.closed
    # A camera belongs to the thread that opened it; and closing never waits for its next picture.
    assert endless.threads == {threading.current_thread()}


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", TAKEN_AHEAD)
def test_predictions_of_an_endless_source_take_few_pictures_ahead(batch):
    endless = Endless()
    judged = 0 if batch == 1 else road.JUDGES
    results = predictions(Grey(batch), Framing(SIZE), CALIBRATION, endless.sources())
    with contextlib.closing(results):
        assert endless.taken == 0
        for yielded, (source, prediction) in enumerate(itertools.islice(results, 200), 1):
            assert source.name == prediction.source == f"picture {yielded - 1}"
            handed_over = -(-(yielded + judged) // batch) * batch
            assert yielded <= endless.taken <= handed_over + TAKEN_AHEAD[batch]
    assert endless.closed


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    assert condition()


@pytest.mark.parametrize("batch", [1, 4])
def test_pictures_are_read_ahead_while_the_consumer_is_busy(batch, monkeypatch):
    seen = []

    def noted(source, framing):
        seen.append(source.name)
        return read(source, framing)

    monkeypatch.setattr(road, "read", noted)
    with contextlib.closing(stream(Grey(batch), Framing(SIZE), Endless().sources())) as results:
        next(results)
        wait_until(lambda: len(seen) >= batch + road.DECODERS)  # nothing more is asked for


@pytest.mark.parametrize("batch", [1, 4])
def test_several_pictures_are_read_at_a_time(folder, batch, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    meeting = threading.Barrier(2, timeout=20)
    threads = set()

    def meet(source, framing):
        threads.add(threading.current_thread())
        meeting.wait()  # until the other one is being read, too
        return read(source, framing)

    monkeypatch.setattr(road, "read", meet)
    assert len(list(stream(Grey(batch), Framing(SIZE), as_pictures(folder)))) == COUNT
    assert len(threads) == 2 and threading.current_thread() not in threads


def test_two_batches_are_scored_at_a_time():
    class Meeting(Grey):
        barrier, lock, inside, most = threading.Barrier(2, timeout=20), threading.Lock(), 0, 0

        def maps(self, pixels):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self.barrier.wait()  # until the other one is being scored, too
            with self.lock:
                self.inside -= 1
            return super().maps(pixels)

    scorer = Meeting(4)
    sources = as_pictures(np.stack([picture(0)] * 16))
    assert len(list(stream(scorer, Framing(SIZE), sources))) == 16
    assert scorer.most == road.SCORERS == 2 and threading.current_thread() not in scorer.threads


def test_a_scorer_of_one_input_at_a_time_works_in_the_callers_thread(folder):
    scorer = Grey(1)
    list(stream(scorer, Framing(SIZE), as_pictures(folder)))
    assert scorer.threads == {threading.current_thread()}


@pytest.mark.parametrize("batch", [1, 32])
def test_one_picture_alone_needs_no_other_thread(batch, monkeypatch):
    threads = []

    def noted(source, framing):
        threads.append(threading.current_thread())
        return read(source, framing)

    monkeypatch.setattr(road, "read", noted)
    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda one: threads.append(one) or real(one))
    scorer, sources = Grey(batch), as_pictures(picture(0))
    ((source, found),) = stream(scorer, Framing(SIZE), sources)
    assert source is sources[0] and found.score == one_by_one(Framing(SIZE), sources)[0].score
    ((source, judged),) = predictions(scorer, Framing(SIZE), CALIBRATION, sources)
    assert source is sources[0] and judged.score == found.score
    assert set(threads) == scorer.threads == {threading.current_thread()}


# Every way out


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_whoever_stops_early_leaves_no_thread(folder, batch, taken):
    for results in (
        stream(Grey(batch), Framing(SIZE), as_pictures(folder)),
        predictions(Grey(batch), Framing(SIZE), CALIBRATION, as_pictures(folder)),
    ):
        for _ in range(taken):
            next(results)
        results.close()
        assert list(results) == []


@pytest.mark.parametrize("way", ["stream", "predictions"])
@pytest.mark.parametrize("batch", [1, 4])
def test_closing_closes_all_that_is_behind_it(folder, batch, way, monkeypatch):
    made = []

    def kept(function):
        def call(*arguments):
            made.append(function(*arguments))
            return made[-1]  # which lives on: garbage collection does not close it

        return call

    monkeypatch.setattr(road, "prefetch", kept(road.prefetch))
    monkeypatch.setattr(road, "_batches", kept(road._batches))
    arguments = (Grey(batch), Framing(SIZE))
    results = {
        "stream": lambda: stream(*arguments, as_pictures(folder)),
        "predictions": lambda: predictions(*arguments, CALIBRATION, as_pictures(folder)),
    }[way]()
    next(results)
    results.close()
    assert len(made) >= 3
    assert {inspect.getgeneratorstate(generator) for generator in made} == {inspect.GEN_CLOSED}


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_an_error_of_the_consumer_ends_the_threads(folder, batch):
    with (
        pytest.raises(KeyError),
        contextlib.closing(stream(Grey(batch), Framing(SIZE), as_pictures(folder))) as results,
    ):
        for _ in results:
            raise KeyError


class Failing(Grey):
    """Fails at the second call."""

    def maps(self, pixels):
        maps = super().maps(pixels)
        if len(self.counts) > 1:
            raise RuntimeError("of the GPU")
        return maps


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_an_error_of_the_scorer_is_the_callers_and_ends_the_threads(folder, batch):
    found = []
    with pytest.raises(RuntimeError, match="of the GPU"):
        for source, _ in stream(Failing(batch), Framing(SIZE), as_pictures(folder)):
            found.append(source.name)
    assert found in ([str(folder / f"{k}.png") for k in range(batch)], [])  # two batches at a time may fail
    with pytest.raises(RuntimeError, match="of the GPU"):
        list(predictions(Failing(batch), Framing(SIZE), CALIBRATION, as_pictures(folder)))


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_map_too_large_for_memory_ends_nothing(folder, batch, monkeypatch):
    def resized_map(scored, size):
        if scored.size == SHAPES[1]:
            raise MemoryError
        return real(scored, size)

    real = Scored.resized_map
    monkeypatch.setattr(Scored, "resized_map", resized_map)
    results = list(predictions(Grey(batch), Framing(SIZE), CALIBRATION, as_pictures(folder)))
    for k, (source, result) in enumerate(results):
        if k % 3 == 1:
            assert str(result) == f"{source.name}: there is not enough memory for this picture"
        else:
            assert isinstance(result, Prediction)


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_picture_too_large_to_score_is_left_out_and_no_other(folder, batch, monkeypatch):
    """As the map of one of many tiles may be."""

    def score_some(scorer, framing, pictures, progress):
        if any(picture.view.size == SHAPES[1] for picture in pictures):
            raise MemoryError
        return score(scorer, framing, pictures, progress)

    monkeypatch.setattr("destseg.inference.stream.score", score_some)
    sources = as_pictures(folder)
    results = list(stream(Grey(batch), Framing(SIZE), sources))
    assert [source for source, _ in results] == list(sources)
    for k, (source, result) in enumerate(results):
        if k % 3 == 1:
            assert str(result) == f"{source.name}: there is not enough memory for this picture"
        else:
            assert isinstance(result, Scored)


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_that_gives_nan_says_so(folder, batch):
    class Diverged(Grey):
        def maps(self, pixels):
            return np.full((len(pixels), *SIZE), np.nan, np.float32)

    with pytest.raises(RuntimeError, match=r"the network gives NaN.*inference_precision"):
        next(stream(Diverged(batch), Framing(SIZE), as_pictures(folder)))


@pytest.mark.usefixtures("no_threads_are_left")
@pytest.mark.parametrize("batch", [1, 4])
def test_an_error_of_the_sources_is_the_callers_and_ends_the_threads(folder, batch):
    def sources():
        yield from as_pictures(folder)
        raise ConnectionError("the camera is gone")

    with pytest.raises(ConnectionError, match="the camera is gone"):
        list(stream(Grey(batch), Framing(SIZE), sources()))


@pytest.mark.parametrize("batch", [1, 4])
def test_streams_side_by_side_do_not_disturb_one_another(folder, batch):
    scorer, framing, sources = Grey(batch), Framing(SIZE), as_pictures(folder)
    expected = one_by_one(framing, sources)
    for found in in_threads(3, lambda _: list(stream(scorer, framing, sources))):
        check_same([result for _, result in found], expected)
    pairs = zip(stream(scorer, framing, sources), stream(scorer, framing, sources), strict=True)
    check_same([result for pair in pairs for _, result in pair], [one for one in expected for _ in (0, 1)])
