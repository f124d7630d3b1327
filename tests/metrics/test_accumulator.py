"""Metrics collected batch by batch, on several threads, on disk, and by several processes."""

import dataclasses
import errno
import math
import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg import metrics
from destseg.metrics import accumulator as accumulation
from destseg.metrics import normal_scores

MAPS = np.random.default_rng(0).random((4, 9, 11)).astype(np.float32)
MASKS = np.random.default_rng(1).random(MAPS.shape) < 0.1
MASKS[1] = False


def values(result: metrics.Metrics) -> list[float]:
    return list(dataclasses.astuple(result))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([np.float32, np.float64]))
def test_batches_and_merges_give_what_one_call_gives(seed, levels, dtype):
    random = np.random.default_rng(seed)
    masks = random.random((6, 7, 5)) < random.random()
    maps = random.integers(0, levels, masks.shape).astype(dtype)
    whole = metrics.evaluate(maps, masks)
    first, second = metrics.Accumulator(), metrics.Accumulator()
    first.update(maps[:1], masks[:1])
    second.update(maps[1:4], masks[1:4])
    second.update(maps[4:], masks[4:])
    first.merge(second)
    assert values(first.compute()) == pytest.approx(values(whole), abs=1e-12, nan_ok=True)
    assert first.image_scores == pytest.approx([scores.mean() for scores in maps])


def test_a_refused_batch_leaves_the_accumulator_as_it_was():
    accumulator = metrics.Accumulator()
    accumulator.update(MAPS, MASKS)
    with pytest.raises(ValueError, match="map 1"):
        accumulator.update(np.array([[[1.0, 2.0]], [[math.nan, 0.0]]]), np.zeros((2, 1, 2)))
    assert accumulator.compute() == metrics.evaluate(MAPS, MASKS)


def test_computing_changes_nothing_and_merging_leaves_the_other_as_it_was():
    first, second = metrics.Accumulator(), metrics.Accumulator()
    first.update(MAPS[:2], MASKS[:2])
    second.update(MAPS[2:], MASKS[2:])
    before = second.compute()
    first.merge(second)
    assert first.compute() == first.compute() == metrics.evaluate(MAPS, MASKS)
    second.merge(second)
    second.update(MAPS, MASKS)
    assert first.compute() == metrics.evaluate(MAPS, MASKS)
    expected = metrics.evaluate(MAPS[2:], MASKS[2:])  # one metric is nan
    assert dataclasses.astuple(before) == dataclasses.astuple(expected)


def test_float32_and_float64_maps_mix():
    random = np.random.default_rng(2)
    maps = [random.random((6, 7)).astype(dtype) for dtype in (np.float32, np.float64, np.float16, np.float32)]
    masks = [random.random((6, 7)) < share for share in (0.2, 0.2, 0, 0.1)]
    accumulator = metrics.Accumulator()
    for scores, mask in zip(maps, masks, strict=True):
        accumulator.update([scores], [mask])
    expected = metrics.evaluate([scores.astype(np.float64) for scores in maps], masks)
    assert values(accumulator.compute()) == pytest.approx(values(expected), abs=1e-12)


@pytest.fixture
def small_blocks(monkeypatch):
    """So that small pictures already fill many blocks and parts."""
    monkeypatch.setattr(accumulation, "BLOCK", 400)
    monkeypatch.setattr(normal_scores, "BLOCK", 400)
    monkeypatch.setattr(normal_scores, "PART", 7)


