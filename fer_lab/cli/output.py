"""What the commands print and write: lines, tables, measures with their intervals."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd


def say(*lines: object, err: bool = False) -> None:
    """Print lines. Everything that goes to the terminal passes here."""
    for line in lines:
        typer.echo(shown(line), err=err)


def shown(line: object) -> str:
    """A line in which every character that a terminal would obey is written as its escape.

    Names of files, runs and classes come from others, and half a character of a file's name cannot be printed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(line))


def fail(message: str, code: int) -> None:
    say(f"fer-lab: {' '.join(message.split())}", err=True)
    sys.exit(code)


def save_table(table: "pd.DataFrame", csv: Path | None, json: Path | None, **facts: Any) -> None:
    """Write a table as CSV where asked for, and as JSON with some facts beside its rows; NaN becomes null."""
    from fer_lab._files import write_csv, write_json

    if csv:
        write_csv(csv, table)
    if json:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        write_json(json, {**facts, "rows": rows})
    for path in filter(None, (csv, json)):
        say(f"written to {path}")


def print_table(table: "pd.DataFrame", csv: Path | None, figure: Path | None = None, draw: str = "") -> None:
    say(*table.to_string(index=False, float_format=lambda number: f"{number:.4g}").split("\n"))
    save_table(table, csv, None)
    if figure:
        from fer_lab import figures

        say(f"drawn in {figures.save(getattr(figures, draw)(table), figure)}")


# What the numbers that are no plain scores mean.
MEANINGS = {
    "ece": "calibration error",
    "within_between": "spread within classes ÷ between",
    "nearest_center_margin": "margin to the nearest other center",
    "class_scatter": "spread of a class",
    "silhouette": "silhouette, −1 to 1",
}


def format_metrics(metrics: "pd.DataFrame") -> list[str]:
    """Overall numbers, recall by class, measures of the embedding: a line each with its 95 % interval."""
    lines = []
    for row in metrics.to_dict("records"):
        if row["class"] and row["metric"] != "recall":
            continue
        name = MEANINGS.get(row["metric"], f"{row['metric'].replace('_', ' ')} {row['class']}".strip())
        interval = f"  [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else ""
        value = f"{row['value']:.3f}{interval}" if row["value"] == row["value"] else "no face of this class"
        lines.append(f"{name:<35} {value}")
    return lines
