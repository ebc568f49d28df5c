"""Markdown tables made from the results store, so that no number in README or docs is typed.

In a text, the lines between `<!-- results: NAME -->` and `<!-- end -->` are replaced by the table of that name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from fer_lab.experiments.claims import judge
from fer_lab.experiments.request import Training
from fer_lab.models.method import TITLES, create_model, list_models
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import SHARES

# Written by `fer-lab bench models --csv FILE`, in the folder of the store.
SPEED, COMPILED = "speed.csv", "compiled.csv"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def in_percent(mean: float, low: float, high: float) -> str:
    """`84.6 [83.3, 85.8]` for shares. Student's t ignores that shares end at 0 and 100 %, so cut there."""
    if pd.isna(low):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} [{100 * max(0.0, low):.1f}, {100 * min(1.0, high):.1f}]"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |") for cells in lines)


def parameter_count(request: str, num_classes: int) -> int:
    """Parameters of the model that a recorded request trains."""
    training = Training.from_json(request)
    model = create_model(training.model, num_classes, training.size, **training.options)
    return sum(p.numel() for p in model.parameters())


def comparison(store: ResultsStore, dataset: str, split: str, num_classes: int) -> str:
    """Markdown: a row for every method and variant that was trained on a data set, in the book's order."""
    by = ("method", "size", "variant")
    where: dict[str, Any] = {"dataset": dataset, "split": split}
    accuracy, recall = (
        store.table(metric, by=by, **where).set_index(list(by)) for metric in ("accuracy", "mean_class_recall")
    )
    runs = store.rows(**where)
    order = {name: i for i, name in enumerate(list_models())}
    rows = []
    for group, part in sorted(runs.groupby(list(by)), key=lambda item: (order[item[0][0]], *item[0][1:])):
        method, size, variant = group
        if variant == "trunk":
            continue
        count = parameter_count(part["request"].iloc[0], num_classes) / 1e6
        rows.append(
            [
                f"{TITLES.get(method, method)} `{size}`",
                variant,
                f"{count:.2f} M",
                len(part),
                *(in_percent(*table.loc[group, ["mean", "low", "high"]]) for table in (accuracy, recall)),
                f"{part['minutes'].mean():.1f}",
            ]
        )
    heads = ["method", "variant", "parameters", "seeds", "accuracy, %", "mean class recall, %", "minutes a run"]
    return markdown(heads, rows)


def claims(judged: pd.DataFrame) -> str:
    """Markdown: a row a claim with its difference, intervals and verdict.

    Args:
        judged: what `claims.judge` gives.
    """
    rows = [
        [
            row.hypothesis,
            row.metric.replace("_", " ") + (", points" if SHARES.fullmatch(row.metric) else ""),
            f"{_signed(row.metric, row.difference)} {_signed(row.metric, row.low, row.high)}".strip(),
            _signed(row.metric, row.crossed_low, row.crossed_high),
            f"{row.seeds} of {row.planned}",
            "" if pd.isna(row.adjusted_p) else f"{row.adjusted_p:.2g}",
            _signed(row.metric, row.smallest_effect).lstrip("+"),
            "" if pd.isna(row.cost) else f"{row.cost:.2f}×",
            f"**{row.verdict}**",
        ]
        for row in judged.itertuples()
    ]
    heads = (
        *("hypothesis, before the runs", "metric", "difference, other seeds", "other seeds and faces", "seeds"),
        *("adjusted p", "smallest effect", "operations", "verdict"),
    )
    return markdown(heads, rows)


def _signed(metric: str, *values: float) -> str:
    """`+0.48`, or `[-0.10, +0.20]` for two values; shares in points, "" for NaN."""
    share = SHARES.fullmatch(metric)
    texts = [f"{100 * value:+.2f}" if share else f"{value:+.3f}" for value in values]
    if any(map(pd.isna, values)):
        return ""
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def speed(table: pd.DataFrame) -> str:
    """Markdown: images a second and how many times those of plain fp32, a row for every model and size.

    Args:
        table: what `bench.bench_models` measures, with both modes and both paths.
    """

    def cells(row: pd.DataFrame, mode: str) -> list[str]:
        plain, default = (row.loc[(mode, path), "images_per_s"] for path in ("plain", "default"))
        return [_rate(plain), f"{_rate(default)} ({default / plain:.1f}×)"]

    def cost(row: pd.DataFrame) -> list[str]:
        act = row.loc[("inference", "plain")]
        return [f"{act.parameters_m:.2f} M", f"{act.gflop_per_image:.2f}"]

    heads = ("parameters", "GFLOP an image", "training, plain", "default", "inference, plain", "default")
    return _measured(table, heads, cells, cost)


def compiled(table: pd.DataFrame) -> str:
    """Markdown: what torch.compile gains and how long its first step takes, a row for every model and size.

    Args:
        table: what `bench.bench_models` measures, with both modes and the paths default and compiled.
    """

    def cells(row: pd.DataFrame, mode: str) -> list[str]:
        default, fast = (row.loc[(mode, path), "images_per_s"] for path in ("default", "compiled"))
        first = row.loc[(mode, "compiled"), "first_step_s"]
        return [_rate(default), f"{_rate(fast)} ({fast / default:.2f}×)", f"{first:.0f} s"]

    heads = ("training, default", "compiled", "first step", "inference, default", "compiled", "first step")
    return _measured(table, heads, cells)


def _measured(
    table: pd.DataFrame, heads: Sequence[str], cells: Callable, before: Callable = lambda row: ()
) -> str:
    """Markdown: a row a model and size, with the cells of training and inference after those of `before`."""
    rows = []
    for (model, size), part in table.groupby(["model", "size"], sort=False):
        row = part.set_index(["mode", "path"])
        rows.append([f"{TITLES[model]} `{size}`", *before(row), *cells(row, "train"), *cells(row, "inference")])
    return markdown(["", *heads], rows)


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.{0 if images_per_s >= 20 else 1}f}"


def tables(store: ResultsStore) -> dict[str, str]:
    """All tables that a text can name, by name."""
    return {
        "ferplus": comparison(store, "ferplus", "valid", 8),
        **{
            f"claims_{family.lower().replace(' ', '_')}": claims(part)
            for family, part in judge(store).groupby("family", sort=False)
        },
        **{
            name.removesuffix(".csv"): make(pd.read_csv(store.folder / name))
            for name, make in ((SPEED, speed), (COMPILED, compiled))
            if (store.folder / name).exists()
        },
    }


def fill(text: str, made: Mapping[str, str]) -> str:
    """A text with its tables replaced by those of today's store.

    Raises:
        ValueError: the text names a table that is not in `made`.
    """

    def table(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise ValueError(f"no table {match[2]!r}; there are {', '.join(made)}")
        return f"{match[1]}{made[match[2]]}\n{match[3]}"

    return BLOCK.sub(table, text)
