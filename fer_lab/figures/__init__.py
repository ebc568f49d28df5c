"""Every plot of the book: functions that take arrays or tables and return a matplotlib `Figure`.

The figures compute no model and no interval. Arrays, tables and titles that do not fit raise ValueError. They
use no pyplot state, so a figure is freed when nobody holds it. `save` writes a file and `show` displays in a
notebook, both as PNGs with a palette, which are a fifth of the size and the same bytes each time. What one
notebook draws is in the module of its name.
"""

from fer_lab.figures.charts import (
    Frame,
    ablation,
    bench_table_figure,
    class_counts,
    confusion,
    curves,
    curves_with_intervals,
    embedding_frames,
    group_accuracy,
    panels_of_intervals,
    training_curves,
    verdicts,
)
from fer_lab.figures.compare import accuracy_against_cost, learning_curves, recall_by_class
from fer_lab.figures.diagrams import method_diagram
from fer_lab.figures.explain import (
    causes_figure,
    explanation_grid,
    explanation_scores,
    mean_maps_figure,
    perturbation_figure,
    randomization_figure,
)
from fer_lab.figures.explorer import from_relaxed_to_smiling
from fer_lab.figures.faces import landmarks_on_face, two_colourings
from fer_lab.figures.pictures import attention_overlay, face_grid, face_rows, faces_by_class, maps_in_rows
from fer_lab.figures.poster import landmark_predictions, token_layouts
from fer_lab.figures.qcs import matching_lines, votes_on_a_face
from fer_lab.figures.scale_out import gradient_distances, growth, ring_rounds
from fer_lab.figures.style import png, save, show
from fer_lab.figures.triplet_center import negatives_in_plane, negatives_strip
