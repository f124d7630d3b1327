"""Estimates how long training will take, by timing a few steps."""

import copy
import sys
import time

from tqdm import tqdm

from destseg.training.trainer import Trainer

FEWEST_STEPS = 50  # with fewer steps left, no estimate is given
TRIAL_STEPS = 3  # of each stage; the first warms up and is not timed


def announce(trainer: Trainer, wanted: bool) -> None:
    """Tell a person at a terminal how long training will take, if that is wanted and training is not short.

    The progress bar alone would mislead: at first it knows only the student stage's pace. A step of the
    segmentation stage takes 0.6 times as long with the light network, twice as long with the published one.
    """
    left = trainer.total_steps - len(trainer.losses)
    if wanted and sys.stderr.isatty() and left >= FEWEST_STEPS:
        minutes = training_seconds(trainer) / 60
        tqdm.write(f"training will take about {max(1, round(minutes))} min", file=sys.stderr)


def training_seconds(trainer: Trainer) -> float:
    """Estimate the seconds that the remaining steps of a trainer will take.

    Each remaining stage is timed for a few steps on a copy of the network; the trainer stays as it is.
    """
    seconds, done = 0.0, len(trainer.losses)
    student, segmentation = trainer.plan.steps[0], trainer.total_steps - trainer.plan.steps[0]
    for first, count in ((0, student), (student, segmentation)):
        left = min(count, first + count - done)
        if left > 0:
            seconds += left * _seconds_a_step(trainer, first)
    return seconds


def _seconds_a_step(trainer: Trainer, first: int) -> float:
    trial = Trainer(copy.deepcopy(trainer.network), trainer.synthesis, trainer.plan, cache_memory=0)
    batch = trainer.synthesis.batch(first)
    start = 0.0
    for step in range(first, first + TRIAL_STEPS):
        if step == first + 1:
            start = time.perf_counter()
        trial.step(step, batch).item()  # waits for the device
    return (time.perf_counter() - start) / (TRIAL_STEPS - 1)
