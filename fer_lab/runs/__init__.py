"""Runs: the folder of one training, the files that models travel in, and the results store."""

from fer_lab._files import DiskFullError, RunBusyError, atomic_path
from fer_lab.intervals import seed_interval
from fer_lab.models.weights import CheckpointError, load_model, load_weights, model_card, read_card, save_model
from fer_lab.runs.environment import environment, portable_command
from fer_lab.runs.predictions import Predictions
from fer_lab.runs.run import Run
from fer_lab.runs.store import ResultsStore

__all__ = [
    "CheckpointError",
    "DiskFullError",
    "Predictions",
    "ResultsStore",
    "Run",
    "RunBusyError",
    "atomic_path",
    "environment",
    "load_model",
    "load_weights",
    "model_card",
    "portable_command",
    "read_card",
    "save_model",
    "seed_interval",
]
