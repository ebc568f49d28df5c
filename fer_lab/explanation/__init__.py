"""Where a model looks: maps over the face in seven ways, and checks of whether a map can be believed."""

from typing import TYPE_CHECKING

from fer_lab._lazy import when_asked

if TYPE_CHECKING:
    from fer_lab.explanation.attention import ATTENTION_WAYS, sinks, token_norms
    from fer_lab.explanation.attribution import (
        WAYS,
        classes_to_explain,
        explain,
        grad_cam,
        integrated_gradients,
        native_maps,
        occlusion,
        ways_of,
    )
    from fer_lab.explanation.interventions import causal_scores, claimed_importance, intervene, true_importance
    from fer_lab.explanation.maps import GRID, mass_in_regions, mean_pairwise_cosine, pointing_game, to_grid
    from fer_lab.explanation.randomization import rank_correlation, weight_randomization
    from fer_lab.explanation.scores import (
        better_than,
        mean_over_faces,
        perturbation_curves,
        place_scores,
        priors,
        probing_scores,
    )

__getattr__, __dir__ = when_asked(__name__, __file__)
