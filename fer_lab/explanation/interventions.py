"""What caused the answer: the same face without one of its causes, and how far the logit falls.

A renderer knows every muscle of a face, so it can draw the same picture without one of them. The fall of the
logit is the true importance of that muscle for this network and this face, and a map can be held against it.
Hesse, Schaub-Meyer, Roth had the idea, with parts of rendered birds: FunnyBirds, ICCV 2023,
https://arxiv.org/abs/2308.06248
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from fer_lab.data import REGIONS, FaceSet, prepare
from fer_lab.data.synthetic import NUMBERS, UNITS, redraw
from fer_lab.explanation.attribution import classes_to_explain
from fer_lab.explanation.maps import GRID, mass_in_regions, to_grid
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method

SIDES = ("left", "right")
# Which part of the face a unit is seen on; the nose wrinkler and the upper lip raiser pull at both.
PARTS = {
    "brows": (1, 2, 4),
    "eyes": (5, 6, 7),
    "nose": (9, 10),
    "mouth": (12, 14, 15, 17, 20, 23, 25, 26),
}
CAUSES: dict[str, dict[str, tuple[int, ...]]] = {
    "unit": {f"AU{unit.number} {unit.name.replace('_', ' ')}": (unit.number,) for unit in UNITS},
    "part": PARTS,
}
# Weaker than this a muscle is at rest.
LEAST = 0.1
# Ranks of fewer causes than this say nothing.
FEWEST = 3


@dataclass(frozen=True)
class Interventions:
    """Rendered faces, and each of them without each of its causes.

    Attributes:
        faces: the faces, B of them.
        table: a row a cause: face (0…B − 1), cause ("AU12 lip corner puller" or "mouth"), side (the face's
            own "left" or "right"), intensity (of its strongest unit, 0…1). M rows.
        without: uint8 [M,3,S,S], the face of the row without the row's cause.
        masks: bool [M,S,S], the places that the cause moves.
    """

    faces: FaceSet
    table: pd.DataFrame
    without: torch.Tensor
    masks: torch.Tensor

    @property
    def of_face(self) -> torch.Tensor:
        """The face of each cause, int64 [M]."""
        return torch.tensor(self.table["face"].to_list())


def intervene(faces: FaceSet, by: str = "unit") -> Interventions:
    """Draw rendered faces again, once without each acting unit (or all units of a part) of each side.

    Raises ValueError for faces that were not rendered, faces at rest, or another `by` than "unit" and "part".
    """
    if by not in CAUSES:
        raise ValueError(f"by must be one of {', '.join(CAUSES)}, got {by!r}")
    if faces.action_units is None:
        raise ValueError(f"{faces.name} was not rendered: nobody knows its muscles")
    rows, less, alone = [], [], []
    for i, units in enumerate(faces.action_units):
        for cause, numbers in CAUSES[by].items():
            chosen = [NUMBERS.index(number) for number in numbers]
            for k, side in enumerate(SIDES):
                intensity = units[chosen, k].max().item()
                if intensity < LEAST:
                    continue
                rows.append({"face": i, "cause": cause, "side": side, "intensity": intensity})
                less.append(units.clone())
                less[-1][chosen, k] = 0
                alone.append(torch.zeros_like(units))
                alone[-1][chosen, k] = (units[chosen, k] >= LEAST).float()
    if not rows:
        raise ValueError("no muscle of these faces acts; leave neutral faces out and take expressions")
    places = [row["face"] for row in rows]
    moved = redraw(faces, places, torch.stack(alone)).regions >> REGIONS.index("moved") & 1
    without = redraw(faces, places, torch.stack(less)).images
    return Interventions(faces, pd.DataFrame(rows), without, moved.bool())


@torch.no_grad()
def true_importance(
    model: Method, given: Interventions, target: int | torch.Tensor | None = None
) -> torch.Tensor:
    """How far the logit of a class falls without each cause: float32 [M], below zero where it rises.

    `target`: a class, or one for each face int64 [B]; None is the class that the model says.
    """
    images, without = (
        prepare(one, model.image_size, model.color_order) for one in (given.faces.images, given.without)
    )
    target = classes_to_explain(model, images, target)
    with evaluating(model):
        whole, less = (torch.cat([model(x).float() for x in one.split(256)]) for one in (images, without))
    return (whole[given.of_face] - less).gather(1, target[given.of_face, None])[:, 0]


def claimed_importance(maps: torch.Tensor, given: Interventions) -> torch.Tensor:
    """The share of a map's mass on the places of each cause: maps [B,1,h,w] → [M]; negative values are cut."""
    share, _ = mass_in_regions(maps.clamp(min=0)[given.of_face], given.masks[:, None])
    return share[:, 0, 0]


def causal_scores(
    maps: Mapping[str, torch.Tensor], importance: torch.Tensor, given: Interventions
) -> pd.DataFrame:
    """Does a map put the causes in their true order? A row a way and face.

    Columns: way, face; rank, Spearman's correlation over the face's causes of the map's mass with the true
    importance, NaN for fewer than three causes or a map without any mass on them; cosine, between the map and
    the places that all the face's muscles move, both on a 7×7 grid: the field's usual score (Belharbi et al.,
    FG 2024, https://arxiv.org/abs/2402.00281).

    Args:
        maps: way → [B,1,h,w].
        importance: [M], from `true_importance`.
    """
    groups = given.table.groupby("face").indices
    moved = given.faces.region_masks(range(len(given.faces)))[:, [REGIONS.index("moved")]]
    truth = to_grid(moved.float(), GRID).flatten(1)
    rows = []
    for way, one in maps.items():
        claims = claimed_importance(one, given).numpy()
        cosine = F.cosine_similarity(to_grid(one.clamp(min=0), GRID).flatten(1), truth).tolist()
        for face, causes in groups.items():
            rank = np.nan
            if len(causes) >= FEWEST and np.ptp(claims[causes]) > 0:
                rank = float(spearmanr(claims[causes], importance[causes].numpy()).statistic)
            rows.append({"way": way, "face": face, "rank": rank, "cosine": cosine[face]})
    return pd.DataFrame(rows)
