"""Predictions of a model on a set of faces, and metrics of predictions with 95 % intervals.

Every metric is a function of sums over faces (cells of the confusion matrix, calibration bins), so one
matrix product gives it for a thousand resamples at once. torchmetrics computes one sample at a time and
costs a second to import. Tests check that both agree, with two intended differences:
- mean class recall is over the classes that occur in the truth. torchmetrics and scikit-learn also count a
  class that only occurs among the predictions, as a recall of 0. Macro F1 does count such a class.
- calibration bins are closed on the right, as in the paper. torchmetrics closes them on the left, and
  probabilities of exactly 1 get a bin of their own.

Intervals come from the bootstrap over faces: BCa (Efron, JASA 1987), as in scipy.stats.bootstrap, which
cannot share resamples between metrics. Faces count as independent, which several pictures of one person
are not. Two metrics get another interval, both for measured reasons:
- calibration error is biased upwards, in a resample more than in the sample. Simulated with 300 faces and
  true errors of 0, 0.02 and 0.08, the percentile interval holds the truth in 0, 0 and 76 % of the cases, BCa
  in 0, 1 and 89 %, and the reflected interval 2·value − quantile, widened to its value, in 54, 82 and 91 %
  (with 3000 faces 64, 89 and 95 %). The last is used here. Near 0 it is still too narrow.
- with every face right (or wrong) all resamples agree, and the bootstrap interval has no width. Accuracy and
  recall then get the exact binomial interval of Clopper and Pearson; the other metrics keep no width.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fer_lab._device import best_device
from fer_lab._progress import progress
from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import FaceSet
from fer_lab.intervals import binomial_interval, bootstrap, reflected_interval
from fer_lab.models.inference import fuse, in_order
from fer_lab.models.method import Method
from fer_lab.runs.predictions import Predictions

BINS = 15
OVERALL = ("accuracy", "mean_class_recall", "macro_f1", "ece")


@torch.no_grad()
def predict(
    model: Method,
    faces: FaceSet,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    embeddings: bool = False,
    flip: bool = False,
) -> Predictions:
    """Class probabilities of every face, in the set's order, in float32.

    A model with contempt answers for a set without it: contempt is left out before the softmax, so that the
    other seven probabilities sum to 1, and a warning says so. Raises ValueError for no faces, for other
    classes than the model's, or outputs that are not finite.

    Args:
        model: runs in eval mode, in the form that `fuse` gives it. Its own modes stay as they are.
        faces: resized and put in the model's colour order (RGB or BGR).
        device: where to compute; None is the best device of this machine. The model stays where it is.
        embeddings: also keep `model.embed`, which runs the network a second time.
        flip: give the mean of the probabilities of a face and of its mirror image.
    """
    if (tuple(model.classes), tuple(faces.classes)) == (CANONICAL, CANONICAL[:-1]):
        warnings.warn(
            f"{faces.name} has no {CANONICAL[-1]}: it is left out of the answers of {model.name}, whose "
            f"probabilities are of the other {faces.num_classes} classes",
            stacklevel=3,  # past no_grad's wrapper
        )
    else:
        _check_classes(model, faces)
    device = torch.device(best_device() if device is None else device)
    loader = in_order(model, faces, device=device, batch_size=batch_size)
    network = fuse(model).to(device)
    outputs, embedded = [], []
    for batch in progress(loader, "predict"):
        views = [batch.images, batch.images.flip(-1)] if flip else [batch.images]
        answers = [network(view).float()[:, : faces.num_classes].softmax(1) for view in views]
        outputs.append(torch.stack(answers).mean(0).cpu())
        if embeddings:
            embedded.append(network.embed(batch.images).float().cpu())
    probabilities = torch.cat(outputs)
    if broken := int((~probabilities.isfinite()).any(1).sum()):
        raise ValueError(
            f"{model.name} gave numbers that are not finite for {broken} of {len(faces)} faces; "
            "its weights are broken, or its precision is too low"
        )
    return Predictions(
        probabilities=probabilities.numpy(),
        labels=faces.labels.numpy(),
        classes=tuple(faces.classes),
        name=faces.name,
        fingerprint=faces.fingerprint,
        rows=np.asarray(faces.rows),
        embeddings=torch.cat(embedded).numpy() if embeddings else None,
    )


def _check_classes(model: Method, faces: FaceSet) -> None:
    ours, theirs = tuple(model.classes), tuple(faces.classes)
    if ours == theirs:
        return
    if sorted(ours) == sorted(theirs):
        remedy = "sort the labels and classes of the faces into the model's order"
    elif (ours, theirs) == (CANONICAL[:-1], CANONICAL):
        remedy = "no face of contempt can be right: load the set with classes=7, which leaves them out"
    elif set(theirs) < set(ours):
        missing = ", ".join(name for name in ours if name not in theirs)
        remedy = f"add faces of {missing}, or train a model on these faces"
    else:
        remedy = "name the class folders after the model's classes, or train a model on these faces"
    raise ValueError(
        f"{model.name} has {len(ours)} classes ({', '.join(ours)}), but {faces.name} has {len(theirs)} "
        f"({', '.join(theirs)}); {remedy}"
    )


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """Counts int64 [C,C]: rows are the truth, columns the predictions."""
    c = len(predictions.classes)
    return np.bincount(predictions.labels * c + predictions.predicted, minlength=c * c).reshape(c, c)


def rare_classes(labels: np.ndarray | torch.Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """Classes with less than half of an equal share of the faces, such as RAF-DB's fear, disgust and anger."""
    counts = np.bincount(np.asarray(labels), minlength=len(classes))
    return tuple(name for name, n in zip(classes, counts, strict=True) if n < counts.sum() / (2 * len(classes)))


