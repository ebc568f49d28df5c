"""fer_lab: a research workbook for facial expression recognition, and the package underneath.

The names in `__all__` are imported when they are first used, so `import fer_lab` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_lab.data import load_faces
    from fer_lab.evaluation.metrics import evaluate, predict
    from fer_lab.explanation.attribution import explain
    from fer_lab.models import Recipe, create_model, list_models
    from fer_lab.runs.run import open_model
    from fer_lab.training.loop import fit

__version__ = "0.1.0"

_MODULES = {
    "load_faces": "fer_lab.data",
    "create_model": "fer_lab.models",
    "list_models": "fer_lab.models",
    "open_model": "fer_lab.runs.run",
    "Recipe": "fer_lab.models",
    "fit": "fer_lab.training.loop",
    "predict": "fer_lab.evaluation.metrics",
    "evaluate": "fer_lab.evaluation.metrics",
    "explain": "fer_lab.explanation.attribution",
}

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fer_lab' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
