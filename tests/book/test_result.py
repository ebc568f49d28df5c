"""The book's table: one line a notebook."""

from fer_lab.book.result import NotebookResult, format_table


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