@pytest.fixture
def threads():
    """Leaves torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small_blocks", "threads")
def test_results_do_not_depend_on_blocks_and_threads():
    random = np.random.default_rng(3)
    maps = np.round(random.random((20, 15, 13)), 2).astype(np.float32)
    masks = random.random(maps.shape) < 0.1
    masks[::4] = False
    expected = metrics.evaluate(maps.reshape(1, 300, 13), masks.reshape(1, 300, 13)).pixel_ap
    results = []
    for count in (1, 2, 5) * 30:
        torch.set_num_threads(count)
        results.append(metrics.evaluate(maps, masks))
    assert all(result == results[0] for result in results)
    assert results[0].pixel_ap == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2])
def test_extra_memory_stays_below_twice_the_maps(count):
    torch.set_num_threads(count)
    maps = np.random.default_rng(5).random((8, 512, 512), np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[::2, 100:250, 100:250] = True
    tracemalloc.start()
    metrics.evaluate(maps, masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2 * maps.nbytes


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("decimals", [1, 8], ids=["few values", "many values"])
@pytest.mark.parametrize("memory", [0, 3000])
def test_scores_beyond_the_bound_lie_on_disk(tmp_path, decimals, memory):
    random = np.random.default_rng(4)
    maps = np.round(random.random((30, 15, 13)), decimals)
    masks = random.random(maps.shape) < 0.1
    masks[::4] = False
    accumulator = metrics.Accumulator(memory=memory, folder=tmp_path)
    for start in range(0, 30, 3):
        accumulator.update(maps[start : start + 3], masks[start : start + 3])
    blocks = accumulator._normals._blocks
    assert sum(block.memory for block in blocks) <= memory
    on_disk = [block for block in blocks if isinstance(block.rising, np.memmap)]
    assert on_disk or (memory and decimals == 1)
    assert accumulator.compute() == metrics.evaluate(maps, masks)
    copied = pickle.loads(pickle.dumps(accumulator))
    assert not any(isinstance(block.rising, np.memmap) for block in copied._normals._blocks)
    copied.merge(accumulator)
    twice = metrics.evaluate(np.concatenate([maps, maps]), np.concatenate([masks, masks]))
    assert values(copied.compute()) == pytest.approx(values(twice), abs=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_scores_stay_in_memory_where_the_disk_is_full(tmp_path, monkeypatch, caplog):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    random = np.random.default_rng(4)
    maps = random.random((30, 15, 13))
    masks = random.random(maps.shape) < 0.1
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    accumulator = metrics.Accumulator(memory=0, folder=tmp_path)
    for start in range(0, 30, 3):
        accumulator.update(maps[start : start + 3], masks[start : start + 3])
    found, expected = accumulator.compute(), metrics.evaluate(maps, masks)  # one metric is nan
    assert dataclasses.astuple(found) == dataclasses.astuple(expected)
    assert len(accumulator._normals._blocks) > 1
    (message,) = caplog.messages
    assert f"no temporary file can be written in {tmp_path}: [Errno 28] No space left" in message


def accumulated(part: slice) -> metrics.Accumulator:
    accumulator = metrics.Accumulator()
    accumulator.update(MAPS[part], MASKS[part])
    return accumulator


def test_processes_can_share_the_work():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(accumulated, [slice(0, 1), slice(1, 4)])
    first.merge(second)
    assert first.compute() == metrics.evaluate(MAPS, MASKS)


def test_pixels_outside_of_a_region_are_as_if_they_were_not_there():
    inside = np.zeros(MAPS.shape[1:], bool)
    inside[2:7, 1:8] = True
    accumulator = metrics.Accumulator()
    accumulator.update(MAPS, MASKS, regions=np.broadcast_to(inside, MAPS.shape))
    cropped = metrics.evaluate(MAPS[:, 2:7, 1:8], MASKS[:, 2:7, 1:8])
    assert values(accumulator.compute()) == pytest.approx(values(cropped), nan_ok=True)


def test_regions_of_any_form_leave_out_normal_pixels():
    regions = np.random.default_rng(2).random(MAPS.shape) < 0.7
    accumulator = metrics.Accumulator()
    accumulator.update(list(MAPS), list(MASKS), regions=list(regions))
    curves = accumulator.curves()
    assert (
        curves.normal_count == (regions & ~MASKS).sum() and curves.positive_count == (regions & MASKS).sum()
    )
    scores, truth = MAPS[regions], MASKS[regions]
    rows = metrics.curves(scores[None, None], truth[None, None])  # one row: the same pixels, other instances
    assert curves.average_precision() == pytest.approx(rows.average_precision())
    assert curves.auroc() == pytest.approx(rows.auroc())


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        (np.ones((3, 9, 11), bool), "equally many, got 4 maps and 3 regions"),
        (np.ones((4, 9, 10), bool), r"region 0 must have the size of its map, .* got \(9, 10\)"),
        (np.zeros((4, 9, 11), bool), "region 0 must .* a pixel inside, got none"),
    ],
)
def test_words_about_bad_regions(regions, words):
    with pytest.raises(ValueError, match=words):
        metrics.Accumulator().update(MAPS, MASKS, regions=regions)
