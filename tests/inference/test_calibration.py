"""Thresholds from normal pictures alone: by hand, their guarantee by simulation, splits, p-values."""

import dataclasses
import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch

from destseg.inference.calibration import (
    TOLERANCE,
    Calibration,
    calibrate,
    conformal_threshold,
    p_value,
    split,
)
from destseg.inference.scoring import Scored
from destseg.pictures.folders import Source

ROUNDING = 4e-7  # the largest difference between the scores of two engines that was measured
NINE = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6]


@pytest.mark.parametrize(
    ("scores", "rate", "expected"),
    [
        (NINE, 0.1, 0.9),  # k = 10 * 0.9 = 9: just enough pictures
        (NINE, 0.2, 0.8),
        (NINE, 0.25, 0.8),  # k = 7.5, rounded up
        (NINE, 0.5, 0.5),
        (NINE, 0.9, 0.1),
        (NINE, 0.05, 0.9),  # k = 9.5 of 9: the largest
        ([0.4], 0.01, 0.4),
        ([0.2, 0.2, 0.2, 0.6], 0.4, 0.2),  # k = 3, ties
        (range(1, 100), 0.01, 99),
        (range(1, 100), 0.42, 58),  # 100 * (1 - 0.42) is a little more than 58 in floating point
        (range(1, 1000), 0.01, 990),
    ],
)
def test_threshold_by_hand(scores, rate, expected):
    assert conformal_threshold(list(scores), rate) == expected


@pytest.mark.parametrize(
    ("pictures", "rate", "expected"),
    [(30, 0.1, 3 / 31), (99, 0.01, 1 / 100), (19, 0.25, 5 / 20), (9, 0.01, 1 / 10), (1, 0.3, 1 / 2)],
)
def test_false_positives_stay_below_the_guaranteed_rate(pictures, rate, expected):
    # Scores are uniform, so a threshold t lets 1 - t of all normal pictures through. The mean over splits is
    # (m + 1 - k) / (m + 1): the k-th smallest of m uniform numbers has mean k / (m + 1).
    generator, splits = np.random.default_rng(0), 4000
    rates = [1 - conformal_threshold(generator.random(pictures), rate) for _ in range(splits)]
    error = np.std(rates) / np.sqrt(splits)
    assert np.mean(rates) == pytest.approx(expected, abs=4 * error)
    guaranteed = Calibration((0.0,) * pictures, (0.0,) * pictures, rate).guaranteed_rate
    assert expected <= guaranteed == pytest.approx(max(rate, 1 / (pictures + 1)))


def test_ties_only_lower_the_rate():
    generator = np.random.default_rng(0)
    draws = generator.integers(0, 4, (2000, 20))  # 19 calibration pictures and a new one, four scores in all
    false = [draw[19] > conformal_threshold(draw[:19], 0.25) for draw in draws]
    assert np.mean(false) < 0.25


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, 5 / 5), (0.1, 5 / 5), (0.15, 4 / 5), (0.2, 4 / 5), (0.3, 2 / 5), (0.9, 1 / 5)],
)
def test_p_value_by_hand(score, expected):
    assert p_value(score, [0.1, 0.2, 0.2, 0.3]) == expected


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_verdict_and_p_value_agree(rate):
    scores = np.random.default_rng(2).integers(0, 30, 40) / 30
    threshold = conformal_threshold(scores, rate)
    for score in np.arange(-1, 32) / 30:
        assert (score > threshold) == (p_value(score, scores) <= rate)


@pytest.mark.parametrize("groups", [None, (0, 0, 1, 2, 1, 3, 4, 4, 4)])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.7, 0.9])
def test_rounding_by_another_engine_changes_no_verdict_and_no_p_value(rate, groups):
    """A calibration picture defines the threshold, and another engine computes its score a little higher."""
    calibration = Calibration(tuple(NINE), tuple(NINE), rate, groups=groups)
    pixels, anomaly_map = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32)

    def judged(score):
        return calibration.judge(Scored(pixels, (2, 2), anomaly_map + score, score, score), "part.png")

    for score in NINE:
        exact = judged(score)
        for rounded in (score - ROUNDING, score + ROUNDING, float(np.float32(score + ROUNDING))):
            found = judged(rounded)
            assert (found.is_anomalous, found.p_value) == (exact.is_anomalous, exact.p_value)
            assert found.mask.all() == exact.mask.all() == exact.is_anomalous


