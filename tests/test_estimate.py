"""The time a training is said to take beforehand."""

import time

import numpy as np
import pytest
import torch

from destseg.checkpoints import plan_of
from destseg.estimate import announce, training_seconds
from destseg.folders import as_pictures
from destseg.framing import Framing
from destseg.presets import new_network, parts_of
from destseg.store import PictureStore
from destseg.synthesis import Synthesis
from destseg.textures import from_normals
from destseg.training import Trainer


@pytest.fixture
def trainer(teacher_weights):
    """Makes a trainer of the light network for so many steps of both stages."""

    def make(steps):
        pictures = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
        normals = PictureStore(as_pictures(pictures), Framing((64, 64)))
        parts = parts_of("fast")
        network = new_network(parts, "resnet18", teacher_weights, 0)
        synthesis = Synthesis(normals, from_normals(normals), 2)
        return Trainer(network, synthesis, plan_of(network, synthesis, steps, "float32", parts), 0)

    return make


def test_it_is_about_what_the_steps_take(trainer):
    some = trainer((20, 20))
    expected = training_seconds(some)
    start = time.perf_counter()
    some.run(workers=0, progress=False)
    taken = time.perf_counter() - start
    assert expected / 8 < taken < 8 * expected  # a busy machine is no reason to fail


@pytest.mark.parametrize(
    ("terminal", "steps", "said"), [(True, 30, True), (True, 10, False), (False, 30, False)]
)
def test_people_at_terminals_are_told(trainer, monkeypatch, capsys, terminal, steps, said):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    announce(trainer((steps, steps)), wanted=True)
    assert ("training will take about 1 min" in capsys.readouterr().err) == said


def test_only_what_is_left_counts(trainer):
    none, whole = trainer((0, 0)), trainer((20, 20))
    assert training_seconds(none) == 0
    whole.losses = [torch.zeros(())] * 39
    assert training_seconds(whole) < training_seconds(trainer((400, 400)))


def test_training_stays_what_it_would_have_been(trainer):
    asked, unasked = trainer((4, 4)), trainer((4, 4))
    training_seconds(asked)
    assert asked.run(0, False) == unasked.run(0, False)
    for ours, theirs in zip(asked.network.parameters(), unasked.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
