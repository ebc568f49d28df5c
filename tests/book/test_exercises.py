"""The exercises' answers: hidden in the cell where one types, and right."""

import copy
import json
import re
from itertools import pairwise
from math import log
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from fer_lab import intervals
from fer_lab.book import check_answer, hide_answer
from fer_lab.data import CANONICAL, ORDERS, from_canonical, prepare
from fer_lab.data.synthetic import NUMBERS, Identity, SyntheticFaces, render
from fer_lab.explorer import FaceState, draw_face
from fer_lab.intervals import binomial_interval
from fer_lab.models import dan, qcs, triplet_center
from fer_lab.runs import open_model

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
EMPTY = re.compile(r"^def \w+\(.*\):\n    return None\n", re.M)
HIDDEN = re.compile(r'check_answer\(.*, "(\w+):\w+"(?:, tolerance=([\d.]+))?\)\n?$')


def moved_landmarks():
    person = Identity.sample(1, seed=5)
    neutral, drawn = (render(units, person, size=224).landmarks[0] for units in ({}, {12: (0, 1), 1: 1, 2: 1}))
    return int(((drawn - neutral).norm(dim=1) > 2).nonzero().sum())


def most_surprising_unit():
    model = open_model("synthetic/dan")
    faces = torch.cat([draw_face(FaceState({unit: 1.0}, person=0)).images for unit in NUMBERS])
    with torch.no_grad():
        likely = model(prepare(faces, model.image_size, model.color_order)).softmax(1)
    return NUMBERS[int(likely[:, CANONICAL.index("surprise")].argmax())]


# What the folded solutions say, in the order of the hidden answers of each notebook.
SOLUTIONS = {
    "00_start_here": [1 / 7, CANONICAL.index(ORDERS["rafdb"][2]), 100 * 2 * 1.96 * (0.8 * 0.2 / 400) ** 0.5],
    "01_faces": [moved_landmarks, log(4) / log(4772 / 281), 0.9 * 0.8 + 0.1 * 0.2 / 6],
    "02_dan": [lambda: dan.partition_loss(torch.zeros(1, 4, 8)).item(), 0.5**2 / 0.38],
    "03_triplet_center": [0, 0.25 + 0.5 - 0.25, -0.5, 0.0 + 1 - 0.0],
    "04_poster": [100 * 196 // 1024, 3 / 4],
    "05_qcs": [0 / 1 + 3 / 13**0.5, (42 * 1 + 7 * 6) / 49],
    "06_compare": [80 - (735 - 720), (2 * 3) ** 2, (1 - 0.3) / (0.5 / 4**0.5), binomial_interval(20, 20)[0]],
    "07_explain": [-2 * (4 - 1), 4 * 1 + 2 * 0 + 1, 4 / 12 - 1 / 12],
    "08_explorer": [most_surprising_unit, (1.17 / 1.54 - 1) / 2, 2 / 5],
    "09_scale_out": [5**0.5 - 2, 1 / 0.05],
}


def code_cells(stem):
    cells = json.loads((NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("stem", SOLUTIONS)
def test_hidden_answers_are_those_of_the_solutions(stem, capsys):
    checks = [cell for cell in code_cells(stem) if HIDDEN.search(cell)]
    assert len(checks) == len(SOLUTIONS[stem])
    for cell, solution in zip(checks, SOLUTIONS[stem], strict=True):
        answer = solution() if callable(solution) else solution
        match = HIDDEN.search(cell)
        tolerance = float(match[2] or 1e-3)
        hidden = hide_answer(answer, tolerance=tolerance, salt=match[1])
        assert f'"{hidden}"' in cell, f"{cell} should have {hidden}"
        check_answer(answer, hidden, tolerance=tolerance)
        check_answer(answer + 2 * tolerance, hidden, tolerance=tolerance)
        right, wrong = capsys.readouterr().out.splitlines()
        assert right == "Right."
        assert wrong.startswith("Not yet: ")


def written(stem):
    """Cells that leave a function to the reader, each with the solution folded below it."""
    cells = json.loads((NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    for cell, below in pairwise(cells):
        source, text = ("".join(one["source"]) for one in (cell, below))
        if cell["cell_type"] == "code" and EMPTY.search(source) and "check_answer(" in source:
            yield source, re.search(r"```python\n(.*?)```", text, re.S)[1]


# What these cells take from further up in their notebooks.
WITHIN = {
    "copy": copy,
    "torch": torch,
    "F": torch.nn.functional,
    "pd": pd,
    "seed": 0,
    "binomtest": binomtest,
    "check_answer": check_answer,
    "SyntheticFaces": SyntheticFaces,
    "ORDERS": ORDERS,
    "from_canonical": from_canonical,
    "intervals": intervals,
    "qcs": qcs,
    "triplet_center": triplet_center,
    "my_evidence": lambda table: (table / table.norm(dim=2, keepdim=True)).sum(1),
}


# What the notebook's own faces are needed for.
NEEDS_ITS_NOTEBOOK = re.compile(r"\b(predictions|errors|faces\.|baseline|falls|x\[|explanation)\b")


@pytest.mark.parametrize("stem", SOLUTIONS)
def test_the_functions_of_the_solutions_are_right_and_the_empty_ones_are_not(stem, capsys):
    cells, within = list(written(stem)), dict(WITHIN)
    assert len(cells) >= (1 if stem in ("01_faces", "08_explorer") else 2)  # these two ask for other code, too
    for source, solution in cells:
        if NEEDS_ITS_NOTEBOOK.search(source):
            continue
        exec(source, within)
        assert capsys.readouterr().out.startswith("Your turn")
        exec(EMPTY.sub(lambda _match, text=solution: text, source), within)
        assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize("stem", SOLUTIONS)
def test_no_cell_in_which_one_types_a_number_shows_it(stem):
    typed = [cell for cell in code_cells(stem) if re.search(r"^answer = ", cell, re.M)]
    assert [cell for cell in typed if not HIDDEN.search(cell)] == []