# Three groups: 0.1 and 0.4; 0.2; 0.3, 0.3 and 0.6. By score, 1/2, 1, 2/3, 1/2 and 1/3 of a group add up to
# 0.5 at 0.1, 1.5 at 0.2, 2.17 at 0.3, 2.67 at 0.4, 3 at 0.6.
GROUPED, IN_GROUPS = [0.3, 0.1, 0.2, 0.6, 0.4, 0.3], [7, 2, 5, 7, 2, 7]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.9, 0.1),  # 4 * 0.1 = 0.4
        (0.8, 0.2),
        (0.625, 0.2),  # 4 * 0.375 = 1.5: just enough
        (0.6, 0.3),
        (0.45, 0.4),
        (0.25, 0.6),  # 4 * 0.75 = 3
        (0.2, 0.6),  # 3.2 of 3: the largest
    ],
)
def test_threshold_of_groups_by_hand(rate, expected):
    assert conformal_threshold(GROUPED, rate, IN_GROUPS) == expected


@pytest.mark.parametrize(
    ("score", "expected"), [(0.7, 1), (0.6, 1 + 1 / 3), (0.4, 1 + 1 / 3 + 1 / 2), (0.25, 2.5), (0.1, 4)]
)
def test_p_value_of_groups_by_hand(score, expected):
    assert p_value(score, GROUPED, IN_GROUPS) == pytest.approx(expected / 4, abs=1e-12)


def test_groups_of_one_picture_change_nothing():
    generator = np.random.default_rng(8)
    for _ in range(500):
        count = int(generator.integers(1, 50))
        scores, rate = generator.integers(0, 40, count) / 40, float(generator.uniform(0.001, 0.999))
        own = generator.permutation(count).tolist()
        rank = math.ceil((count + 1) * (1 - rate) - 1e-9)  # as it was before there were groups
        expected = np.sort(scores)[min(rank, count) - 1]
        assert conformal_threshold(scores, rate, own) == conformal_threshold(scores, rate) == expected
        score = float(generator.choice(scores))
        expected = (1 + np.count_nonzero(scores >= score)) / (count + 1)
        assert p_value(score, scores, own) == p_value(score, scores) == expected


@pytest.mark.parametrize("rate", [0.1, 0.21, 0.3])
def test_verdict_and_p_value_of_groups_agree(rate):
    generator = np.random.default_rng(2)
    scores, groups = generator.integers(0, 30, 60) / 30, generator.integers(0, 14, 60).tolist()
    threshold = conformal_threshold(scores, rate, groups)
    for score in np.arange(-1, 32) / 30:
        assert (score > threshold) == (p_value(score, scores, groups) <= rate)


@pytest.mark.parametrize(("groups", "rate"), [(12, 0.1), (30, 0.1), (6, 0.05)])
def test_the_guarantee_holds_for_groups_where_counting_pictures_fails(groups, rate):
    """Each group shifts the scores of its 1 to 12 pictures; the new picture comes from a new group."""
    generator, draws = np.random.default_rng(0), 4000
    pictures_rate = 1 / (5 * groups + 1)  # what so many pictures would guarantee at least
    false = np.zeros((draws, 2), bool)
    for draw in range(draws):
        sizes = generator.integers(1, 13, groups)
        numbers = np.repeat(np.arange(groups), sizes)
        scores = generator.normal(0, 1, groups)[numbers] + generator.normal(0, 0.2, len(numbers))
        new = generator.normal(0, 1) + generator.normal(0, 0.2)
        false[draw] = (
            new > conformal_threshold(scores, rate, numbers.tolist()),
            new > conformal_threshold(scores, pictures_rate),
        )
    calibration = Calibration((0.0,) * groups, (0.0,) * groups, rate, groups=tuple(range(groups)))
    by_group, by_picture = false.mean(0)
    error = math.sqrt(calibration.guaranteed_rate / draws)  # more than the deviation of a share of draws
    assert by_group <= calibration.guaranteed_rate + 3 * error
    assert by_picture > 1.5 * pictures_rate


