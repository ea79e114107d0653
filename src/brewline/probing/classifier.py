"""The probe: multinomial logistic regression on standardised vectors.

Its penalty is chosen on speakers whom it was not fitted on; then it is fitted on all speakers of
training. Shapes: N rows, D numbers each, L layers, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from brewline.core.errors import BrewlineError
from brewline.probing.folds import Split
from brewline.probing.scores import balanced_accuracy, confusions

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

# scikit-learn's C, the inverse of the penalty, from strong to weak.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-3
# A deviation that small, as a share of the mean, is what sums in fp32 differ by, and no difference.
_ROUNDING = 1e-5
# How the weights of layers are learned.
_STEPS = 100
_LEARNING_RATE = 0.05
_STRENGTH = 0.01


@dataclass(frozen=True)
class Answer:
    """What a probe says of the rows of a test: classes (N,), and how it came to that.

    `layer_weights` (L,) sum to 1; None where there was one vector for each recording.
    """

    predicted: Labels
    strength: float
    layer_weights: Floats | None


def probe(vectors: Floats, labels: Labels, split: Split) -> Answer:
    """Fits a probe on a split, and asks it about the test.

    Args:
        vectors: (N, D), or (N, L, D), of which a weighted sum over the layers is learned first.
        labels: From 0.
        split: Rows of both.

    Raises:
        BrewlineError: there is one class, or none, to learn from.
    """
    if len(np.unique(labels[split.fit])) < 2 or not len(split.validation):
        raise BrewlineError(
            "a probe has to be fitted on two emotions at least, and its penalty chosen on other "
            "speakers; the corpus has too few speakers or emotions for this protocol"
        )
    weights = None
    if vectors.ndim == 3:
        scaled = standardise(vectors, split.fit)
        weights = learn_layer_weights(scaled[split.fit], labels[split.fit])
        vectors = weights @ scaled
    strength = _choose_strength(vectors, labels, split)
    predicted = _predict(vectors, labels, split.train, split.test, [strength])[0]
    return Answer(predicted, strength, weights)


def probe_shuffled(
    vectors: Floats, labels: Labels, split: Split, strength: float, rng: np.random.Generator
) -> Labels:
    """What a probe (of vectors (N, D)) says of the test that learned from labels in disorder."""
    shuffled = labels.copy()
    shuffled[split.train] = rng.permutation(labels[split.train])
    return _predict(vectors, shuffled, split.train, split.test, [strength])[0]


def standardise(vectors: Floats, rows: NDArray[np.int64]) -> Floats:
    """Scales each number to mean 0 and deviation 1 over `rows`; what never changes becomes 0."""
    mean = vectors[rows].mean(axis=0, dtype=np.float64)
    deviation = vectors[rows].std(axis=0, dtype=np.float64)
    is_constant = deviation <= _ROUNDING * np.abs(mean)
    scaled = (vectors - mean) / np.where(is_constant, 1.0, deviation)
    return np.where(is_constant, 0.0, scaled).astype(np.float32)


def _choose_strength(vectors: Floats, labels: Labels, split: Split) -> float:
    """The best one by balanced accuracy on the validation; of equal ones the strongest penalty."""
    num_classes = int(labels.max()) + 1
    answers = _predict(vectors, labels, split.fit, split.validation, STRENGTHS)
    nobody = np.zeros(len(split.validation), np.int64)
    found = [
        confusions(labels[split.validation], predicted, nobody, 1, num_classes)
        for predicted in answers
    ]
    # `argmax` takes the first of equal ones.
    return STRENGTHS[int(balanced_accuracy(np.concatenate(found)).argmax())]


def _predict(
    vectors: Floats,
    labels: Labels,
    fitted: NDArray[np.int64],
    asked: NDArray[np.int64],
    strengths: Sequence[float],
) -> list[Labels]:
    """What classifiers of several strengths say, that are fitted on the same rows."""
    scaled = standardise(vectors, fitted)
    answers = []
    # On matrices of this size more threads only wait for one another; and the sums are the same
    # on any number of cores.
    with threadpool_limits(1):
        for strength in strengths:
            model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)
            model.fit(scaled[fitted], labels[fitted])
            answers.append(np.asarray(model.predict(scaled[asked]), np.int64))
    return answers


def learn_layer_weights(layers_NLD: Floats, labels: Labels) -> Floats:
    """The softmax weights (L,) by which a sum of layers is classified best.

    Weights and a linear classifier are learned together, from equal weights and a classifier that
    says nothing, so that nothing is drawn (the weighted sum of SUPERB, Yang et al., 2021).

    Args:
        layers_NLD: Standardised.
        labels: From 0.
    """
    import torch
    from torch.nn.functional import cross_entropy

    num_rows, num_layers, width = layers_NLD.shape
    layers, truth = torch.from_numpy(layers_NLD), torch.from_numpy(labels)
    layer_logits = torch.zeros(num_layers, requires_grad=True)
    matrix = torch.zeros(width, int(labels.max()) + 1, requires_grad=True)
    bias = torch.zeros(matrix.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([layer_logits, matrix, bias], _LEARNING_RATE)
    with threadpool_limits(1):
        for _ in range(_STEPS):
            optimiser.zero_grad()
            summed = layer_logits.softmax(0) @ layers
            # The penalty of scikit-learn's C.
            penalty = matrix.square().sum() / (2 * _STRENGTH * num_rows)
            loss = cross_entropy(summed @ matrix + bias, truth) + penalty
            loss.backward()
            optimiser.step()
    weights: Floats = layer_logits.softmax(0).detach().numpy()
    return weights
