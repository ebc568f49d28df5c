"""Every plot of the book: functions that take arrays or tables and return a matplotlib `Figure`.

No pyplot and so no global state: a figure is freed when nobody holds it. `save` writes a file and `show`
displays in a notebook, both as PNGs with a palette, which are a fifth of the size and the same bytes each
time.
"""

from fer_lab.evaluation.embeddings import Plane, plane_of, umap_embedding
from fer_lab.figures.charts import (
    ablation,
    bench_table_figure,
    confusion,
    embedding_map,
    per_class_recall,
    reliability,
    training_curves,
)
from fer_lab.figures.compare import (
    accuracy_against_cost,
    accuracy_against_cost_twice,
    confusion_differences,
    embedding_panels,
    group_accuracy,
    model_scores,
    recall_by_class,
    robustness_curves,
    score_differences,
)
from fer_lab.figures.dan import head_overlap_figure
from fer_lab.figures.explain import (
    explanation_grid,
    explanation_scores,
    outlined_faces,
    perturbation_figure,
    randomization_figure,
)
from fer_lab.figures.pictures import (
    attention_overlay,
    class_counts,
    face_grid,
    face_rows,
    faces_by_class,
    feature_maps,
    landmarks_on_face,
)
from fer_lab.figures.poster import accuracy_against_scale, attention_and_landmarks, landmark_predictions
from fer_lab.figures.qcs import maps_in_rows, matching_lines, similarity_over_both, weights_through_training
from fer_lab.figures.style import new_figure, png, save, show, styled
from fer_lab.figures.triplet_center import (
    Frame,
    dimension_weights,
    embedding_frames,
    embedding_with_centers,
    nearest_wrong_center,
    negatives_in_plane,
    negatives_strip,
    panels_of_intervals,
    scatter_against_margin,
)

__all__ = [
    "Frame",
    "Plane",
    "ablation",
    "accuracy_against_cost",
    "accuracy_against_cost_twice",
    "accuracy_against_scale",
    "attention_and_landmarks",
    "attention_overlay",
    "bench_table_figure",
    "class_counts",
    "confusion",
    "confusion_differences",
    "dimension_weights",
    "embedding_frames",
    "embedding_map",
    "embedding_panels",
    "embedding_with_centers",
    "explanation_grid",
    "explanation_scores",
    "face_grid",
    "face_rows",
    "faces_by_class",
    "feature_maps",
    "group_accuracy",
    "head_overlap_figure",
    "landmark_predictions",
    "landmarks_on_face",
    "maps_in_rows",
    "matching_lines",
    "model_scores",
    "nearest_wrong_center",
    "negatives_in_plane",
    "negatives_strip",
    "new_figure",
    "outlined_faces",
    "panels_of_intervals",
    "per_class_recall",
    "perturbation_figure",
    "plane_of",
    "png",
    "randomization_figure",
    "recall_by_class",
    "reliability",
    "robustness_curves",
    "save",
    "scatter_against_margin",
    "score_differences",
    "show",
    "similarity_over_both",
    "styled",
    "training_curves",
    "umap_embedding",
    "weights_through_training",
]