def test_there_is_one_group_for_each_score():
    with pytest.raises(ValueError, match="there must be one group for each of 9 scores, got 3"):
        conformal_threshold(NINE, 0.1, [0, 0, 1])


def test_a_calibration_counts_groups():
    calibration = Calibration(
        tuple(GROUPED), tuple(score / 2 for score in GROUPED), 0.6, groups=(0, 1, 2, 0, 1, 0)
    )
    assert (calibration.threshold, calibration.pixel_threshold) == (0.3 + TOLERANCE, 0.15 + TOLERANCE)
    assert (calibration.count, calibration.guaranteed_rate, calibration.promised_rate) == (3, 0.6, 0.6)
    assert calibration.at_rate(0.1).guaranteed_rate == 1 / 4
    trained_on = dataclasses.replace(calibration, trained_on=True)
    assert trained_on.guaranteed_rate == 1 and trained_on.promised_rate is None
    pixels = np.zeros((2, 2, 3), np.uint8)
    verdict = calibration.judge(Scored(pixels, (2, 2), np.zeros((2, 2), np.float32), 0.6, 0.6), "part.png")
    assert verdict.p_value == p_value(0.6, GROUPED, IN_GROUPS)


def test_groups_are_stored():
    calibration = Calibration((0.1, 0.2, 0.3), (0.0, 0.1, 0.2), 0.2, groups=(0, 1, 0))
    stored = json.loads(json.dumps(calibration.stored()))
    assert stored["groups"] == [0, 1, 0] and stored["threshold"] == 0.3 + TOLERANCE
    assert Calibration.from_stored(stored) == calibration
    del stored["groups"]  # as in the files of before
    assert Calibration.from_stored(stored) == dataclasses.replace(calibration, groups=None)


def test_a_calibration_makes_both_thresholds():
    calibration = Calibration(tuple(NINE), tuple(score / 2 for score in NINE), 0.2)
    assert (calibration.threshold, calibration.pixel_threshold) == (0.8 + TOLERANCE, 0.4 + TOLERANCE)


def test_what_is_stored_makes_the_same_calibration_again():
    calibration = Calibration(tuple(NINE), tuple(score / 3 for score in NINE), 0.2, trained_on=True)
    stored = calibration.stored()
    assert (stored["threshold"], stored["pixel_threshold"]) == (0.8 + TOLERANCE, 0.8 / 3 + TOLERANCE)
    assert Calibration.from_stored(json.loads(json.dumps(stored))) == calibration
    first = {name: stored[name] for name in ("scores", "pixel_scores", "false_positive_rate")}
    first["scores"] = torch.tensor(NINE, dtype=torch.float64)
    assert Calibration.from_stored(first) == dataclasses.replace(calibration, trained_on=False)


def test_verdict_on_a_picture():
    calibration = Calibration(tuple(NINE), tuple(score / 2 for score in NINE), 0.2)
    anomaly_map = np.array([[0, 1], [0, 1]], np.float32)
    pixels = np.zeros((2, 4, 3), np.uint8)
    above = calibration.judge(Scored(pixels, pixels.shape[:2], anomaly_map, 0.85, 0.6), "part.png")
    assert above.image is pixels and above.score == 0.85
    assert above.is_anomalous and above.p_value == 2 / 10
    assert (above.threshold, above.pixel_threshold) == (0.8 + TOLERANCE, 0.4 + TOLERANCE)
    assert above.source == "part.png"
    # At the picture's own size: columns lie at -1/4, 1/4, 3/4 and 5/4 between the map's two.
    np.testing.assert_allclose(above.anomaly_map, [[0.0, 0.25, 0.75, 1.0]] * 2, atol=1e-6)
    assert above.mask.tolist() == [[False, False, True, True]] * 2
    at_threshold = calibration.judge(Scored(pixels, pixels.shape[:2], anomaly_map, 0.8, 0.6), "part.png")
    assert not at_threshold.is_anomalous and at_threshold.p_value == 3 / 10


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (9, "9 calibration pictures guarantee a false-positive rate of 0.1, not of 0.01: that takes 99"),
        (1, "1 calibration picture guarantees a false-positive rate of 0.5, not of 0.01: that takes 99"),
    ],
)
def test_too_few_pictures_are_reported(caplog, pictures, words):
    Calibration((0.5,) * pictures, (0.5,) * pictures, 0.01).warn_if_short()
    assert caplog.messages == [words]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            (0, 0, 1, 1),
            "2 calibration groups guarantee a false-positive rate of 0.33, not of 0.1: that takes 9",
        ),
        (
            (0, 0, 0, 0),
            "1 calibration group guarantees a false-positive rate of 0.5, not of 0.1: that takes 9",
        ),
    ],
)
def test_too_few_groups_are_reported(caplog, groups, words):
    Calibration((0.5,) * 4, (0.5,) * 4, 0.1, groups=groups).warn_if_short()
    assert caplog.messages == [words]


