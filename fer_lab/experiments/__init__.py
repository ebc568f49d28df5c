"""Every training behind a table or figure, and how it is run.

A module with a notebook's stem has that notebook's trainings as functions; each returns typed requests by name.
`train` runs one, and `train_missing` runs those that a results store lacks. `judge` gives the verdicts of
what the book claims.
"""

from fer_lab.experiments import compare, dan, explain, ferplus, landmarks, poster, qcs, transfer, triplet_center
from fer_lab.experiments.claims import judge, of_family
from fer_lab.experiments.request import Training
from fer_lab.experiments.training import Trained, train, train_missing
