"""The score at which two outcomes are equally likely: a logistic curve through the scores of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

LEAST = 8  # results of each kind that a curve is drawn through


@dataclass(frozen=True)
class Even:
    """The curve P(right | score) = 1 / (1 + exp(-slope (score - even)))."""

    even: float
    slope: float


def even_score(scores: np.ndarray, right: np.ndarray) -> Even | None:
    """The score of even chances, by a logistic regression of the outcome on the score.

    With the targets of Platt (Probabilistic outputs for support vector machines, 1999, section 2.2), (N+ + 1)/(N+ + 2)
    and 1/(N- + 2) instead of 1 and 0, so that scores that tell both apart without a mistake have a finite slope.

    Args:
        scores: (Q,). right: (Q,) bool.

    Returns:
        None with fewer than LEAST right or wrong ones, or where higher scores are not more often right.
    """
    count = int(right.sum())
    if min(count, len(right) - count) < LEAST:
        return None
    mean, spread = float(scores.mean()), float(scores.std())
    if not spread:
        return None
    values = (scores.astype(np.float64) - mean) / spread
    targets = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = weights[0] * values + weights[1]
        error = expit(logits) - targets
        return float((np.logaddexp(0, logits) - targets * logits).sum()), np.array([error @ values, error.sum()])

    slope, offset = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-6 * len(right)}).x
    if slope <= 0:
        return None
    return Even(mean - spread * float(offset / slope), float(slope) / spread)
