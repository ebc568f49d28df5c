"""Predictions without a model: random ones, and ones with given decisions."""

from collections.abc import Sequence

import numpy as np

from fer_lab.runs import Predictions


def random_predictions(
    n: int = 200, c: int = 3, seed: int = 0, skill: float = 1.0, fingerprint: str = "f"
) -> Predictions:
    """Softmax of noise with `skill` added at the label; the labels are the same for every seed."""
    labels = np.random.default_rng(99).integers(c, size=n)
    logits = np.random.default_rng(seed).normal(size=(n, c))
    logits[np.arange(n), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(probabilities, labels, range(c), "x", fingerprint)


def decided(
    labels: Sequence[int], predicted: Sequence[int], c: int = 3, confidence: float = 0.8
) -> Predictions:
    """Given decisions, all of the same confidence; the classes are c0, c1, …"""
    probabilities = np.full((len(labels), c), (1 - confidence) / (c - 1))
    probabilities[np.arange(len(labels)), predicted] = confidence
    return Predictions(probabilities, labels, [f"c{i}" for i in range(c)], "x", "f")
