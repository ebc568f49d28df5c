"""What an executed notebook leaves: its outputs, its headline numbers, and one line of the book's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

HEADLINE = "application/vnd.fer-lab.headline+json"


@dataclass(frozen=True)
class NotebookResult:
    """One notebook, executed once."""

    notebook: str  # its stem ("02_dan"), and in a grid the values that distinguish it ("02_dan_seed1")
    title: str = ""
    seconds: float = 0.0  # wall time, from starting the kernel to its end
    headline: dict[str, Any] = field(default_factory=dict)  # the numbers it recorded by `headline`, by name
    figures: int = 0  # how many PNG pictures its outputs hold
    peak_mb: int = 0  # largest resident memory of the kernel in MB; 0 where the system does not report it
    error: str = ""  # "" or one line that says where the notebook stopped and why
    traceback: str = ""  # the whole traceback of a failed cell, without colours
    path: str = ""  # of the executed notebook
    page: str = ""  # path of its HTML page


def outputs(notebook: "NotebookNode") -> "list[NotebookNode]":
    """All outputs of all cells, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def format_numbers(numbers: Mapping[str, Any]) -> str:
    """`{"accuracy": 0.81234, "faces": 12}` → "accuracy 0.812 · faces 12"."""
    return " · ".join(
        f"{name.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in numbers.items()
    )


def format_timings(results: Sequence[NotebookResult], count: int = 15) -> str:
    """The slowest cells of executed notebooks, a line each: seconds, notebook, cell number, first line."""
    import nbformat

    rows = []
    for result in results:
        cells = nbformat.read(result.path, 4).cells if result.path else []
        for number, cell in enumerate(cells):
            seconds = cell.metadata.get("papermill", {}).get("duration") or 0
            rows.append((seconds, result.notebook, number, cell.source.partition("\n")[0][:60]))
    return "\n".join(
        f"{seconds:7.1f} s  {name}, cell {number}: {line}"
        for seconds, name, number, line in sorted(rows, reverse=True)[:count]
    )


def format_table(results: Sequence[NotebookResult]) -> str:
    """One line a notebook: name, seconds, memory, figures, headline numbers or what stopped it."""
    rows = [("notebook", "seconds", "MB", "figures", "headline numbers")]
    for r in results:
        numbers = f"FAILED in {r.error}" if r.error else format_numbers(r.headline)
        rows.append((r.notebook, f"{r.seconds:.1f}", str(r.peak_mb or ""), str(r.figures), numbers))
    seconds, figures = sum(r.seconds for r in results), sum(r.figures for r in results)
    rows.append(("total", f"{seconds:.1f}", "", str(figures), ""))
    width = max(len(row[0]) for row in rows)
    lines = (
        f"{name:<{width}}  {took:>7}  {mb:>5}  {count:>7}  {numbers}" for name, took, mb, count, numbers in rows
    )
    return "\n".join(line.rstrip() for line in lines)
