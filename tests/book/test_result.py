"""The book's table: one line a notebook."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fer_lab.book.result import NotebookResult, format_table, format_timings


def test_table():
    results = [
        NotebookResult("00_start", seconds=1.26, headline={"accuracy": 0.5}, figures=2, peak_mb=812),
        NotebookResult("02_dan", seconds=10, figures=3, error="cell 2 of 9: ValueError: no"),
    ]
    assert format_table(results).splitlines() == [
        "notebook  seconds     MB  figures  headline numbers",
        "00_start      1.3    812        2  accuracy 0.5",
        "02_dan       10.0               3  FAILED in cell 2 of 9: ValueError: no",
        "total        11.3               5",
    ]


def test_the_slowest_cells_come_first(tmp_path):
    cells = [
        new_code_cell("first = 1\nmore", metadata={"papermill": {"duration": 0.25}}),
        new_markdown_cell("text"),
    ]
    cells.append(new_code_cell("second = 2", metadata={"papermill": {"duration": 3.0}}))
    nbformat.write(new_notebook(cells=cells), tmp_path / "02_dan.ipynb")
    results = [NotebookResult("02_dan", path=str(tmp_path / "02_dan.ipynb")), NotebookResult("03_lost")]
    assert format_timings(results, 2).splitlines() == [
        "    3.0 s  02_dan, cell 2: second = 2",
        "    0.2 s  02_dan, cell 0: first = 1",
    ]
