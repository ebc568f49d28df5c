"""fer_lab: a research workbook for facial expression recognition, and the package underneath.

The names in `__all__` are imported when they are first used, so `import fer_lab` does not wait for torch.
"""

from typing import TYPE_CHECKING

from fer_lab._lazy import when_asked

if TYPE_CHECKING:
    from fer_lab.data import load_faces
    from fer_lab.evaluation.metrics import evaluate, predict
    from fer_lab.explanation.attribution import explain
    from fer_lab.models import Recipe, create_model, list_models
    from fer_lab.runs.run import open_model
    from fer_lab.training.loop import fit

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "create_model",
    "evaluate",
    "explain",
    "fit",
    "list_models",
    "load_faces",
    "open_model",
    "predict",
]

__getattr__, __dir__ = when_asked(__name__, __file__)
