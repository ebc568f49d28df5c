"""How an embedding is built: how tight its classes are, how far apart, and how much attention maps overlap.

None of these numbers has an interval over faces in the results store: what they vary with is the training's
seed. `over_seeds` gives the interval that answers that.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from fer_lab.data.faces import REGIONS, FaceSet
from fer_lab.data.loader import Loader
from fer_lab.explanation.maps import mass_in_regions, mean_pairwise_cosine
from fer_lab.models.inference import in_order
from fer_lab.models.method import Method
from fer_lab.models.triplet_center import TripletCenter

# The silhouette compares every face with every other one; beyond this many, so many are drawn.
SILHOUETTE_FACES = 4000
# How often every face is given other partners before its cross similarity map is measured.
MASS_DRAWS = 4


def _points(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As float64 [N,D] and int [N], or ValueError."""
    x, y = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"expected embeddings [N,D] and labels [N], got {list(x.shape)} and {list(y.shape)}")
    return x, y


class Scatter(NamedTuple):
    """Mean squared distance of embeddings to their class mean, of those to the overall mean, and the ratio."""

    within: float
    between: float
    ratio: float


def within_between_scatter(embeddings: np.ndarray, labels: np.ndarray) -> Scatter:
    """How tight the classes are against how far apart: Fisher's criterion by traces, lower is better.

    With class means μ_c of n_c faces each and the overall mean μ:
    within = tr S_W = Σ_i ‖x_i − μ_{y_i}‖² / N, between = tr S_B = Σ_c n_c ‖μ_c − μ‖² / N
    (Fukunaga, Introduction to Statistical Pattern Recognition, 1990, section 10.2). The ratio does not
    change with the embedding's scale; with one value it says nothing of any single pair of classes.

    Args:
        embeddings: [N,D].
        labels: int [N].

    Raises:
        ValueError: sizes that do not match, or fewer than two classes.
    """
    x, y = _points(embeddings, labels)
    present, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise ValueError(f"scatter needs faces of at least two classes, got {len(present)}")
    means = np.zeros((len(present), x.shape[1]))
    np.add.at(means, index, x)
    means /= counts[:, None]
    within = float(((x - means[index]) ** 2).sum() / len(x))
    between = float((counts * ((means - x.mean(0)) ** 2).sum(1)).sum() / len(x))
    return Scatter(within, between, within / between if between else math.inf)


class Separation(NamedTuple):
    """Every class against the centers; NaN for a class without faces.

    Attributes:
        scatter: [C] root mean squared distance of a class's faces to its center, in `unit`s.
        margin: [C] how much nearer its faces are to their own center than to the nearest wrong one, mean
            over the faces, in `unit`s; below 0 the typical face lies with another class.
        nearest: [C,C] share of a class's faces (row) whose nearest wrong center is that of the column.
        centers: [C,D] as given, or the means of the classes; NaN for a class without faces.
        unit: root mean squared distance of all faces to their mean, so that the scale of an embedding does
            not matter.
    """

    scatter: np.ndarray
    margin: np.ndarray
    nearest: np.ndarray
    centers: np.ndarray
    unit: float


