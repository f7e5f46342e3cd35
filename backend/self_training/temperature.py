"""How sure a finished model may be: one temperature from labels that it did not learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax

_SMALLEST, _LARGEST = 0.25, 8.0
_FEWEST = 20


def fit_temperature(
    logits: NDArray[np.floating], targets: NDArray[np.floating], *, is_exclusive: bool = True
) -> float:
    """Return the temperature, in [0.25, 8], at which the logits fit soft targets best.

    `logits` and `targets` are (n, K). The loss is the cross-entropy (Guo et al. 2017, section 4.2),
    here against posteriors instead of labels. 1.0 for fewer than 20 texts. Cost: O(n K).
    """
    if len(logits) < _FEWEST:
        return 1.0
    scores = np.asarray(logits, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        if is_exclusive:
            return -float((targets * log_softmax(scaled, axis=1)).sum(axis=1).mean())
        chances = np.clip(expit(scaled), 1e-9, 1 - 1e-9)
        return -float((targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean())

    bounds = (np.log(_SMALLEST), np.log(_LARGEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