def evaluate(predictions: Predictions, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """All metrics as a long table with columns metric, class ("" for all), value, low, high.

    accuracy; mean_class_recall over the classes in the truth; macro_f1 over the classes in the truth or among
    the predictions; ece, the expected calibration error over 15 bins of equal width (Guo et al., ICML 2017,
    arXiv 1706.04599, eq. 3); recall, a row a class, NaN for a class not in the truth. Raises ValueError for
    no faces, or fewer than 100 resamples; these are of the faces, with replacement, shared by all metrics.
    """
    c = len(predictions.classes)
    values, low, high, drawn = bootstrap(
        face_features(predictions), lambda sums: scores_of_sums(sums, c), resamples=resamples, seed=seed
    )
    ece = OVERALL.index("ece")
    low[ece], high[ece] = reflected_interval(values[ece], drawn[:, ece])
    groups = predictions.labels == np.arange(c)[:, None]
    for i, group in [(0, np.full(len(predictions), True)), *enumerate(groups, start=len(OVERALL))]:
        if group.any() and values[i] in (0, 1):
            low[i], high[i] = binomial_interval(int(predictions.correct[group].sum()), int(group.sum()))
    names = {"metric": [*OVERALL, *["recall"] * c], "class": [*[""] * len(OVERALL), *predictions.classes]}
    ends = {"low": np.minimum(low, values), "high": np.maximum(high, values)}
    return pd.DataFrame({**names, "value": values, **ends})


def overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of `evaluate`'s table that are about all classes, by metric: columns value, low, high.

    Example:
        `overall(evaluate(predictions)).value["accuracy"]`
    """
    return metrics[metrics["class"] == ""].set_index("metric").drop(columns="class")


def accuracy_row(correct: np.ndarray) -> dict[str, float]:
    """{faces, value, low, high} of bool [N]: their number and accuracy with its exact binomial interval."""
    low, high = binomial_interval(int(correct.sum()), len(correct))
    return {"faces": len(correct), "value": float(correct.mean()), "low": low, "high": high}


def face_features(predictions: Predictions) -> np.ndarray:
    """What each face adds to the sums that metrics are made of, float32 [N, C·C + 15].

    First a one in its cell of the confusion matrix, then confidence − correct in its calibration bin. Raises
    ValueError for no faces.
    """
    n, c = predictions.probabilities.shape
    if not n:
        raise ValueError(f"there are no predictions on {predictions.name} to evaluate")
    confidence = predictions.probabilities.max(1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    features = np.zeros((n, c * c + BINS), dtype=np.float32)
    faces = np.arange(n)
    features[faces, predictions.labels * c + predictions.predicted] = 1
    features[faces, c * c + bins] = confidence - predictions.correct
    return features


def scores_of_sums(sums: np.ndarray, c: int) -> np.ndarray:
    """Metrics [R, 4 + C] from sums of `face_features` [R, C·C + 15]: `OVERALL`, then each class's recall."""
    sums = sums.astype(np.float64)
    confusion = sums[:, : c * c].reshape(-1, c, c)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, predicted = confusion.sum(2), confusion.sum(1)
    total = truth.sum(1)
    with np.errstate(invalid="ignore"):
        recall = right / truth
        f1 = 2 * right / (truth + predicted)
    overall = [
        right.sum(1) / total,
        np.nanmean(recall, axis=1),
        np.nanmean(f1, axis=1),
        np.abs(sums[:, c * c :]).sum(1) / total,
    ]
    return np.column_stack([*overall, recall])
