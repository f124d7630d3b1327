"""How long a training will take, found out by doing a little of it."""

import copy
import sys
import time

from tqdm import tqdm

from destseg.training.trainer import Trainer

FEWEST_STEPS = 50  # for which it is worth saying
TRIAL_STEPS = 3  # of each stage; the first one warms up and does not count


def announce(trainer: Trainer, wanted: bool) -> None:
    """Tell a person at a terminal how long training will take, if that is wanted and it is not short.

    The bar alone would not do: at first it knows the student stage's rate only, and the segmentation stage's
    steps take 0.6 times as long with the light network, and twice as long with the published one.
    """
    left = trainer.total_steps - len(trainer.losses)
    if wanted and sys.stderr.isatty() and left >= FEWEST_STEPS:
        minutes = training_seconds(trainer) / 60
        tqdm.write(f"training will take about {max(1, round(minutes))} min", file=sys.stderr)


def training_seconds(trainer: Trainer) -> float:
    """Return about how many seconds the steps will take that a trainer has still to do.

    Each stage that is left is tried on a copy of the network, which costs a few steps' time; the trainer and
    what it will do stay as they are.
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
