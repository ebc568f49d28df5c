"""Every plot of the book: functions that take arrays or tables and return a matplotlib `Figure`.

No pyplot and so no global state: a figure is freed when nobody holds it. `save` writes a file and `show`
displays in a notebook, both as PNGs with a palette, which are a fifth of the size and the same bytes each
time.
"""

from fer_lab.figures.charts import (
    ablation,
    bench_table_figure,
    confusion,
    embedding_map,
    head_overlap_figure,
    per_class_recall,
    reliability,
    training_curves,
    umap_embedding,
)
from fer_lab.figures.explanations import (
    explanation_grid,
    explanation_scores,
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
from fer_lab.figures.style import new_figure, png, save, show, styled

__all__ = [
    "ablation",
    "attention_overlay",
    "bench_table_figure",
    "class_counts",
    "confusion",
    "embedding_map",
    "explanation_grid",
    "explanation_scores",
    "face_grid",
    "face_rows",
    "faces_by_class",
    "feature_maps",
    "head_overlap_figure",
    "landmarks_on_face",
    "new_figure",
    "per_class_recall",
    "perturbation_figure",
    "png",
    "randomization_figure",
    "reliability",
    "save",
    "show",
    "styled",
    "training_curves",
    "umap_embedding",
]
