"""Training a method: the loop, the state that it moves, one step, and a batch that fits into memory."""

from fer_lab.training.loop import fit
from fer_lab.training.memory import BatchTooLargeError
from fer_lab.training.steps import TrainingDivergedError
