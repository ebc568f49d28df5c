"""Markdown tables made from the results store, so that no number in README or docs is typed.

In a text, the lines between `<!-- results: NAME -->` and `<!-- end -->` are replaced by the table of that name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_lab.data.requests import SYNTHETIC
from fer_lab.experiments import transfer
from fer_lab.experiments.claims import judge
from fer_lab.experiments.ferplus import FACE_TRUNK, face_trunk
from fer_lab.experiments.request import DIGEST, Training
from fer_lab.intervals import crossed_interval
from fer_lab.models.method import TITLES, create_model, list_models
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import SHARES

# Written by `fer-lab bench models --csv FILE`, in the folder of the store; the paths that each compares.
SPEEDS = {"speed.csv": ("plain", "default"), "compiled.csv": ("default", "compiled")}
# What README shows: of each paper its method against what it grew from, and what its parts are for; a taught
# map; and on FER+ the last recipe of each method.
ASKED = (
    *("affinity-compactness", "partition-overlap", "dan-accuracy"),
    *("semi-compactness", "semi-rare-recall", "both-attentions"),
    *("landmarks-accuracy", "poster-accuracy"),
    *("qcs-map", "qcs-accuracy"),
    "taught-dan-accuracy",
)
RECIPES = (
    *("from scratch, 45 epochs", "from ResNet-18's trunk", "semi, from ResNet-18's trunk"),
    *("from scratch, both streams learned", "from POSTER's trunk, 3 epochs"),
)
# Accuracy in per cent on the test faces, by the papers; the authors' code keeps the best epoch on them.
PUBLISHED = {
    "ferplus": {"poster": 91.62, "dcs": 91.41, "qcs": 91.41},
    "rafdb": {"dan": 89.70, "poster": 92.05, "dcs": 92.57, "qcs": 92.50},
}
SHARES_SHOWN = {"accuracy": "accuracy, %", "mean_class_recall": "mean class recall, %"}
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


def comparison(store: ResultsStore, dataset: str, split: str, num_classes: int, **more: Any) -> str:
    """Markdown: a row for every method and variant that was trained on a data set, in the book's order.

    Intervals are for other seeds and other faces, those of a single seed for other faces. `more`: conditions as
    in `ResultsStore.rows`.
    """
    rows = []
    for title, variant, asked, part in _trained(store, dataset=dataset, split=split, **more):
        model = create_model(asked.model, num_classes, asked.size, **asked.options)
        parameters = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"
        recipe = asked.chosen_recipe()
        cells = [_over_seeds(store, part, name) for name in SHARES_SHOWN]
        minutes = f"{part['minutes'].mean():.1f}"
        epochs = f"{recipe.epochs * recipe.epoch_fraction:g}"
        rows.append([title, variant, parameters, epochs, len(part), *cells, minutes])
    heads = ["method", "variant", "parameters", "epochs", "seeds", *SHARES_SHOWN.values(), "minutes a run"]
    return markdown(heads, rows)


def board(store: ResultsStore, dataset: str, split: str) -> str:
    """Markdown: what was published, what the store has, and what two habits would add to that, in points.

    A row for every method and variant. One habit is to report the best of the seeds. The other is to report the
    epoch that is best on the very faces that are measured; what that adds is found on held-out training faces,
    for which every epoch is on record.
    """
    rows = []
    for title, variant, asked, part in _trained(store, dataset=dataset, split=split):
        published = PUBLISHED.get(dataset, {}).get(asked.model)
        scores = store.table("accuracy", by=["seed"], id=list(part["id"]))["mean"]
        curves = store.curves(Training.from_json(text) for text in part["request"])
        by_seed = curves.groupby("seed")["holdout_accuracy"]
        rows.append(
            [
                *(title, variant, ", ".join(_seen(asked)), "" if published is None else f"{published:.2f}"),
                *(len(part), _over_seeds(store, part, "accuracy")),
                f"+{100 * (scores.max() - scores.mean()):.1f}" if len(scores) > 1 else "",
                f"+{100 * (by_seed.max() - by_seed.last()).mean():.1f}" if len(curves) else "",
            ]
        )
    heads = ("method", "variant", "learned from", "published", "seeds", "here: last epoch, mean, %")
    return markdown((*heads, "the best seed adds", "the best epoch adds"), rows)


def drawings_alone(store: ResultsStore) -> str:
    """Markdown: networks that learned from rendered faces alone, on drawings and on photographs."""
    rows: list[list[object]] = []
    asked: dict[str, Any] = {"of": transfer.study(), "variant": transfer.ALONE}
    for title, end in (("drawings of other people", ""), ("FER+", "_on_ferplus"), ("London set", "_on_london")):
        tables = [store.table(f"{metric}{end}", **asked) for metric in SHARES_SHOWN]
        if len(tables[0]):
            shares = [in_percent(*table.iloc[0][["mean", "low", "high"]]) for table in tables]
            rows.append([title, tables[0]["seeds"].iloc[0], *shares])
    return markdown(["measured on", "seeds", *SHARES_SHOWN.values()], rows)


def _trained(store: ResultsStore, **where: Any) -> list[tuple[str, str, Training, pd.DataFrame]]:
    """Title, variant, request and runs of all seeds of every method and variant, in the book's order."""
    order, found = [*list_models()], []
    for (method, size, variant), part in store.rows(**where).groupby(["method", "size", "variant"]):
        if variant != "trunk":
            asked = Training.from_json(part["request"].iloc[0])
            trunk = asked.options.get("trunk")
            title = TITLES.get(method, method) if trunk is None else f"{TITLES.get(method, method)} on {trunk}"
            if trunk and method == "baseline":
                title = f"{trunk} and one linear layer"
            found.append((f"{title} `{size}`", variant, asked, part))
    # A method of somebody else's comes last.
    return sorted(found, key=lambda row: [*order, row[2].model].index(row[2].model))


