"""Where a model looks: maps over the face by four ways, and three checks of whether a map can be believed."""

from fer_lab.explanation.attribution import explain, grad_cam, integrated_gradients, native_maps, occlusion
from fer_lab.explanation.maps import mass_in_regions, mean_pairwise_cosine, pointing_game, to_grid
from fer_lab.explanation.randomization import weight_randomization
from fer_lab.explanation.scores import mean_over_faces, place_scores, priors, probing_scores

__all__ = [
    "explain",
    "grad_cam",
    "integrated_gradients",
    "mass_in_regions",
    "mean_over_faces",
    "mean_pairwise_cosine",
    "native_maps",
    "occlusion",
    "place_scores",
    "pointing_game",
    "priors",
    "probing_scores",
    "to_grid",
    "weight_randomization",
]
