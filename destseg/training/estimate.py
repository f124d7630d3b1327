"""Estimates how long training will take, by timing a few steps."""

import copy
import time
from pathlib import Path
from typing import Any

from destseg.progress import is_heard, say
from destseg.training.synthesis import Batch
from destseg.training.trainer import Trainer

FEWEST_STEPS = 50  # with fewer steps left, no estimate is given
TRIAL_STEPS = 2  # of each stage; the first warms up and is not timed
TRIAL_BATCH = 8  # pictures of a trial step on a CPU: the estimate is to be there within ten seconds


def announce(trainer: Trainer, checkpoint: Path | None, checkpoint_minutes: float, wanted: bool) -> None:
    """Say how long training will take and where its checkpoint lies, unless only few steps are left.

    The progress bar alone would mislead: at first it knows only the student stage's pace. A step of the
    segmentation stage takes 0.6 times as long with the light network, twice as long with the published one.

    Args:
        trainer: at its first step, or where it is to go on.
        checkpoint, checkpoint_minutes: as for `Trainer.run`.
        wanted: as for `destseg.progress.say`.
    """
    done = len(trainer.losses)
    if trainer.total_steps - done < FEWEST_STEPS or not is_heard(wanted):
        return
    minutes = max(1, round(training_seconds(trainer) / 60))
    start = f"going on after step {done} of {trainer.total_steps}; " if done else ""
    kept = f"; checkpoint {checkpoint}, every {checkpoint_minutes:g} min and on Ctrl-C" if checkpoint else ""
    say(f"{start}training will take about {minutes} min{kept}", wanted)


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
    batch, share = trainer.synthesis.batch(first), 1.0
    if (
        trainer.device.type == "cpu" and len(batch.corrupted) > TRIAL_BATCH
    ):  # a step takes as long as it has inputs
        share = TRIAL_BATCH / len(batch.corrupted)
        few: Any = [None if part is None else part[:TRIAL_BATCH] for part in batch]
        batch = Batch(*few)
    start = 0.0
    for step in range(first, first + TRIAL_STEPS):
        if step == first + 1:
            start = time.perf_counter()
        trial.step(step, batch).item()  # waits for the device
    return (time.perf_counter() - start) / (TRIAL_STEPS - 1) / share
