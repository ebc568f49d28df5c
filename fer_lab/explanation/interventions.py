"""What caused the answer: the same face without one of its causes, and how far the logit falls.

A renderer knows every muscle of a face, so it can draw the same picture without one of them. The fall of the
logit is the true importance of that muscle for this network and this face, and a map can be held against it.
The idea is from rendered birds: Hesse et al., FunnyBirds, ICCV 2023, https://arxiv.org/abs/2308.06248
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from fer_lab.data import REGIONS, FaceSet, prepare
from fer_lab.data.synthetic import UNITS, redraw
from fer_lab.explanation.attribution import Target, classes_to_explain
from fer_lab.explanation.maps import GRID, mass_in_regions, to_grid
from fer_lab.explanation.scores import answers
from fer_lab.models.method import Method

# Weaker than this a muscle is at rest.
LEAST = 0.1
# Ranks of fewer causes than this say nothing.
FEWEST = 3


@dataclass(frozen=True)
class Interventions:
    """Rendered faces, and each of them without each of its causes."""

    faces: FaceSet  # B of them
    # M rows: face (0…B − 1), cause ("AU12 lip corner puller"), side ("left" or "right" of the face), intensity
    # (0…1).
    table: pd.DataFrame
    without: Tensor  # uint8 [M,3,S,S], the face of the row without the row's cause
    masks: Tensor  # bool [M,S,S], the places that the cause moves

    @property
    def of_face(self) -> Tensor:
        """The face of each cause, int64 [M]."""
        return torch.tensor(self.table["face"].to_list())


def intervene(faces: FaceSet) -> Interventions:
    """Draw rendered faces again, once without each acting unit of each side.

    Raises ValueError for faces that were not rendered, or faces at rest.
    """
    if faces.action_units is None:
        raise ValueError(f"{faces.name} was not rendered: nobody knows its muscles")
    rows, less, alone = [], [], []
    for i, units in enumerate(faces.action_units):
        for u, k in (units >= LEAST).nonzero().tolist():
            cause = f"AU{UNITS[u].number} {UNITS[u].name.replace('_', ' ')}"
            side, intensity = ("left", "right")[k], units[u, k].item()
            rows.append({"face": i, "cause": cause, "side": side, "intensity": intensity})
            less.append(units.clone())
            less[-1][u, k] = 0
            alone.append(torch.zeros_like(units))
            alone[-1][u, k] = 1
    if not rows:
        raise ValueError("no muscle of these faces acts; leave neutral faces out and take expressions")
    places = [row["face"] for row in rows]
    moved = redraw(faces, places, torch.stack(alone)).regions >> REGIONS.index("moved") & 1
    without = redraw(faces, places, torch.stack(less)).images
    return Interventions(faces, pd.DataFrame(rows), without, moved.bool())


def true_importance(model: Method, given: Interventions, target: Target = None) -> Tensor:
    """How far the logit of a class falls without each cause: float32 [M], below zero where it rises."""
    images, without = (
        prepare(one, model.image_size, model.color_order) for one in (given.faces.images, given.without)
    )
    target = classes_to_explain(model, images, target)
    whole, less = answers(model, images), answers(model, without)
    return (whole[given.of_face] - less).gather(1, target[given.of_face, None])[:, 0]


def claimed_importance(maps: Tensor, given: Interventions) -> Tensor:
    """The share of a map's mass on the places of each cause: maps [B,1,h,w] → [M]; negative values are cut."""
    share, _ = mass_in_regions(maps.clamp(min=0)[given.of_face], given.masks[:, None])
    return share[:, 0, 0]


def causal_scores(maps: Mapping[str, Tensor], importance: Tensor, given: Interventions) -> pd.DataFrame:
    """Does a map put the causes in their true order? A row a way and face.

    Columns: way, face; rank, Spearman's correlation over the face's causes of the map's mass with the true
    importance; top, whether the cause with the most mass is the most important muscle, on either side of the
    face (1 or 0; if several tie, the share of them); both NaN for fewer than three causes or a map without any
    mass on them; cosine, between the map and the places that all the face's muscles move, both on a 7×7 grid:
    the field's usual score (Belharbi et al., FG 2024, https://arxiv.org/abs/2402.00281).

    Args:
        maps: way → [B,1,h,w].
        importance: [M], from `true_importance`.
    """
    groups, muscles = given.table.groupby("face").indices, given.table["cause"].to_numpy()
    moved = given.faces.region_masks(range(len(given.faces)))[:, [REGIONS.index("moved")]]
    truth = to_grid(moved.float(), GRID).flatten(1)
    rows = []
    for way, one in maps.items():
        claims = claimed_importance(one, given).numpy()
        cosine = F.cosine_similarity(to_grid(one.clamp(min=0), GRID).flatten(1), truth).tolist()
        for face, causes in groups.items():
            rank = top = np.nan
            if len(causes) >= FEWEST and np.ptp(claims[causes]) > 0:
                rank = float(spearmanr(claims[causes], importance[causes].numpy()).statistic)
                most = muscles[causes][claims[causes] == claims[causes].max()]
                top = float((most == muscles[causes[int(importance[causes].argmax())]]).mean())
            rows.append({"way": way, "face": face, "rank": rank, "top": top, "cosine": cosine[face]})
    return pd.DataFrame(rows)
