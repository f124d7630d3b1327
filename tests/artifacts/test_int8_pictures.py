"""What INT8 learns its ranges from, and how its loss is told."""

import numpy as np
import pytest

from destseg.artifacts.int8_pictures import (
    cost_table,
    draw_batches,
    float32_weights,
    range_inputs,
    synthetic_metrics,
)
from destseg.metrics import Metrics
from destseg.model.construction import random_network
from destseg.model.graph import Inference, trace
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Settings


@pytest.fixture(scope="module")
def store(few_parts):
    return PictureStore(as_pictures(few_parts), Framing((64, 64)), progress=False)


def test_samples_are_pictures_and_the_same_with_anomalies(store):
    batches = list(draw_batches(store, seed=0))
    assert len(batches) == 3  # of 8: each of the 24 pictures once
    for clean, changed, masks in batches:
        assert clean.shape == changed.shape == (8, 64, 64, 3) and clean.dtype == changed.dtype == np.uint8
        np.testing.assert_array_equal(changed[~masks], clean[~masks])  # to the grey level
        assert masks.any() and (changed[masks] != clean[masks]).any()
    assert range_inputs(store, seed=0).shape == (48, 64, 64, 3)
    np.testing.assert_array_equal(range_inputs(store, seed=0)[:8], batches[0][0])
    assert not np.array_equal(range_inputs(store, seed=1), range_inputs(store, seed=0))


def test_losses_are_in_points_and_large_ones_are_marked():
    before = Metrics(1.0, 1.0, 0.80, 1.0, 0.70, 0.0, 3)
    after = Metrics(1.0, 1.0, 0.796, 1.0, 0.60, 0.0, 3)
    lines = cost_table({"here": (before, after)}).splitlines()
    assert lines[1].split() == ["here", "AP", "80.00", "79.60", "+0.40"]
    assert lines[2].split() == ["here", "IAP", "70.00", "60.00", "+10.00", "more", "than", "0.5"]


class Bright:
    """Stands in for a scorer: what is brighter than all normal pictures' grey is anomalous. Two at a time."""

    size, batch = (64, 64), 2

    def __init__(self):
        self.counts = []

    def maps(self, pixels):
        self.counts.append(len(pixels))
        return pixels.max(axis=3).astype(np.float32) / 255


def test_synthetic_metrics_are_of_normal_pictures_and_of_others_than_ranges_are_learnt_from(store):
    scorer = Bright()
    found = synthetic_metrics(scorer, store, seed=0)
    assert sum(scorer.counts) == 48 and set(scorer.counts) == {2}  # each of the 24 pictures, and corrupted
    assert found == synthetic_metrics(Bright(), store, seed=0) != synthetic_metrics(Bright(), store, seed=1)
    assert found.instances > 0 and 0 < found.pixel_ap < 1


TEACHERS_FIRST_STAGE = {
    f"teacher_net.encoder.layer1.{block}.conv{k}.weight" for block in (0, 1) for k in (1, 2)
}


def named_kept(network, bounded):
    """The names of the convolutions that stay in float32, and those of all."""
    program = trace(Inference(network, (64, 96), 0.5))
    named = {name.removeprefix("network."): value for name, value in program.state_dict.items()}
    names = {value.detach().numpy().tobytes(): name for name, value in named.items() if value.ndim == 4}
    return {names[one] for one in float32_weights(program, bounded)}, set(names.values())


def test_the_convolutions_of_the_light_network_that_stay_in_float32(light):
    kept, names = named_kept(light.network_, bounded=True)
    assert kept == {
        "teacher_net.encoder.conv1.weight",
        "student_net.encoder.conv1.weight",
        *TEACHERS_FIRST_STAGE,
        *(f"student_net.projections.{level}.conv.weight" for level in range(3)),
        *(f"segmentation_net.reductions.{level}.weight" for level in range(3)),
    }
    student = {name for name in names if name.startswith("student_net.")}
    assert len(student) > 30 and named_kept(light.network_, bounded=False)[0] == kept | student


def test_a_student_without_an_encoder_stays_in_float32_too():
    kept, names = named_kept(random_network(Settings(student_encoder=False)).eval(), bounded=False)
    student = {name for name in names if name.startswith("student_net.")}
    assert "student_net.embedding.joined.conv.weight" in student and student < kept


def test_the_convolutions_of_the_published_network_that_stay_in_float32():
    kept, names = named_kept(random_network(Settings("paper")).eval(), bounded=False)
    student = {name for name in names if name.startswith("student_net.")}
    others = {"teacher_net.encoder.conv1.weight", "segmentation_net.res.0.downsample.0.weight"}
    assert kept == student | TEACHERS_FIRST_STAGE | others
