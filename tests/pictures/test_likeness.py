"""Pictures of the same part: copies are found; parts of one kind and a common ground are not taken for it."""

import io

import numpy as np
import PIL.Image
import pytest

from destseg.pictures import likeness
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing, View
from destseg.pictures.likeness import alike
from destseg.pictures.store import PictureStore

SIDE = 128


def part(seed, ground=None, size=SIDE):
    """A grained disc, at nearly the same place in every picture, on a grained ground."""
    generator = np.random.default_rng([7, seed])
    rows, columns = np.mgrid[0:size, 0:size]
    top, left = size / 2 + generator.uniform(-1, 1, 2)
    disc = (np.hypot(rows - top, columns - left) < 0.3 * size)[..., None]
    grain = generator.normal(0, 12, (size // 2, size // 2, 1)).repeat(2, 0).repeat(2, 1)
    under = 80 + (grain if ground is None else ground)
    pixels = np.where(disc, 170 + grain, under) + generator.normal(0, 1, (size, size, 1))
    return np.broadcast_to(pixels, (size, size, 3)).clip(0, 255).astype(np.uint8)


def jpeg(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return np.asarray(PIL.Image.open(file))


def brighter(pixels):
    return np.clip(1.03 * pixels + 0.5, 0, 255).astype(np.uint8)


def shifted(pixels):
    return np.pad(pixels, ((1, 0), (0, 1), (0, 0)), "edge")[:-1, 1:]


def views(pictures):
    return [None if pixels is None else View(pixels, pixels.shape[:2]) for pixels in pictures]


def pairs(pictures):
    return alike(views(pictures), range(len(pictures)))


PARTS = [part(seed) for seed in range(12)]


def test_parts_of_one_kind_are_not_the_same():
    assert pairs(PARTS) == []


@pytest.mark.parametrize("copy", [jpeg, brighter, shifted])
def test_copies_are_found(copy):
    assert set(pairs([*PARTS, copy(PARTS[4]), copy(PARTS[9])])) == {(4, 12), (9, 13)}


def test_the_likeliest_pair_comes_first():
    assert pairs([*PARTS, jpeg(PARTS[4]), PARTS[9]])[0] == (9, 13)


def test_a_ground_that_all_pictures_have_in_common_does_not_count():
    ground = np.random.default_rng(3).normal(0, 20, (SIDE, SIDE, 1))
    assert pairs([part(seed, ground) for seed in range(12)]) == []


def test_flat_areas_do_not_count():
    pictures = [pixels.copy() for pixels in PARTS]
    for pixels in pictures:
        pixels[: SIDE // 2] = 255
    assert pairs([*pictures, jpeg(pictures[3])]) == [(3, 12)]
    assert pairs([np.full((SIDE, SIDE, 3), level, np.uint8) for level in (30, 30, 90)]) == []


def test_units_are_known_to_be_together():
    pictures = views([*PARTS, jpeg(PARTS[4]), brighter(PARTS[4])])
    assert alike(pictures, [*range(12), 4, 4]) == []
    assert alike(pictures, [*range(12), 4, 12]) == [(4, 13)]


def test_pictures_that_are_not_kept_and_those_of_another_size_are_passed_over():
    copies = [*PARTS, jpeg(PARTS[4])]
    assert pairs([None if k == 4 else pixels for k, pixels in enumerate(copies)]) == []
    assert pairs([*PARTS, PARTS[4][:100]]) == []
    assert pairs([]) == pairs(PARTS[:1]) == pairs([pixels[:8, :8] for pixels in copies]) == []


def test_no_more_than_a_bound_is_compared(monkeypatch):
    copies = [*PARTS, jpeg(PARTS[4]), jpeg(PARTS[9])]
    monkeypatch.setattr(likeness, "MOST", 13)
    assert pairs(copies) == [(4, 12)]
    monkeypatch.setattr(likeness, "MOST", 14)
    monkeypatch.setattr(likeness, "CLOSEST", 1)
    assert len(pairs(copies)) == 1


def test_large_pictures_are_compared_at_a_smaller_size():
    large = [part(seed, size=300) for seed in range(4)]
    assert pairs([*large, jpeg(large[1])]) == [(1, 4)]


@pytest.mark.parametrize(
    ("name", "some", "expected"),
    [
        ("aitex_fabric2", "*", []),
        ("transistor_256", "*", []),
        ("kolektorsdd", "kos3[89]_*", [("kos38_Part7", "kos39_Part5")]),  # one item, photographed twice
    ],
)
def test_real_parts(shared, name, some, expected):
    paths = sorted((shared / "data" / name / "train" / "good").glob(some))
    store = PictureStore(as_pictures(paths), Framing((256, 256)))
    found = alike(store.views, range(store.pictures))
    assert [tuple(paths[k].stem for k in pair) for pair in found] == expected