@pytest.mark.parametrize(("pictures", "rate"), [(9, 0.1), (99, 0.01), (19, 0.05), (1, 0.5)])
def test_just_enough_pictures_are_not_reported(caplog, pictures, rate):
    calibration = Calibration((0.5,) * pictures, (0.5,) * pictures, rate)
    calibration.warn_if_short()
    assert not caplog.records
    assert calibration.guaranteed_rate == rate


def result_of(k):
    """A scored picture as a stream yields it."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    scored = Scored(pixels, pixels.shape[:2], np.zeros((64, 64), np.float32), (k + 1) / 10, (k + 1) / 20)
    return Source(f"picture {k}", pixels), scored


def test_no_anomaly_map_is_kept():
    alive, maps = [], []

    def results():
        for k in range(5):
            gc.collect()
            alive.append(sum(found() is not None for found in maps))
            result = result_of(k)
            maps.append(weakref.ref(result[1].anomaly_map))
            yield result
            del result

    found = calibrate(results(), 0.5, progress=False)
    assert len(alive) == 5 and max(alive) <= 1  # the last one, while the next is made
    assert found.scores == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert found.pixel_scores == (0.05, 0.1, 0.15, 0.2, 0.25)
    assert (found.false_positive_rate, found.trained_on) == (0.5, False)


def broken(k):
    return Source(f"picture {k}", b""), ValueError(f"picture {k} is broken")


def test_unreadable_pictures_are_left_out_of_a_calibration_by_name(caplog):
    found = calibrate([result_of(0), broken(1), result_of(2)], 0.5, progress=False)
    assert found.scores == (0.1, 0.3) and found.pixel_scores == (0.05, 0.15)
    assert caplog.messages == ["left out: picture 1 is broken", "left out 1 of 3 pictures"]


def test_groups_are_numbered_and_unreadable_pictures_leave_theirs():
    results = [result_of(0), broken(1), result_of(2), result_of(3), result_of(4)]
    found = calibrate(results, 0.5, groups=["b", "c", "a", "b", "a"], progress=False)
    assert found.scores == (0.1, 0.3, 0.4, 0.5) and found.groups == (0, 1, 0, 1)
    assert calibrate(results, 0.5, groups="vwxyz", progress=False).groups is None  # each its own
    assert calibrate(results, 0.5, progress=False).groups is None


def test_a_strict_calibration_ends_at_the_first_unreadable_picture():
    results = iter([result_of(0), broken(1), result_of(2)])
    with pytest.raises(ValueError, match=r"^picture 1 is broken$"):
        calibrate(results, 0.5, strict=True, progress=False)
    assert len(list(results)) == 1


def test_a_calibration_takes_at_least_one_readable_picture():
    with pytest.raises(ValueError, match="none of 2 pictures can be read; the first: picture 0 is broken"):
        calibrate([broken(0), broken(1)], 0.5, progress=False)


def test_a_calibration_says_whether_its_pictures_are_too_few(caplog):
    assert calibrate([result_of(0)], 0.5, trained_on=True, progress=False).trained_on
    calibrate([result_of(k) for k in range(3)], 0.2, progress=False)
    calibrate([result_of(k) for k in range(4)], 0.2, progress=False)
    assert caplog.messages == [
        "the only picture was trained on and calibrated with: no rate is guaranteed",
        "3 calibration pictures guarantee a false-positive rate of 0.25, not of 0.2: that takes 4",
    ]


def test_another_rate_keeps_the_scores(caplog):
    before = Calibration(tuple(NINE), tuple(score / 2 for score in NINE), 0.2)
    after = before.at_rate(0.5)
    assert (after.scores, after.pixel_scores) == (before.scores, before.pixel_scores)
    assert (after.threshold, before.threshold) == (0.5 + TOLERANCE, 0.8 + TOLERANCE) and not caplog.records
    before.at_rate(0.05)
    assert "9 calibration pictures guarantee a false-positive rate of 0.1, not of 0.05" in caplog.text


@pytest.mark.parametrize(
    ("pictures", "held_out"), [(2, 1), (3, 1), (10, 5), (19, 9), (20, 10), (50, 10), (60, 12), (1000, 200)]
)
def test_split(pictures, held_out):
    training, calibration = split(pictures, seed=0)
    assert len(calibration) == held_out
    assert sorted(training + calibration) == list(range(pictures))
    assert training == sorted(training) and calibration == sorted(calibration)


def test_a_single_picture_serves_for_both():
    assert split(1, seed=0) == ([0], [0])


def test_a_picture_that_was_trained_on_guarantees_nothing(caplog):
    calibration = Calibration((0.5,), (0.5,), 0.5, trained_on=True)
    assert calibration.guaranteed_rate == 1
    calibration.warn_if_short()
    dataclasses.replace(calibration, groups=(0,)).warn_if_short()
    assert caplog.messages == [
        f"the only {kind} was trained on and calibrated with: no rate is guaranteed"
        for kind in ("picture", "group")
    ]


@pytest.mark.parametrize(("share", "held_out"), [(0, 10), (0.05, 10), (0.3, 60), (0.5, 100)])
def test_split_by_another_share(share, held_out):
    assert [len(part) for part in split(200, 0, share)] == [200 - held_out, held_out]


def test_split_follows_the_seed():
    assert split(100, seed=4) == split(100, seed=4)
    assert split(100, seed=4) != split(100, seed=5)


def test_split_without_groups_is_as_recorded_before_there_were_groups():
    recorded = [1, 6, 7, 9, 10, 11, 13, 16, 18, 21]
    for units in (None, range(24), "abcdefghijklmnopqrstuvwx"):
        assert split(24, seed=3, units=units) == ([k for k in range(24) if k not in recorded], recorded)


@pytest.mark.parametrize(
    ("sizes", "held_out"),
    [
        ([4] * 15, 7),
        ([4] * 40, 10),
        ([4] * 100, 20),
        ([3, 3], 1),
        ([5, 5, 5], 1),
        ([1, 30], 1),
        ([30, 1, 1], 1),
        ([20, 2, 2, 2, 2], 2),
        ([2, *[1] * 18], 9),
    ],
)
def test_units_are_held_out_whole(sizes, held_out):
    units = np.random.default_rng(5).permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()
    for seed in range(20):
        training, calibration = split(len(units), seed, units=units)
        assert sorted(training + calibration) == list(range(len(units)))
        assert training == sorted(training) and calibration == sorted(calibration)
        held = {units[k] for k in calibration}
        assert len(held) == held_out and not held & {units[k] for k in training}
        assert len(training) >= len(calibration)


def test_a_single_unit_serves_for_both():
    assert split(3, seed=0, units=["a"] * 3) == ([0, 1, 2], [0, 1, 2])


def test_every_unit_may_be_held_out():
    units = [k // 4 for k in range(60)]
    held_out = {units[picture] for seed in range(30) for picture in split(60, seed, units=units)[1]}
    assert held_out == set(range(15))


def test_every_picture_may_be_held_out():
    held_out = {index for seed in range(60) for index in split(50, seed)[1]}
    assert held_out == set(range(50))


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan")])
def test_words_about_wrong_rates(rate):
    words = rf"false_positive_rate must lie between 0 and 1, exclusive, got {rate}"
    with pytest.raises(ValueError, match=words):
        conformal_threshold(NINE, rate)


def test_words_about_no_scores():
    with pytest.raises(ValueError, match="at least one normal picture, got none"):
        conformal_threshold([], 0.1)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_words_about_scores_that_are_not_finite(score):
    with pytest.raises(ValueError, match="calibration scores must be finite, got NaN or infinity"):
        conformal_threshold([0.1, score], 0.1)
