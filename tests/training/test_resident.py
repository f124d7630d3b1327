"""Batches made on a device from what lies there: the same as the CPU's, whatever is resident there."""

import numpy as np
import pytest
import torch

from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.training.resident import ResidentSynthesis, load_resident
from destseg.training.synthesis import Synthesis
from destseg.training.textures import PictureTextures, from_normals

SIZE = (24, 32)


def store_of(count, seed=3, roi=None):
    pictures = np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    return PictureStore(as_pictures(pictures), Framing(SIZE).within(roi))


@pytest.mark.parametrize("textures", ["a texture source", "the pictures' own"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"rotate": 5, "flip": "both"}, {"augment": "light"}],
    ids=["as they are", "rotated", "in other light"],
)
@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["resident", "sent"])
@pytest.mark.parametrize("roi", [None, [(3, 4), (28, 4), (10, 20)]], ids=["whole", "region"])
def test_the_batches_are_those_of_the_cpu(device, textures, changes, memory, roi):
    normals = store_of(5, roi=roi)
    draw = PictureTextures(store_of(4, seed=4)) if textures == "a texture source" else from_normals(normals)
    synthesis = Synthesis(normals, draw, 3, seed=1, **changes)
    expected = [synthesis.batch(step) for step in range(2, 6)]
    made = ResidentSynthesis(synthesis, device, memory).batches(range(2, 6), workers=2)
    for ours, theirs in zip(made, expected, strict=True):
        assert ours.corrupted.device.type == ours.masks.device.type == device.type
        assert ours.corrupted.is_contiguous(memory_format=torch.channels_last)
        assert ours.indices.tolist() == list(theirs.indices)
        torch.testing.assert_close(ours.clean.cpu(), theirs.clean)
        assert (ours.rois is None) == (theirs.rois is None) == (roi is None)
        assert roi is None or torch.equal(ours.rois.cpu(), theirs.rois)
        same = ours.masks.cpu() == theirs.masks
        assert same.float().mean() > 0.999  # all but ties
        difference = torch.where(same, ours.corrupted.cpu() - theirs.corrupted, 0.0)
        assert difference.abs().max() < 1e-5


def test_what_lies_on_the_device():
    store, cpu = store_of(4), torch.device("cpu")
    pictures, rois = load_resident(store, cpu, 4 * 24 * 32 * 3)
    assert rois is None and torch.equal(pictures, torch.from_numpy(np.stack([store[k] for k in range(4)])))
    assert load_resident(store, cpu, 4 * 24 * 32 * 3 - 1) == (None, None)
    synthesis = Synthesis(store, PictureTextures(store), 2)
    draft = ResidentSynthesis(synthesis, cpu, 1 << 30).draft(0)
    assert draft.pictures.shape == draft.textures.shape == (2,)  # numbers travel, no pictures
    turned = Synthesis(store, from_normals(store), 2, rotate=5)
    assert ResidentSynthesis(turned, cpu, 1 << 30).draft(0).pictures.shape == (2, *SIZE, 3)


def test_regions_count_in_the_bound():
    store, cpu = store_of(3, roi=[(3, 4), (28, 4), (10, 20)]), torch.device("cpu")
    assert load_resident(store, cpu, 3 * 24 * 32 * 4 - 1) == (None, None)
    _, rois = load_resident(store, cpu, 3 * 24 * 32 * 4)
    assert rois.dtype == torch.uint8 and rois.shape == (3, 1, *SIZE)
    for k in range(3):
        assert np.array_equal(rois[k, 0], store.input(k)[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_waits_for_nothing():
    normals = store_of(5)
    synthesis = ResidentSynthesis(
        Synthesis(normals, PictureTextures(normals), 3), torch.device("cuda"), 1 << 30
    )
    synthesis.batch(synthesis.draft(0))  # constants are written there once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        synthesis.batch(synthesis.draft(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