def separation(
    embeddings: np.ndarray, labels: np.ndarray, num_classes: int, centers: np.ndarray | None = None
) -> Separation:
    """Within-class scatter and nearest-center margin of every class.

    The margin of face i is (min_{j≠y_i} ‖x_i − c_j‖ − ‖x_i − c_{y_i}‖) / unit.

    Args:
        embeddings: [N,D].
        labels: int [N], 0…C−1.
        num_classes: C.
        centers: [C,D]; None takes the classes' means, which flatters a class of few faces: they pull their
            own mean towards themselves.

    Raises:
        ValueError: sizes that do not match, labels outside the classes, or fewer than two classes.
    """
    x, y = _points(embeddings, labels)
    if len(y) and not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(f"labels must be 0…{num_classes - 1}, got {y.min()}…{y.max()}")
    counts = np.bincount(y, minlength=num_classes)
    if centers is None:
        centers = np.full((num_classes, x.shape[1]), np.nan)
        for label in np.flatnonzero(counts):
            centers[label] = x[y == label].mean(0)
    centers = np.asarray(centers, dtype=np.float64)
    if centers.shape != (num_classes, x.shape[1]):
        raise ValueError(f"expected centers [{num_classes},{x.shape[1]}], got {list(centers.shape)}")
    if (known := np.isfinite(centers).all(1)).sum() < 2 or not len(y):
        raise ValueError(f"a margin needs faces and at least two centers, got {len(y)} and {known.sum()}")
    # An embedding that has collapsed to a point has no unit of its own; its scatter and margins are 0.
    unit = math.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()) or 1.0
    distances = np.full((len(x), num_classes), np.inf)
    for label in np.flatnonzero(known):
        distances[:, label] = np.sqrt(((x - centers[label]) ** 2).sum(1))
    faces = np.arange(len(x))
    own = distances[faces, y]
    wrong = distances.copy()
    wrong[faces, y] = np.inf
    nearest = np.zeros((num_classes, num_classes))
    np.add.at(nearest, (y, wrong.argmin(1)), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        nearest /= counts[:, None]
        scatter = np.sqrt(np.bincount(y, own**2, num_classes) / counts) / unit
        margin = np.bincount(y, wrong.min(1) - own, num_classes) / counts / unit
    return Separation(scatter, margin, nearest, centers, unit)


def silhouette(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of the faces, −1…1 (Rousseeuw, J. Comput. Appl. Math. 20, 1987), by scikit-learn.

    For each face (b − a) / max(a, b): a is its mean distance to its own class, b that to the nearest other
    class. Frequent classes weigh more. Of more than `SILHOUETTE_FACES` faces, so many are drawn with a fixed
    seed.

    Raises:
        ValueError: sizes that do not match, a single class, or only classes of one face.
    """
    from sklearn.metrics import silhouette_score

    x, y = _points(embeddings, labels)
    if len(x) > SILHOUETTE_FACES:
        drawn = np.random.default_rng(0).choice(len(x), SILHOUETTE_FACES, replace=False)
        x, y = x[drawn], y[drawn]
    if not 2 <= (present := len(np.unique(y))) < len(y):
        raise ValueError(f"a silhouette needs 2 classes or more, and more faces than that; got {present}")
    return float(silhouette_score(x, y))


def rare_classes(labels: np.ndarray | torch.Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """Classes with less than half of an equal share of the faces, such as RAF-DB's fear, disgust and anger."""
    counts = np.bincount(np.asarray(labels), minlength=len(classes))
    return tuple(name for name, n in zip(classes, counts, strict=True) if n < counts.sum() / (2 * len(classes)))


def structure(model: Method, faces: FaceSet, embeddings: np.ndarray, *, batch_size: int = 256) -> pd.DataFrame:
    """What a model makes of a set beyond right and wrong, in the columns of `evaluation.evaluate`.

    "within_between" is the ratio of `within_between_scatter` for its embeddings, "silhouette" as there;
    "nearest_center_margin" and "class_scatter", for every class and as the mean over classes, those of
    `separation` from the classes' means; "head_overlap", for a model with several attention maps over the
    face, the mean of `mean_pairwise_cosine` over the faces; "map_mass", for a model that compares faces and
    faces whose truth is known, the share of its cross similarity maps on the places that the acting units
    moved, and "map_mass_chance", what an even map would get.

    Args:
        embeddings: [N,D] of these faces, as `predict(…, embeddings=True)` gives them.

    Raises:
        ValueError: fewer than two classes among the faces.
    """
    labels = faces.labels.numpy()
    rows = [("within_between", "", within_between_scatter(embeddings, labels).ratio)]
    apart = separation(embeddings, labels, faces.num_classes)
    for name, values in (("nearest_center_margin", apart.margin), ("class_scatter", apart.scatter)):
        rows.append((name, "", float(np.nanmean(values))))
        rows += [(name, label, float(value)) for label, value in zip(faces.classes, values, strict=True)]
    if len(faces) > len(np.unique(labels)):
        rows.append(("silhouette", "", silhouette(embeddings, labels)))
    if (overlap := _head_overlap(model, faces, batch_size)) is not None:
        rows.append(("head_overlap", "", overlap))
    if (mass := _map_mass(model, faces)) is not None:
        rows += [("map_mass", "", mass[0]), ("map_mass_chance", "", mass[1])]
    return pd.DataFrame(rows, columns=["metric", "class", "value"]).assign(low=math.nan, high=math.nan)


def _head_overlap(model: Method, faces: FaceSet, batch_size: int) -> float | None:
    if not model.has_face_maps:
        return None
    loader = in_order(model, faces, device=next(model.parameters()).device, batch_size=batch_size)
    was_training = model.training
    model.eval()
    overlaps = []
    with torch.no_grad():
        for batch in loader:
            maps = next(iter(model.attention_maps(batch.images).values()))
            if maps.shape[1] < 2:
                break
            overlaps.append(mean_pairwise_cosine(maps).cpu())
    model.train(was_training)
    return float(torch.cat(overlaps).mean()) if overlaps else None


def _map_mass(model: Method, faces: FaceSet) -> tuple[float, float] | None:
    """Mean over anchors that move something, drawn with partners `MASS_DRAWS` times, and over the scales."""
    if getattr(model, "cross", None) is None or faces.regions is None:
        return None
    # A class with a single face has no partner for it.
    paired = faces.class_counts() > 1
    if paired.sum() < 2:
        return None
    faces = faces.subset(paired[faces.labels])
    device = next(model.parameters()).device
    loader = Loader(faces, batch_size=64, size=model.image_size, kind=model.batch_kind, device=device)
    was_training = model.training
    model.eval()
    found = []
    with torch.no_grad():
        for draw in range(MASS_DRAWS):
            loader.set_epoch(draw)
            for batch in loader:
                moved = faces.region_masks(batch.indices[:, 0])[:, [REGIONS.index("moved")]].to(device)
                acting = moved.flatten(1).any(1)
                if not acting.any():  # the last, small batch may hold neutral faces alone
                    continue
                maps = model.similarity_maps(batch.images[acting])[:, 0]  # [B,3,7,7], the anchor's
                share, chance = mass_in_regions(maps, moved[acting])
                found.append(torch.stack([share.mean(1), chance], 1).flatten(1).cpu())
    model.train(was_training)
    mass, chance = torch.cat(found).mean(0).tolist()
    return mass, chance


class Plane(NamedTuple):
    """What a model with a two-dimensional embedding makes of every place in a window of it.

    Attributes:
        x, y: [W] and [H], where the places are.
        decision: int [H,W], the class that would be answered.
        silent: bool [C,H,W], where a face of class c would have no triplet-center loss; None without centers.
    """

    x: np.ndarray
    y: np.ndarray
    decision: np.ndarray
    silent: np.ndarray | None


@torch.no_grad()
def plane_of(model: TripletCenter, xy: np.ndarray, steps: int = 160) -> Plane:
    """Decision regions and margins around points [N,2], and around the centers if there are any.

    Raises:
        ValueError: an embedding of more than two dimensions.
    """
    if model.classify.in_features != 2:
        raise ValueError(f"only two dimensions can be drawn as they are, got {model.classify.in_features}")
    seen = np.asarray(xy, dtype=np.float32)
    if model.centers is not None:
        seen = np.concatenate([seen, model.centers.detach().cpu().numpy()])
    low, high = seen.min(0), seen.max(0)
    room = 0.06 * (high - low).max() + 1e-6
    x, y = (np.linspace(low[i] - room, high[i] + room, steps) for i in (0, 1))
    across, up = np.meshgrid(x, y)
    points = torch.from_numpy(np.column_stack([across.ravel(), up.ravel()]).astype(np.float32))
    points = points.to(model.classify.weight.device)
    logits = model.logits(points)
    decision = logits.argmax(1).view(steps, steps).cpu().numpy()
    silent = None
    if model.metric_loss == "triplet_center":
        every = torch.arange(model.num_classes, device=points.device)
        losses = [model.triplet_center.per_face(points, label.expand(len(points)), logits) for label in every]
        silent = (torch.stack(losses).view(-1, steps, steps) == 0).cpu().numpy()
    return Plane(x, y, decision, silent)


def umap_embedding(embeddings: np.ndarray | torch.Tensor, seed: int = 0, neighbors: int = 15) -> np.ndarray:
    """Lay embeddings [N,D] out on a plane by UMAP (McInnes et al., arXiv 1802.03426) → float32 [N,2].

    The same embeddings and seed give the same points on one machine. Only neighbourhoods mean something:
    not distances between clusters, and not their sizes. The first call costs about 10 s on two cores.

    Raises:
        ValueError: fewer than four faces, another shape, or values that are not finite.
    """
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or len(embeddings) < 4 or not np.isfinite(embeddings).all():
        raise ValueError(f"expected finite embeddings [N,D] of at least 4 faces, got {list(embeddings.shape)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=min(neighbors, len(embeddings) - 1), min_dist=0.15, random_state=seed, n_jobs=1
        )
        return reducer.fit_transform(embeddings).astype(np.float32)
