"""What is decided about normal pictures before training: which are trained on, and which are held out."""

import numpy as np
import pytest

from destseg.model.construction import new_network
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Schedule, Settings
from destseg.training.preparation import prepare


@pytest.fixture(scope="module")
def teacher():
    return new_network(Settings(image_size=64), None, False).eval().teacher_net


@pytest.fixture(scope="module")
def store():
    pictures = np.random.default_rng(0).integers(90, 110, (12, 64, 64, 3), np.uint8)
    return PictureStore(as_pictures(pictures), Framing((64, 64)), progress=False)


def prepared(store, units, teacher, seed=0, **schedule):
    wanted = Schedule.of("fast", (1, 1), 2, **schedule)
    return prepare(store, units, teacher, wanted, seed, progress=False)


def test_every_picture_is_on_one_side_and_units_stay_whole(store, teacher):
    units = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    found = prepared(store, units, teacher)
    trained_on, held_out = found.training.sources, found.held_out.sources
    assert sorted(trained_on + held_out, key=store.sources.index) == store.sources
    unit_of = dict(zip(store.sources, units, strict=True))
    assert found.held_out_units == [unit_of[source] for source in held_out]
    assert not {unit_of[source] for source in trained_on} & set(found.held_out_units)
    assert not found.none_held_out and found.outliers == ()


def test_a_single_unit_serves_for_both(store, teacher):
    found = prepared(store, [0] * 12, teacher)
    assert found.none_held_out and found.training.sources == store.sources


def test_a_checkpoint_belongs_to_its_split(store, teacher):
    """Without units and outliers the number of pictures and the seed tell the split: the checksum stays."""
    alone = prepared(store, range(12), teacher)
    pairs = [prepared(store, [k // 2 for k in range(12)], teacher, seed) for seed in (0, 1)]
    checksums = {found.training.checksum for found in (alone, *pairs)}
    assert alone.training.checksum == store.checksum and len(checksums) == 3


def test_auto_becomes_a_number(store, teacher):
    assert prepared(store, range(12), teacher, rotate="auto").schedule.rotate in (0.0, 180.0)
    assert prepared(store, range(12), teacher, rotate=5).schedule.rotate == 5
