"""Pictures read, and predicted, by several threads at once."""

import io
import threading
import time
import warnings

import numpy as np
import PIL.Image
import pytest
from threads import in_threads

from destseg.pictures.decoding import to_rgb


def png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class SlowFile(io.BytesIO):
    """Lets other threads run in the middle of decoding."""

    def read(self, *arguments):
        time.sleep(0.001)
        return super().read(*arguments)


def test_the_same_undecoded_pillow_image():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    image = PIL.Image.open(SlowFile(png(pixels)))
    for found in in_threads(4, lambda _: to_rgb(image)):
        np.testing.assert_array_equal(found, pixels)


def test_different_pillow_images_do_not_wait_for_each_other():
    meeting = threading.Barrier(2, timeout=20)

    class MeetingFile(io.BytesIO):
        wanted = False

        def read(self, *arguments):
            if self.wanted:
                self.wanted = False
                meeting.wait()  # until the other picture is being decoded, too
            return super().read(*arguments)

    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    files = [MeetingFile(png(pixels)) for _ in range(2)]
    images = [PIL.Image.open(file) for file in files]
    for file in files:
        file.wanted = True
    for found in in_threads(2, lambda number: to_rgb(images[number])):
        np.testing.assert_array_equal(found, pixels)


def test_the_warning_filters_are_left_alone():
    data = png(np.zeros((2, 2, 3), np.uint8))
    filters = list(warnings.filters)
    in_threads(4, lambda _: [to_rgb(data) for _ in range(50)])
    assert list(warnings.filters) == filters


def test_concurrent_predictions_agree_with_single_ones(fitted, few_parts):
    paths = sorted(few_parts.iterdir())[:6]
    expected = [fitted.predict(path).score for path in paths]
    for scores in in_threads(4, lambda _: [fitted.predict(path).score for path in paths]):
        assert scores == pytest.approx(expected, abs=1e-6)
