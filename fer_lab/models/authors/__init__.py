"""The authors' checkpoints into our models: recognised by their tensors' names, renamed, and loaded whole.

Each paper has a file with the names in its checkpoints; `trunks` has those of the trained networks from which
the papers start.
"""

from fer_lab.models.authors.conversion import convert, order_scores, start_from_trunk, start_from_weights
from fer_lab.models.authors.loading import LoadReport, load_official
