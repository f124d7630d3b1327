"""How far a share that was counted may lie from the probability behind it."""

import math

import numpy as np


def share_interval(count: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a probability after `count` successes in `trials` independent trials.

    Source: Clopper & Pearson, "The use of confidence or fiducial limits" (1934).

    Example:
        >>> [round(bound, 3) for bound in share_interval(3, 20)]
        [0.032, 0.379]
    """
    tail = (1 - level) / 2
    numbers = np.arange(trials + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(numbers[1:]))])
    ways = factorials[-1] - factorials - factorials[::-1]  # logarithms of the binomial coefficients

    def at_least(successes: int, probability: float) -> float:
        logarithms = ways + numbers * math.log(probability) + (trials - numbers) * math.log1p(-probability)
        return float(np.exp(logarithms[successes:]).sum())

    def bound(successes: int, wanted: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):  # the chance of at least so many successes rises with the probability
            middle = (low + high) / 2
            low, high = (middle, high) if at_least(successes, middle) < wanted else (low, middle)
        return (low + high) / 2

    return bound(count, tail) if count else 0.0, bound(count + 1, 1 - tail) if count < trials else 1.0
