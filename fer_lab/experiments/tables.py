"""README's tables, made from the results store: no number in them is typed.

In a text, what stands between `<!-- results: NAME -->` and `<!-- end -->` is one of `tables`.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fer_lab.experiments.training import literal
from fer_lab.intervals import seed_interval
from fer_lab.models import create_model
from fer_lab.models.method import list_models
from fer_lab.runs import ResultsStore, Run
from fer_lab.runs.store import over_seeds

NAMES = {
    "baseline": "ResNet-18",
    "dan": "DAN",
    "triplet_center": "triplet-center",
    "poster": "POSTER",
    "dcs": "DCS",
    "qcs": "QCS",
}
# RAF-DB's three rarest classes, and the renderer's at the same imbalance.
RARE = ("anger", "disgust", "fear")
# What `fer-lab bench models --csv FILE` wrote, in the folder of the store.
SPEED, COMPILED = "speed.csv", "compiled.csv"
# What of a recipe a search turns; the rest stands in the command.
SEARCHED = ("epochs", "epoch_fraction", "batch_size", "optimizer", "lr", "weight_decay")
SEARCHED += ("ema_decay", "sam_rho", "soft_targets")
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def in_percent(mean: float, low: float, high: float) -> str:
    """`84.6 [83.3, 85.8]` of shares; Student's t knows no 100 %, so the interval is cut there."""
    if pd.isna(low):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} [{100 * max(0.0, low):.1f}, {100 * min(1.0, high):.1f}]"


def parameter_count(command: str, num_classes: int) -> int:
    """Parameters of the model that a recorded command trains."""
    words = shlex.split(command)
    chosen = [value for flag, value in itertools.pairwise(words) if flag == "--option"]
    options = {name: literal(value) for name, _, value in (word.partition("=") for word in chosen)}
    model = create_model(words[2], num_classes, words[words.index("--size") + 1], **options)
    return sum(p.numel() for p in model.parameters())


def interval(store: ResultsStore, ids: Sequence[str], metric: str) -> tuple[float, float, float]:
    """A metric over runs: the mean over seeds with its interval, or one run's with that over its faces."""
    table = store.metrics()
    rows = table[table["id"].isin(ids) & (table["metric"] == metric) & (table["class"].fillna("") == "")]
    if len(rows) == 1:
        return tuple(rows.iloc[0][["value", "low", "high"]])
    return seed_interval(rows["value"])


