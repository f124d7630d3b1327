"""Pictures that come from a camera, one after the other and without end."""

import copy
import itertools
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from destseg.inference import stream as road

MOST = 100  # frames after which a camera says that nobody judges them
AHEAD = road.DECODERS  # pictures beyond the one just judged that have been taken, at most, on a CPU


class Camera:
    """Yields frames for ever, or until it fails; it counts them, and knows whether it was closed."""

    def __init__(self, size=(64, 96), fails_after=None, reuses=False):
        self.size, self.fails_after, self.reuses = size, fails_after, reuses
        self.taken, self.closed = 0, False

    def frame(self, k):
        return np.random.default_rng(k).integers(0, 256, (*self.size, 3), np.uint8)

    def frames(self):
        buffer = np.empty((*self.size, 3), np.uint8)
        try:
            for k in itertools.count():
                if k == self.fails_after:
                    raise ConnectionError("the cable is out")
                assert k < MOST, "frames are taken without end"
                self.taken += 1
                if self.reuses:
                    buffer[:] = self.frame(k)
                yield buffer if self.reuses else self.frame(k)
        finally:
            self.closed = True

    __iter__ = frames


@pytest.mark.parametrize("kind", ["generator", "object", "map"])
def test_an_endless_camera_gives_verdicts_and_few_frames_are_taken_ahead(light, kind):
    camera = Camera()
    frames = {"generator": camera.frames(), "object": camera, "map": map(np.flipud, camera.frames())}[kind]
    results = light.predict_each(frames)
    assert camera.taken == 0
    for judged, (source, result) in enumerate(itertools.islice(results, 20), 1):
        assert source.name == result.source == f"picture {judged - 1}"
        assert judged <= camera.taken <= judged + AHEAD
        picture = np.flipud(camera.frame(judged - 1)) if kind == "map" else camera.frame(judged - 1)
        assert result.score == light.predict(picture).score
    results.close()
    if kind != "map":  # only generators can be closed
        assert camera.closed


def test_a_consumer_that_stops_closes_the_camera(light):
    camera = Camera()
    for _, result in light.predict_each(camera.frames()):
        if result.score > 0:
            break
    assert camera.closed and camera.taken <= 1 + AHEAD


def test_memory_does_not_grow_with_the_number_of_frames(light):
    camera = Camera((1080, 1920))
    tracemalloc.start()
    for _ in itertools.islice(light.predict_each(camera.frames()), 24):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 1080 * 1920 * 3


def test_verdicts_on_what_was_taken_come_before_the_cameras_error(light):
    camera, judged = Camera(fails_after=7), []
    with pytest.raises(ConnectionError, match="the cable is out"):
        for source, _ in light.predict_each(camera.frames()):
            judged.append(source.name)
    assert judged == [f"picture {k}" for k in range(7)] and camera.closed


def test_a_camera_may_fill_the_same_buffer_again(light):
    camera = Camera(reuses=True)
    for k, (_, result) in enumerate(itertools.islice(light.predict_each(camera.frames()), 8)):
        assert result.score == light.predict(camera.frame(k)).score


def broken_items(folder):
    """Items of every kind, and for each the picture's name and words of its error, or None."""
    (folder / "two").mkdir()
    (folder / "empty").mkdir()
    for k in range(2):
        PIL.Image.fromarray(np.full((70, 70, 3), 40 * k, np.uint8)).save(folder / "two" / f"{k}.png")
    frame, two = np.zeros((64, 96, 3), np.uint8), folder / "two"
    return [
        (frame, [("picture 0", None)]),
        (None, [("picture 1", "picture 1: image must be a path, bytes, .* got NoneType")]),
        (frame[None], [("picture 2", r"got uint8 of shape \(1, 64, 96, 3\)")]),
        (two, [(str(two / "0.png"), None), (str(two / "1.png"), None)]),
        (str(folder / "no"), [(str(folder / "no"), "there is no picture or directory")]),
        (folder / "empty", [(str(folder / "empty"), "holds no pictures: it is empty")]),
        (np.full((64, 96), np.nan), [("picture 7", "NaN")]),
        (b"no picture", [("picture 8", "cannot be read as a picture")]),
        ((two / "1.png").read_bytes(), [("picture 9", None)]),
    ]


def test_items_that_are_no_pictures_keep_their_places(light, tmp_path):
    items = broken_items(tmp_path)
    expected = [pair for _, pairs in items for pair in pairs]
    found = list(light.predict_each(item for item, _ in items))
    assert [source.name for source, _ in found] == [name for name, _ in expected]
    for (_, result), (_, words) in zip(found, expected, strict=True):
        assert isinstance(result, Exception) == (words is not None)
        if words:
            with pytest.raises((ValueError, TypeError, OSError), match=words):
                raise result
    assert [result is None for result in light.predict(item for item, _ in items)] == [
        words is not None for _, words in expected
    ]


def test_strict_raises_at_the_first_of_them(light):
    frames = iter([np.zeros((64, 96, 3), np.uint8), None, 1 / 2])
    results = light.predict_each(frames, strict=True)
    assert next(results)[1].score >= 0
    with pytest.raises(TypeError, match=r"^picture 1: .*NoneType"):
        next(results)


def test_what_is_no_iterator_is_checked_before_any_work(light):
    frame = np.zeros((64, 96, 3), np.uint8)
    for several in ([frame, None], (frame, None), dict.fromkeys(["a", None]).keys()):
        with pytest.raises((TypeError, FileNotFoundError)):
            next(light.predict_each(several))


def test_of_an_iterator_without_pictures_comes_an_error(light):
    with pytest.raises(ValueError, match="at least one picture, got none"):
        next(light.predict_each(iter(())))


def test_calibration_takes_frames_one_by_one_too(light):
    camera, large, model = Camera(), Camera((1080, 1920)), copy.deepcopy(light)
    tracemalloc.start()
    model.calibrate(itertools.chain(itertools.islice(large.frames(), 24), [None]), 0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 1080 * 1920 * 3 and len(model.calibration_.scores) == 24
    frames = [camera.frame(k) for k in range(9)]
    scores = model.calibrate(iter(frames), 0.2).calibration_.scores
    assert scores == model.calibrate(frames, 0.2).calibration_.scores
