"""A short training and a short book, for tests that break them off."""

from pathlib import Path

import nbformat
import torch

from fer_lab.data.augmentation import Augmentation
from fer_lab.models import Recipe, create_model

RECIPE = Recipe(
    epochs=4, batch_size=16, lr=0.05, schedule="one_cycle", augmentation=Augmentation(flip=0.5, erasing_p=0.5)
)
PARAMETERS = 'profile = "smoke"\ndataset = "synthetic"\ndata_root = ""\nseed = 0\nrun_dir = ""'


def small():
    torch.manual_seed(0)
    return create_model("small", 3)


def write_shelf(folder: Path) -> Path:
    """Two notebooks that take a second each."""
    folder.mkdir()
    for stem in ("00_a", "01_b"):
        parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        work = nbformat.v4.new_code_cell("import time\ntime.sleep(1)\nprint('done', seed)")
        title = nbformat.v4.new_markdown_cell(f"# {stem}")
        nbformat.write(nbformat.v4.new_notebook(cells=[title, parameters, work]), folder / f"{stem}.ipynb")
    return folder