def comparison(store: ResultsStore, dataset: str, split: str, num_classes: int) -> str:
    """Markdown: a row for every method and variant that was trained on a data set, in the book's order."""
    runs = store.runs()
    runs = runs[(runs["dataset"] == dataset) & (runs["split"] == split) & (runs["variant"] != "trunk")]
    lines = [
        "| method | variant | parameters | seeds | accuracy, % | mean class recall, % | minutes a run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = {name: i for i, name in enumerate(list_models())}
    groups = sorted(runs.groupby(["method", "size", "variant"]), key=lambda g: (order[g[0][0]], *g[0][1:]))
    for (method, size, variant), part in groups:
        count = parameter_count(part["command"].iloc[0], num_classes) / 1e6
        cells = [
            f"{NAMES.get(method, method)} `{size}`",
            variant,
            f"{count:.2f} M",
            len(part),
            in_percent(*interval(store, part["id"], "accuracy")),
            in_percent(*interval(store, part["id"], "mean_class_recall")),
            f"{part['minutes'].mean():.1f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def comparison_frame(store: ResultsStore, dataset: str, variant: str | None) -> pd.DataFrame:
    """Accuracy of every method on a data set, over the seeds that the store has of a variant.

    Args:
        variant: such as "same budget"; None is all, each named beside its method.

    Returns:
        A row a method in the book's order: method, seeds, value, low, high; for one seed the interval is the
        bootstrap's over faces.
    """
    runs = store.runs()
    runs = runs[(runs["dataset"] == dataset) & (runs["variant"] != "trunk")]
    runs = runs if variant is None else runs[runs["variant"] == variant]
    order, rows = {name: i for i, name in enumerate(list_models())}, []
    for (method, kind), part in runs.groupby(["method", "variant"]):
        value, low, high = interval(store, part["id"], "accuracy")
        name = NAMES.get(method, method) + ("" if variant else f", {kind}")
        row = {"method": name, "seeds": len(part), "value": value, "low": low, "high": high}
        rows.append((order.get(method, len(order)), kind, row))
    columns = ["method", "seeds", "value", "low", "high"]
    return pd.DataFrame([row for *_, row in sorted(rows, key=lambda r: r[:2])], columns=columns)


def comparison_variants(
    store: ResultsStore, dataset: str, variants: Sequence[str], methods: Sequence[str], metric: str = "accuracy"
) -> pd.DataFrame:
    """A metric of variants of some methods, in the order given: label, seeds, value, low, high.

    Variants that the store does not have are left out.
    """
    runs = store.runs()
    runs = runs[(runs["dataset"] == dataset) & runs["method"].isin(methods)]
    rows = []
    for variant in variants:
        ids = runs[runs["variant"] == variant]["id"]
        if len(ids):
            value, low, high = interval(store, ids, metric)
            rows.append({"label": variant, "seeds": len(ids), "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def imbalance(store: ResultsStore, rare: Sequence[str] = RARE) -> str:
    """Markdown: recall of the rare classes on balanced faces, a row a loss, a column an imbalance of training.

    Recorded variants are named "LOSS, imbalance LEVEL"; the order is that of their first appearance.
    """
    rows = {}
    found = over_seeds(store, "recall", rare, by=("variant", "split"))
    for row in found[found["split"] == "balanced"].itertuples():
        loss, mark, level = row.variant.rpartition(", imbalance ")
        if mark:
            rows.setdefault(loss, {})[float(level)] = in_percent(row.mean, row.low, row.high)
    levels = sorted({level for cells in rows.values() for level in cells})
    lines = [
        f"| loss | {' | '.join(f'imbalance {level:g}' for level in levels)} |",
        f"| --- |{' --- |' * len(levels)}",
    ]
    order = list(dict.fromkeys(store.runs()["variant"].str.rpartition(", imbalance ")[0]))
    for loss in sorted(rows, key=lambda name: (name != "CE", name != "center", order.index(name))):
        lines.append(f"| {loss} | {' | '.join(rows[loss].get(level, '–') for level in levels)} |")
    return "\n".join(lines)


def tried(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Runs side by side, by the accuracy on the held-out part of their training faces after the last epoch.

    Returns:
        A row a run: method, seed, the fields `SEARCHED` of its recipe, epochs_done (fewer than `epochs` where
        it was stopped), holdout_accuracy, minutes, command.

    Raises:
        ValueError: a folder without a run, or one without a finished epoch.
    """
    rows = []
    for folder in folders:
        run = Run(folder)
        config, history = run.config, run.history
        if "recipe" not in config or history.empty:
            raise ValueError(f"{folder} has no run with a finished epoch")
        recipe = config["recipe"]
        row = {"method": config["method"], "seed": recipe["seed"], **{name: recipe[name] for name in SEARCHED}}
        row |= {"epochs_done": len(history), "holdout_accuracy": round(history["valid_accuracy"].iloc[-1], 4)}
        row |= {"minutes": round(history["seconds"].sum() / 60, 1), "command": config["command"]}
        rows.append(row)
    return pd.DataFrame(rows)


def speed(table: pd.DataFrame) -> str:
    """Markdown: images a second and how many times those of plain fp32, a row for every model and size.

    Args:
        table: what `bench.bench_models` measures, with both modes and both paths.
    """

    def cells(row, mode):
        plain, default = (row.loc[(mode, path), "images_per_s"] for path in ("plain", "default"))
        return [_rate(plain), f"{_rate(default)} ({default / plain:.1f}×)"]

    def cost(row):
        act = row.loc[("inference", "plain")]
        return [f"{act.parameters_m:.2f} M", f"{act.gflop_per_image:.2f}"]

    heads = ("parameters", "GFLOP an image", "training, plain", "default", "inference, plain", "default")
    return _measured(table, heads, cells, cost)


def compiled(table: pd.DataFrame) -> str:
    """Markdown: what torch.compile gains and how long it takes to begin with, a row for every model and size.

    Args:
        table: what `bench.bench_models` measures, with both modes and the paths default and compiled.
    """

    def cells(row, mode):
        default, fast = (row.loc[(mode, path), "images_per_s"] for path in ("default", "compiled"))
        first = row.loc[(mode, "compiled"), "first_step_s"]
        return [_rate(default), f"{_rate(fast)} ({fast / default:.2f}×)", f"{first:.0f} s"]

    heads = ("training, default", "compiled", "first step", "inference, default", "compiled", "first step")
    return _measured(table, heads, cells)


def _measured(
    table: pd.DataFrame, heads: Sequence[str], cells: Callable, before: Callable = lambda row: ()
) -> str:
    """Markdown: a row a model and size; what stands first, then what training and inference give."""
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for (model, size), rows in table.groupby(["model", "size"], sort=False):
        row = rows.set_index(["mode", "path"])
        found = [*before(row), *cells(row, "train"), *cells(row, "inference")]
        lines.append(f"| {NAMES[model]} `{size}` | {' | '.join(found)} |")
    return "\n".join(lines)


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.{0 if images_per_s >= 20 else 1}f}"


def tables(store: ResultsStore) -> dict[str, str]:
    """All tables that a text can name."""
    return {
        "ferplus": comparison(store, "ferplus", "valid", 8),
        "rendered": comparison(store, "synthetic", "test", 7),
        "imbalance": imbalance(store),
        **{
            name.removesuffix(".csv"): make(pd.read_csv(store.folder / name))
            for name, make in ((SPEED, speed), (COMPILED, compiled))
            if (store.folder / name).exists()
        },
    }


def fill(text: str, made: Mapping[str, str]) -> str:
    """A text with its tables made anew.

    Raises:
        ValueError: a table that nobody makes.
    """

    def table(match: re.Match) -> str:
        if match[2] not in made:
            raise ValueError(f"no table {match[2]!r}; there are {', '.join(made)}")
        return f"{match[1]}{made[match[2]]}\n{match[3]}"

    return BLOCK.sub(table, text)