def _seen(asked: Training) -> list[str]:
    """The data sets that a training and all that it starts from have learned from."""
    names = [asked.faces.dataset]
    for start in filter(None, (asked.trunk, asked.weights)):
        if isinstance(start, Training):
            names += _seen(start)
        elif start == FACE_TRUNK:
            names.append("VGGFace2")
        else:  # a bundled model's name begins with its data set, a file's name is all there is
            names.append(str(start).partition(DIGEST)[0].partition("/")[0])
    if asked.model == "poster" and asked.options.get("landmark_stream") != "none":
        names.append(SYNTHETIC)
    return list(dict.fromkeys(names))


def _over_seeds(store: ResultsStore, part: pd.DataFrame, metric: str) -> str:
    """A share's mean over runs, with the interval for other seeds and faces; of one run for other faces."""
    ends = store.table(metric, by=["method"], id=list(part["id"])).iloc[0][["mean", "low", "high"]]
    if len(part) > 1:
        ends[["low", "high"]] = crossed_interval(_scores(store, part["id"], metric))[1:]
    return in_percent(*ends)


def _scores(store: ResultsStore, ids: Iterable[str], metric: str) -> np.ndarray:
    """A number a seed and face [S,N] whose mean is the metric: right or not, times its class's weight."""
    answers = [store.answers(name) for name in ids]
    right = np.stack([one.predicted == one.labels for one in answers]).astype(float)
    if metric == "mean_class_recall":
        labels = answers[0].labels
        counts = np.bincount(labels)
        right *= (len(labels) / np.count_nonzero(counts) / counts.clip(1))[labels]
    return right


def verdicts(judged: pd.DataFrame) -> str:
    """Markdown: hypothesis, difference over seeds and verdict of the claims of `ASKED` that were judged."""
    rows = []
    for row in judged.set_index("claim").reindex(ASKED).dropna(subset=["hypothesis"]).itertuples():
        found = f"{_signed(row.metric, row.difference)} {_signed(row.metric, row.low, row.high)}"
        unit = " points" if SHARES.fullmatch(row.metric) else ""
        rows.append((row.family, row.hypothesis, found + unit, f"**{row.verdict}**"))
    return markdown(("", "hypothesis, before the runs", "difference over the seeds", "verdict"), rows)


