"""Whether parts lie in any direction is told from normal pictures; then they are turned in training."""

import dataclasses

import numpy as np
import pytest

import destseg
from destseg.model.construction import new_network
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Schedule, Settings
from destseg.training.poses import FEWEST, lie_anyhow, settle_rotation, turn

SIZE = 128


@pytest.fixture(scope="module")
def teacher():
    return new_network(Settings(), progress=False).teacher_net


def part(generator):
    """A bright key with a hole at one end, on a dark ground: it looks otherwise in every direction."""
    picture = np.full((SIZE, SIZE), 40.0)
    picture[54:74, 24:104] = 170
    picture[40:88, 24:60] = 150
    picture[56:72, 34:50] = 60
    picture[74:90, 84:90] = picture[74:90, 96:102] = 170
    picture += generator.normal(0, 4, picture.shape)
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def stripes(generator):
    phase = generator.uniform(0, 2 * np.pi)
    picture = 120 + 60 * np.sin(np.arange(SIZE) / 3 + phase)[:, None] + generator.normal(0, 4, (SIZE, SIZE))
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def turned_part(generator):
    return turn(part(generator), generator.uniform(0, 360))


def pictures_of(make, count=16):
    generator = np.random.default_rng(0)
    return np.stack([make(generator) for _ in range(count)])


def store_of(pictures):
    return PictureStore(as_pictures(pictures), Framing((SIZE, SIZE)), progress=False)


@pytest.mark.parametrize(("make", "anyhow"), [(part, False), (stripes, False), (turned_part, True)])
@pytest.mark.parametrize("seed", [0, 1])
def test_only_parts_that_were_turned_lie_anyhow(teacher, make, anyhow, seed):
    pictures = pictures_of(make)
    assert lie_anyhow(teacher, store_of(pictures), range(len(pictures)), seed) is anyhow


def test_few_pictures_do_not_tell(teacher):
    pictures = pictures_of(turned_part)
    assert not lie_anyhow(teacher, store_of(pictures[: FEWEST - 1]), range(FEWEST - 1), 0)
    same = [0] * 8 + list(range(8))  # so few are parts of their own
    assert not lie_anyhow(teacher, store_of(pictures), same, 0)


@pytest.mark.parametrize(("make", "rotate"), [(part, 0.0), (turned_part, 180.0)])
def test_auto_becomes_a_number_and_what_is_asked_for_stays(teacher, make, rotate):
    store, schedule = store_of(pictures_of(make)), Schedule((1, 1), 2, rotate="auto")
    settled = settle_rotation(schedule, teacher, store, range(16), 0, progress=False)
    assert settled == dataclasses.replace(schedule, rotate=rotate)
    for asked in (0.0, 5.0, "90"):
        given = dataclasses.replace(schedule, rotate=asked)
        assert settle_rotation(given, teacher, store, range(16), 0, progress=False) is given


@pytest.mark.parametrize(("preset", "rotate"), [("fast", "auto"), ("paper", 0.0), ("stpm", 0.0)])
def test_only_the_fast_preset_looks_for_itself(preset, rotate):
    assert Schedule.of(preset, None, None).rotate == rotate
    assert Schedule.of(preset, None, None, "auto").rotate == "auto"
    assert Schedule.of(preset, None, None, 0).rotate == 0


def test_a_fit_turns_parts_that_lie_anyhow_and_tells(caplog):
    model = destseg.DeSTSeg(image_size=SIZE, device="cpu")
    with caplog.at_level("INFO", "destseg"):
        model.fit(pictures_of(turned_part, 20), steps=(1, 1), batch_size=2, progress=False)
    assert model.record_.rotate == 180
    assert "the parts seem to lie in any direction, so they are turned in training" in caplog.text


@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_turning_by_nothing_and_by_half(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(turn(picture, 0), picture)
    if size[0] % 2 == size[1] % 2 == 0:
        assert np.array_equal(turn(picture, 180), picture[::-1, ::-1])
