"""What a training leaves behind: the folder of its run, its predictions, and rows in the results store."""

from typing import TYPE_CHECKING

from fer_lab._lazy import when_asked
from fer_lab.runs.environment import environment, portable_command
from fer_lab.runs.predictions import Predictions
from fer_lab.runs.run import Run, open_model, weights_file

if TYPE_CHECKING:
    from fer_lab.runs.store import Difference, ResultsStore, results_folder

__getattr__, __dir__ = when_asked(__name__, __file__)