def claims(judged: pd.DataFrame) -> str:
    """Markdown: a row for each claim that `claims.judge` judged, with its difference, intervals and verdict."""
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


def speed(table: pd.DataFrame, slow: str = "plain", fast: str = "default") -> str:
    """Markdown: images a second on two paths and what the faster one gains, a row for every model and size.

    `table` is measured by `bench.bench_models` in both modes. The path "compiled" also gets the seconds of its
    first step, other paths the cost of the model.
    """
    waits = fast == "compiled"
    heads = ["", *(() if waits else ("parameters", "GFLOP an image"))]
    for mode in ("training", "inference"):
        heads += [f"{mode}, {slow}", fast, *(["first step"] if waits else [])]
    rows = []
    for (model, size), part in table.groupby(["model", "size"], sort=False):
        of = part.set_index(["mode", "path"])
        row = [f"{TITLES[model]} `{size}`"]
        if not waits:
            cost = of.loc[("inference", slow)]
            row += [f"{cost.parameters_m:.2f} M", f"{cost.gflop_per_image:.2f}"]
        for mode in ("train", "inference"):
            before, after = (of.loc[(mode, path), "images_per_s"] for path in (slow, fast))
            gain = f"{after / before:.{2 if waits else 1}f}×"
            row += [_rate(before), f"{_rate(after)} ({gain})"]
            row += [f"{of.loc[(mode, fast), 'first_step_s']:.0f} s"] if waits else []
        rows.append(row)
    return markdown(heads, rows)


def onnx(table: pd.DataFrame) -> str:
    """Markdown: ONNX Runtime's difference from PyTorch and both speeds, from `bench.bench_onnx`."""
    heads = ("", "largest difference", "PyTorch", "PyTorch, folded", "ONNX Runtime")
    rows = []
    for row in table.itertuples():
        speeds = (_rate(row.plain), _rate(row.folded), f"{_rate(row.onnx)} ({row.onnx / row.folded:.1f}×)")
        rows.append((f"{TITLES[row.model]} `{row.size}`", f"{row.difference:.0e}", *speeds))
    return markdown(heads, rows)


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.{0 if images_per_s >= 20 else 1}f}"


def tables(store: ResultsStore) -> dict[str, str]:
    """All tables that a text can name, by name."""
    starts = {one.variant for one in face_trunk().values()}
    drawn = {one.variant for one in transfer.study().values()} - {transfer.SCRATCH}
    others = set(store.rows(dataset="ferplus")["variant"]) - starts - drawn
    made = {"board": board(store, "ferplus", "valid")}
    made["ferplus"] = comparison(store, "ferplus", "valid", 8, variant=others)
    made["face_trunk"] = comparison(store, "ferplus", "valid", 8, variant=starts)
    made["drawings_first"] = comparison(store, "ferplus", "valid", 8, of=transfer.study())
    made["drawings_alone"] = drawings_alone(store)
    made["ferplus_recipes"] = comparison(store, "ferplus", "valid", 8, variant=RECIPES)
    judged = judge(store)
    made["verdicts"] = verdicts(judged)
    for family, part in judged.groupby("family", sort=False):
        made[f"claims_{family.lower().replace(' ', '_')}"] = claims(part)
    for file, paths in SPEEDS.items():
        if (store.folder / file).exists():
            made[file.removesuffix(".csv")] = speed(pd.read_csv(store.folder / file), *paths)
    if (store.folder / "onnx.csv").exists():
        made["onnx"] = onnx(pd.read_csv(store.folder / "onnx.csv"))
    return made


def fill(text: str, made: Mapping[str, str]) -> str:
    """A text with its tables replaced by those of `made`; one that is not there raises ValueError."""

    def table(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise ValueError(f"no table {match[2]!r}; there are {', '.join(made)}")
        return f"{match[1]}{made[match[2]]}\n{match[3]}"

    return BLOCK.sub(table, text)
