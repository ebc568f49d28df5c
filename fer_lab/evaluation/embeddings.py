"""Embeddings: how tight their classes are, how far apart, and how they look on a plane.

None of these numbers has an interval over faces in the results store, because they vary with the training's
seed. The store gives intervals over seeds.
"""

import math
import os
import tempfile
import warnings
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist

from fer_lab.data.faces import REGIONS, FaceSet
from fer_lab.data.loader import Loader
from fer_lab.explanation.maps import mass_in_regions, mean_pairwise_cosine, scaled_to_mass
from fer_lab.models.inference import in_order
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method
from fer_lab.models.qcs import QCS
from fer_lab.models.triplet_center import TripletCenter

# The silhouette compares every face with every other one. Of larger sets, this many faces are drawn.
SILHOUETTE_FACES = 4000
# How often every face gets new partners for measuring its cross similarity map.
MASS_DRAWS = 4


def _points(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As float64 [N,D] and int [N], or ValueError."""
    x, y = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"expected embeddings [N,D] and labels [N], got {list(x.shape)} and {list(y.shape)}")
    return x, y


class Scatter(NamedTuple):
    """Mean squared distance of faces to their class mean, of class means to the overall mean, and the ratio."""

    within: float
    between: float
    ratio: float


def within_between_scatter(embeddings: np.ndarray, labels: np.ndarray) -> Scatter:
    """How tight the classes are relative to their distances: Fisher's criterion by traces, lower is better.

    With class means μ_c of n_c faces each and the overall mean μ: within = tr S_W = Σ_i ‖x_i − μ_{y_i}‖² / N,
    between = tr S_B = Σ_c n_c ‖μ_c − μ‖² / N (Fukunaga, Introduction to Statistical Pattern Recognition, 1990,
    section 10.2). The ratio does not change with the embedding's scale. As a single number, it says nothing
    about any one pair of classes. Takes embeddings [N,D] and labels int [N]; raises ValueError for sizes that
    do not match, or fewer than two classes.
    """
    x, y = _points(embeddings, labels)
    if (present := len(np.unique(y))) < 2:
        raise ValueError(f"scatter needs faces of at least two classes, got {present}")
    means = pd.DataFrame(x).groupby(y).transform("mean").to_numpy()  # of each face's class
    within, between = (float((gaps**2).sum() / len(x)) for gaps in (x - means, means - x.mean(0)))
    return Scatter(within, between, within / between if between else math.inf)


class Separation(NamedTuple):
    """Every class relative to the class centers; NaN for a class without faces."""

    scatter: np.ndarray  # [C] root mean squared distance of a class's faces to its center, in `unit`s
    # [C] how much nearer a class's faces are to their own center than to the nearest wrong one, mean over the
    # faces, in `unit`s; below 0 the typical face is nearer to another class.
    margin: np.ndarray
    centers: np.ndarray  # [C,D] as given, or the means of the classes; NaN for a class without faces
    unit: float  # root mean squared distance of all faces to their mean; it removes the embedding's scale


def separation(
    embeddings: np.ndarray, labels: np.ndarray, num_classes: int, centers: np.ndarray | None = None
) -> Separation:
    """Within-class scatter and nearest-center margin of every class.

    The margin of face i is (min_{j≠y_i} ‖x_i − c_j‖ − ‖x_i − c_{y_i}‖) / unit. Raises ValueError for sizes
    that do not match, labels outside the classes, or fewer than two classes.

    Takes embeddings [N,D], labels int [N], 0…C−1, and centers [C,D]; None takes the classes' means. They
    flatter a class of few faces, each of which pulls its class mean towards itself.
    """
    x, y = _points(embeddings, labels)
    if len(y) and not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(f"labels must be 0…{num_classes - 1}, got {y.min()}…{y.max()}")
    counts = np.bincount(y, minlength=num_classes)
    if centers is None:
        centers = pd.DataFrame(x).groupby(y).mean().reindex(range(num_classes)).to_numpy()
    centers = np.asarray(centers, dtype=np.float64)
    if centers.shape != (num_classes, x.shape[1]):
        raise ValueError(f"expected centers [{num_classes},{x.shape[1]}], got {list(centers.shape)}")
    if (known := np.isfinite(centers).all(1)).sum() < 2 or not len(y):
        raise ValueError(f"a margin needs faces and at least two centers, got {len(y)} and {known.sum()}")
    # An embedding that has collapsed to a point has no unit of its own; its scatter and margins are 0.
    unit = math.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()) or 1.0
    distances = np.where(known, cdist(x, centers), np.inf)
    faces = np.arange(len(x))
    own = distances[faces, y]
    wrong = distances.copy()
    wrong[faces, y] = np.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        scatter = np.sqrt(np.bincount(y, own**2, num_classes) / counts) / unit
        margin = np.bincount(y, wrong.min(1) - own, num_classes) / counts / unit
    return Separation(scatter, margin, centers, unit)


def silhouette(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette of the faces, −1…1 (Rousseeuw, J. Comput. Appl. Math. 20, 1987), by scikit-learn.

    For each face (b − a) / max(a, b): a is its mean distance to its own class, b the one to the nearest other
    class. Frequent classes weigh more. Of larger sets, `SILHOUETTE_FACES` faces are drawn with a fixed seed.
    Raises ValueError for sizes that do not match, a single class, or only classes of one face.
    """
    from sklearn.metrics import silhouette_score

    x, y = _points(embeddings, labels)
    if len(x) > SILHOUETTE_FACES:
        drawn = np.random.default_rng(0).choice(len(x), SILHOUETTE_FACES, replace=False)
        x, y = x[drawn], y[drawn]
    if not 2 <= (present := len(np.unique(y))) < len(y):
        raise ValueError(f"a silhouette needs 2 classes or more, and more faces than that; got {present}")
    return float(silhouette_score(x, y))


def embedding_metrics(
    model: Method, faces: FaceSet, embeddings: np.ndarray, *, batch_size: int = 256
) -> pd.DataFrame:
    """How a model's embeddings and attention maps are spread, in the columns of `evaluate` without intervals.

    - "within_between": the ratio of `within_between_scatter`; "silhouette": see there.
    - "nearest_center_margin" and "class_scatter": `separation` from the classes' means, for every class and
      as the mean over classes.
    - "head_overlap", for a model with several attention maps over the face: the mean over faces of
      `mean_pairwise_cosine`.
    - "attention_mass", on rendered faces: the share of the model's own map (the mean over its heads) on the
      places that the acting units moved. "attention_mass_chance": the share that an even map would have.
    - "map_mass", for a model that compares faces, on rendered faces: the share of its cross similarity maps
      on the places that the acting units moved. "map_mass_chance": the share that an even map would have.

    Embeddings [N,D] are of these faces, as `predict(…, embeddings=True)` gives them. Raises ValueError for
    fewer than two classes among the faces.
    """
    labels = faces.labels.numpy()
    rows = [("within_between", "", within_between_scatter(embeddings, labels).ratio)]
    apart = separation(embeddings, labels, faces.num_classes)
    for name, values in (("nearest_center_margin", apart.margin), ("class_scatter", apart.scatter)):
        rows.append((name, "", float(np.nanmean(values))))
        rows += [(name, label, float(value)) for label, value in zip(faces.classes, values, strict=True)]
    if len(faces) > len(np.unique(labels)):
        rows.append(("silhouette", "", silhouette(embeddings, labels)))
    rows += [(name, "", value) for name, value in _of_own_maps(model, faces, batch_size).items()]
    if (mass := _map_mass(model, faces)) is not None:
        rows += [("map_mass", "", mass[0]), ("map_mass_chance", "", mass[1])]
    return pd.DataFrame(rows, columns=["metric", "class", "value"]).assign(low=math.nan, high=math.nan)


def _of_own_maps(model: Method, faces: FaceSet, batch_size: int) -> dict[str, float]:
    """Those of head_overlap, attention_mass and attention_mass_chance that this model and these faces have."""
    if not model.has_face_maps:
        return {}
    loader = in_order(model, faces, device=next(model.parameters()).device, batch_size=batch_size)
    found = defaultdict(list)
    with evaluating(model), torch.no_grad():
        for batch in loader:
            maps = next(iter(model.attention_maps(batch.images).values()))
            if maps.shape[1] > 1:
                found["head_overlap"].append(mean_pairwise_cosine(maps).cpu())
            if faces.regions is not None:
                moved = faces.region_masks(batch.indices)[:, [REGIONS.index("moved")]].to(maps.device)
                acting = moved.flatten(1).any(1)
                one = scaled_to_mass(maps.clamp(min=0)).mean(1, keepdim=True)
                share, chance = mass_in_regions(one[acting], moved[acting])
                found["attention_mass"].append(share.flatten().cpu())
                found["attention_mass_chance"].append(chance.flatten().cpu())
    joined = {name: torch.cat(values) for name, values in found.items()}
    # A map without any mass has no share of it.
    return {name: values.nanmean().item() for name, values in joined.items() if len(values)}


def _map_mass(model: Method, faces: FaceSet) -> tuple[float, float] | None:
    """(map_mass, map_mass_chance), the mean over scales, draws of partners, and anchors that move something."""
    if not isinstance(model, QCS) or model.cross is None or faces.regions is None:
        return None
    # A class with a single face has no partner for it.
    paired = faces.class_counts() > 1
    if paired.sum() < 2:
        return None
    faces = faces.subset(paired[faces.labels])
    device = next(model.parameters()).device
    loader = Loader(faces, batch_size=64, size=model.image_size, kind=model.batch_kind, device=device)
    shares = []
    with evaluating(model), torch.no_grad():
        for draw in range(MASS_DRAWS):
            loader.set_epoch(draw)
            for batch in loader:
                moved = faces.region_masks(batch.indices[:, 0])[:, [REGIONS.index("moved")]].to(device)
                acting = moved.flatten(1).any(1)
                if not acting.any():  # the last, small batch may hold only neutral faces
                    continue
                maps = model.similarity_maps(batch.images[acting])[:, 0]  # [B,3,7,7], the anchor's
                share, chance = mass_in_regions(maps, moved[acting])
                shares.append(torch.stack([share.mean(1), chance], 1).flatten(1).cpu())
    mass, chance = torch.cat(shares).mean(0).tolist()
    return mass, chance


class Plane(NamedTuple):
    """The answer of a model with a two-dimensional embedding at every point of a grid over a window of it."""

    x: np.ndarray  # [W], coordinates of the grid
    y: np.ndarray  # [H]
    decision: np.ndarray  # int [H,W], the predicted class
    # bool [C,H,W], where a face of class c would have no triplet-center loss; None without centers.
    silent: np.ndarray | None


@torch.no_grad()
def plane_of(model: TripletCenter, xy: np.ndarray, steps: int = 160) -> Plane:
    """Decision regions and margins in a window around points [N,2] and, if the model has any, its centers.

    Raises ValueError for an embedding that does not have two dimensions.
    """
    if model.classify.in_features != 2:
        raise ValueError(f"expected an embedding of two dimensions, got {model.classify.in_features}")
    inside = np.asarray(xy, dtype=np.float32)
    if model.centers is not None:
        inside = np.concatenate([inside, model.centers.detach().cpu().numpy()])
    low, high = inside.min(0), inside.max(0)
    room = 0.06 * (high - low).max() + 1e-6
    x, y = (np.linspace(low[i] - room, high[i] + room, steps) for i in (0, 1))
    across, up = np.meshgrid(x, y)
    points = torch.from_numpy(np.column_stack([across.ravel(), up.ravel()]).astype(np.float32))
    points = points.to(model.classify.weight.device)
    logits = model.logits(points)
    decision = logits.argmax(1).view(steps, steps).cpu().numpy()
    silent = None
    if model.metric_loss == "triplet_center" and (loss := model.triplet_center) is not None:
        every = torch.arange(model.num_classes, device=points.device)
        losses = [loss.per_face(points, label.expand(len(points)), logits) for label in every]
        silent = (torch.stack(losses).view(-1, steps, steps) == 0).cpu().numpy()
    return Plane(x, y, decision, silent)


def umap_embedding(embeddings: np.ndarray | torch.Tensor, seed: int = 0) -> np.ndarray:
    """Place embeddings [N,D] on a plane by UMAP (McInnes et al., arXiv 1802.03426) → float32 [N,2].

    The same embeddings and seed give the same points on one machine. Only neighbourhoods mean something.
    Distances between clusters and sizes of clusters do not. The first call takes about 10 s on two cores.
    Raises ValueError for fewer than four faces, another shape, or values that are not finite.
    """
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or len(embeddings) < 4 or not np.isfinite(embeddings).all():
        raise ValueError(f"expected finite embeddings [N,D] of at least 4 faces, got {list(embeddings.shape)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from umap import UMAP
        except RuntimeError:
            # numba keeps compiled code next to umap or in the home folder, and gives up if both are read-only.
            import numba

            os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="numba-")
            numba.config.reload_config()
            from umap import UMAP

        neighbors = min(15, len(embeddings) - 1)
        reducer = UMAP(n_neighbors=neighbors, min_dist=0.15, random_state=seed, n_jobs=1)
        return reducer.fit_transform(embeddings).astype(np.float32)
