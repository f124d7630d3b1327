"""The time a training is said to take beforehand."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from destseg.model.construction import new_network
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore
from destseg.settings import Settings
from destseg.training.checkpoint import plan_of
from destseg.training.estimate import announce, training_seconds
from destseg.training.synthesis import Synthesis
from destseg.training.textures import from_normals
from destseg.training.trainer import Trainer


@pytest.fixture
def trainer():
    """Makes a trainer of the light network for so many steps of both stages."""

    def make(steps):
        pictures = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
        normals = PictureStore(as_pictures(pictures), Framing((64, 64)), progress=False)
        settings = Settings()
        network = new_network(settings)
        synthesis = Synthesis(normals, from_normals(normals), 2)
        return Trainer(network, synthesis, plan_of(network, synthesis, steps, "float32", settings.parts), 0)

    return make


def test_it_is_what_the_steps_take_without_warming_up(trainer, monkeypatch):
    clock, warm, real_step = [0.0], set(), Trainer.step

    def step(self, number, batch):
        clock[0] += (2 if number < 20 else 3) if self in warm else 1000
        warm.add(self)
        return real_step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    some = trainer((20, 30))
    assert training_seconds(some) == 20 * 2 + 30 * 3
    some.losses = [torch.zeros(())] * 15
    assert training_seconds(some) == 5 * 2 + 30 * 3
    some.losses = [torch.zeros(())] * 40
    assert training_seconds(some) == 10 * 3


@pytest.mark.parametrize(
    ("terminal", "steps", "said"), [(True, 30, True), (True, 10, False), (False, 30, False)]
)
def test_people_at_terminals_are_told(trainer, monkeypatch, capsys, terminal, steps, said):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    announce(trainer((steps, steps)), None, 10.0, wanted=True)
    assert capsys.readouterr().err == ("training will take about 1 min\n" if said else "")


def test_people_are_told_where_the_checkpoint_lies_and_what_is_done(trainer, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    some = trainer((40, 40))
    some.losses = [torch.zeros(())] * 10
    announce(some, Path("part.checkpoint"), 2.5, wanted=True)
    assert capsys.readouterr().err == (
        "going on after step 10 of 80; training will take about 1 min; "
        "checkpoint part.checkpoint, every 2.5 min and on Ctrl-C\n"
    )


def test_large_batches_are_tried_in_part(trainer, monkeypatch):
    some, tried, real_step = trainer((30, 30)), [], Trainer.step
    some.synthesis.batch_size = 32

    def step(self, number, batch):
        tried.append(len(batch.corrupted))
        return real_step(self, number, batch)

    clock = iter(range(0, 100, 2))  # a trial takes two seconds
    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert training_seconds(some) == 60 * 2 * 32 / 8
    assert set(tried) == {8}


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
