"""Measuring trained models: metrics with intervals, models against each other, harder faces, embeddings."""

from fer_lab.evaluation.comparison import accuracy_by_group, compare, differences
from fer_lab.evaluation.embeddings import plane_of, separation, umap_embedding, within_between_scatter
from fer_lab.evaluation.metrics import confusion_matrix, evaluate, overall, predict, rare_classes
from fer_lab.evaluation.robustness import accuracy_by_knob, accuracy_by_resolution
