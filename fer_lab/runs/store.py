"""The results store: what finished runs measured, as small files that can be read, compared and committed.

Intervals over seeds are Student's t and not the bootstrap used over faces. A bootstrap of n values never
leaves their range: on normal data its nominal 95 % interval (BCa) holds the mean in 73 % of the cases for
3 seeds, 83 % for 5, 90 % for 10 and 92 % for 20; t in 95 % of them (a test repeats it for 3 seeds).
"""

import functools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from fer_lab._files import is_file, locked, read_csv, remove_leftovers, stamp, write_csv
from fer_lab.intervals import paired_difference, seed_interval
from fer_lab.models.method import TITLES
from fer_lab.runs.environment import environment, portable_command
from fer_lab.runs.predictions import Answers, Predictions, load_together, save_together

PACKAGE = Path(__file__).resolve().parents[1]
# Metrics that are shares of faces; their differences are told in points.
SHARES = re.compile(r"accuracy.*|mean_class_recall.*|recall|macro_f1|ece|(map|attention)_mass.*")


class Request(Protocol):
    """What the store knows a training by, such as `experiments.Training`."""

    def to_json(self) -> str:
        """One text for equal trainings, and another for any other."""


Requests = Mapping[str, Request] | Iterable[Request]
Names = Sequence[str]
# A variant's name, or columns of runs.csv with their values.
Side = str | Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """How much a metric of one method is above that of another, paired by seed.

    Attributes:
        mean, low, high: of a − b, with its Student's t interval; NaN where there are too few seeds.
        p: two-sided, of the paired t-test; not adjusted for other comparisons (see `intervals.holm`).
        seeds: how many seeds both have.
        text: the result in one sentence, which printing shows.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    text: str

    def __str__(self) -> str:
        return self.text


@functools.lru_cache(maxsize=8)
def _table(
    path: Path, _stamp: object, columns: tuple[tuple[str, str], ...], keys: tuple[str, ...]
) -> pd.DataFrame:
    """A table of a store, read once as long as its file does not change."""
    # Git's merge may double a row.
    table = read_csv(path, dict(columns)).drop_duplicates(ignore_index=True)
    if (twice := table.duplicated(list(keys))).any():
        row = ", ".join(str(table.loc[twice.idxmax(), key]) for key in keys)
        raise ValueError(f"{path} has two rows of {row}, which differ; delete one of them")
    return table


@functools.lru_cache(maxsize=4)
def _together(path: Path, _stamp: object) -> dict[str, Answers]:
    """The answers of all runs in a file, read once as long as it does not change."""
    return load_together(path)


class ResultsStore:
    """Results of finished runs.

    `runs.csv` has a row a run, `metrics.csv` a row a number, `curves.csv` a row an epoch, and `predictions/` a
    file for each data set and split. Several processes may record at once.
    """

    KEYS = ("method", "size", "variant", "dataset", "split", "seed")
    RUNS = {
        **dict.fromkeys(("id", "method", "size", "variant", "dataset", "fingerprint", "split"), "str"),
        "seed": "int64",
        "minutes": "float",
        **dict.fromkeys(("device", "versions", "commit", "command", "request"), "str"),
    }
    CURVES = {"id": "str", "epoch": "int64", "holdout_accuracy": "float"}
    METRICS = dict.fromkeys(("id", "metric", "class"), "str") | dict.fromkeys(("value", "low", "high"), "float")

    def __init__(self, folder: str | Path = "figures/results"):
        self.folder = Path(folder)

    def runs(self) -> pd.DataFrame:
        """One row a run, sorted by `KEYS`; a damaged file, or two rows of one run, raise ValueError."""
        return self._read("runs.csv", self.RUNS, self.KEYS)

    def metrics(self) -> pd.DataFrame:
        """Columns id, metric, class ("" for all), value, low, high; raises as `runs`."""
        table = self._read("metrics.csv", self.METRICS, ("id", "metric", "class"))
        # runs.csv is written last, so numbers without a run there come from a recording that was interrupted.
        return table[table["id"].isin(self.runs()["id"])].reset_index(drop=True)

    def curves(self, of: Requests) -> pd.DataFrame:
        """Accuracy on held-out training faces by epoch: columns variant, seed, epoch, holdout_accuracy."""
        table = self._read("curves.csv", self.CURVES, ("id", "epoch"))
        return self.rows(of)[["id", "variant", "seed"]].merge(table, on="id").drop(columns="id")

    def _read(self, name: str, columns: dict[str, str], keys: Sequence[str]) -> pd.DataFrame:
        path = self.folder / name
        return _table(path, stamp(path), tuple(columns.items()), tuple(keys)).copy()

    def answers(self, run_id: str) -> Answers:
        """The class that a run named for each face; FileNotFoundError for a run recorded without."""
        runs = self.runs().set_index("id")
        if run_id not in runs.index:
            raise ValueError(f"no run {run_id!r} in {self.folder}; there are {', '.join(runs.index)}")
        path = self._predictions_path(runs.loc[run_id, "dataset"], runs.loc[run_id, "split"])
        if run_id in (found := _together(path, stamp(path))):
            return found[run_id]
        raise FileNotFoundError(f"{path} has no predictions of {run_id}; it was recorded without")

    def _predictions_path(self, dataset: str, split: str) -> Path:
        return self.folder / "predictions" / f"{_safe(dataset)}-{_safe(split)}.npz"

    def check(self, **key: Any) -> str:
        """Check before a training that its row, with these values of `KEYS`, can be recorded → the run's id.

        A damaged file, a text that cannot be recorded, or another run of the same id raises ValueError.
        """
        if self.folder.resolve() == PACKAGE / "results":
            raise ValueError(
                f"{self.folder} is a part of the installed package; record elsewhere: --store FOLDER, or "
                "FER_LAB_RESULTS in the environment"
            )
        check_texts(key)
        run_id = "-".join(part for name in self.KEYS if (part := _safe(str(key[name]))))
        runs, path = self.runs(), self._predictions_path(key["dataset"], key["split"])
        for name in self.KEYS:
            if (clash := runs.loc[runs["id"] == run_id, name]).size and clash.iloc[0] != key[name]:
                raise ValueError(f"{run_id} is already a run of {name} {clash.iloc[0]!r}, not {key[name]!r}")
        self.metrics()
        if is_file(path):
            load_together(path)
        return run_id

    def record(
        self,
        *,
        metrics: pd.DataFrame,
        predictions: Predictions | None = None,
        holdout: Sequence[float] = (),
        **facts: Any,
    ) -> str:
        """Write one finished run → its id; a run with the same `KEYS` is replaced.

        Args:
            metrics: as `evaluation.evaluate` gives them; low, high and class may be missing.
            holdout: accuracy on held-out training faces after each epoch.
            facts: the other columns of `RUNS`, but id, versions and commit. `command` reproduces the run; the
                reader's data folder in it becomes `$FER_DATA`. `request` is the training as JSON, which tells
                it from others.

        Raises:
            ValueError: metrics without metric or value, facts missing or not known, or as `check`.
            RunBusyError: another process holds the store for a minute.
        """
        if missing := {"metric", "value"} - set(metrics.columns):
            raise ValueError(f"metrics need the columns metric and value; {', '.join(sorted(missing))} missing")
        if wrong := set(facts) ^ (set(self.RUNS) - {"id", "versions", "commit"}):
            raise ValueError(f"missing from the facts of a run, or unknown: {', '.join(sorted(wrong))}")
        here = environment()
        row = facts | {
            "seed": int(facts["seed"]),
            "minutes": round(float(facts["minutes"]), 2),
            "versions": f"fer_lab {here['fer_lab']}, torch {here['torch']}, python {here['python']}",
            "commit": here["commit"],
            "command": portable_command(facts["command"]),
        }
        check_texts(row)
        numbers = metrics.reindex(columns=list(self.METRICS))
        numbers["class"] = numbers["class"].fillna("").astype(str)
        check_texts({f"class {i}": name for i, name in enumerate(numbers["class"].unique())})
        path = self._predictions_path(row["dataset"], row["split"])
        with locked(self.folder / ".lock", wait=60):
            if path.parent.is_dir():
                remove_leftovers(path.parent.iterdir())
            row["id"] = run_id = self.check(**{key: row[key] for key in self.KEYS})
            runs, table = self.runs(), self.metrics()
            if run_id in set(runs["id"]):
                # First the old row goes, so that it never stands beside the new run's numbers.
                runs = runs[runs["id"] != run_id]
                write_csv(self.folder / "runs.csv", runs)
            runs = pd.concat([runs, pd.DataFrame([row])]).sort_values(list(self.KEYS))
            numbers = pd.concat([table[table["id"] != run_id], numbers.assign(id=run_id)])
            rank = {name: i for i, name in enumerate(runs["id"])}
            numbers = numbers.sort_values("id", key=lambda ids: ids.map(rank), kind="stable")
            together = load_together(path) if path.exists() else {}
            if predictions is not None:
                save_together(path, together | {run_id: predictions.answers()})
            elif together.pop(run_id, None):
                save_together(path, together)
            curves = self._read("curves.csv", self.CURVES, ("id", "epoch"))
            rows = [(run_id, epoch, value) for epoch, value in enumerate(holdout, 1)]
            if rows or run_id in set(curves["id"]):
                new = pd.DataFrame(rows, columns=list(self.CURVES))
                write_csv(self.folder / "curves.csv", pd.concat([curves[curves["id"] != run_id], new]))
            write_csv(self.folder / "metrics.csv", numbers[list(self.METRICS)])
            write_csv(self.folder / "runs.csv", runs[list(self.RUNS)])
        return run_id

    # -----------------------------------------------------------------------------------------------------
    # Over seeds

    def rows(self, of: Requests | None = None, **where: Any) -> pd.DataFrame:
        """Rows of runs.csv: of some requests in their order, or all, where column=value or column=[values].

        A column that runs do not have raises ValueError.
        """
        runs = self.runs()
        self._check_columns(where)
        if of is not None:
            place = {text: i for i, text in enumerate(runs["request"])}
            requests = of.values() if isinstance(of, Mapping) else of
            runs = runs.iloc[[place[text] for one in requests if (text := one.to_json()) in place]]
        for column, wanted in where.items():
            values = wanted if isinstance(wanted, list | tuple | set) else [wanted]
            runs = runs[runs[column].isin(list(values))]
        return runs

    def _check_columns(self, names: Iterable[str]) -> None:
        if unknown := set(names) - set(self.RUNS):
            raise ValueError(f"no column {', '.join(sorted(unknown))}; there are {', '.join(self.RUNS)}")

    def _values(self, metric: str, runs: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
        """Those runs that have a metric, with value, low and high. Means of classes have no interval."""
        table = self.metrics()
        if len(runs) and metric not in set(table["metric"]):
            known = ", ".join(sorted(set(table["metric"])))
            raise ValueError(f"no {metric!r} in {self.folder}; metrics are {known}")
        table = table[(table["metric"] == metric) & table["class"].isin(list(classes))]
        numbers = table.groupby("id")[["value", "low", "high"]].mean()
        if len(classes) > 1:
            numbers[["low", "high"]] = math.nan
        return runs.merge(numbers, left_on="id", right_index=True)

    def table(
        self,
        metric: str = "accuracy",
        *,
        by: Names = ("method", "variant"),
        classes: Names = ("",),
        **where: Any,
    ) -> pd.DataFrame:
        """A metric's mean over seeds with its 95 % interval, a row a group of runs.

        Example:
            >>> store.table("recall", of=requests, classes=["fear", "disgust"])
            >>> store.table("accuracy", dataset="ferplus", split="valid")

        Args:
            metric: in the store, such as "accuracy" or "within_between".
            where: `of` and the conditions of `rows`.
            by: columns of runs.csv; runs that agree in them differ in their seeds and are averaged.
            classes: averaged within each run first; "" is the number for all classes.

        Returns:
            Columns `by`, mean, low, high, seeds. For a single seed low and high are the stored interval over
            faces (NaN for several classes). Runs that the store lacks are left out; a metric that it lacks,
            or an unknown column of runs, raises ValueError.
        """
        self._check_columns(by)
        runs = self._values(metric, self.rows(**where), classes)
        rows = []
        for group, part in runs.groupby(list(by), sort=False):
            mean, low, high = seed_interval(part["value"])
            if len(part) == 1:
                low, high = part.iloc[0][["low", "high"]]
            rows.append((*group, mean, low, high, len(part)))
        return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])

    def paired(self, metric: str, a: Side, b: Side, *, classes: Names = ("",), **where: Any) -> pd.DataFrame:
        """The seeds that both sides have: index seed; columns a, b, id_a, id_b. The rest as in `difference`."""
        sides = []
        for side in (a, b):
            columns: dict[str, Any] = {"variant": side} if isinstance(side, str) else dict(side)
            part = self._values(metric, self.rows(**where, **columns), classes)
            if part["seed"].duplicated().any():
                raise ValueError(f"{_title(side)} has several runs of one seed; narrow it down by more columns")
            sides.append(part.set_index("seed")[["value", "id"]])
        both = sides[0].join(sides[1], how="inner", lsuffix="_a", rsuffix="_b").sort_index()
        return both.rename(columns={"value_a": "a", "value_b": "b"}).dropna(subset=["a", "b"])

    def difference(self, metric: str, a: Side, b: Side, *, classes: Names = ("",), **where: Any) -> Difference:
        """How much a metric of `a` is above that of `b`, paired by seed.

        Pairing takes out what a seed does to both. It is the test of a difference: whether the two intervals
        of `table` overlap is none. `a` and `b` are a variant's name each, or columns with their values, such as
        {"method": "poster"}; the rest is as in `table`, with its errors. Raises ValueError where one of the two
        has several runs of one seed, so that it is more than one variant.

        Example:
            >>> print(store.difference("accuracy", "DAN, K = 4", "ResNet-18", of=requests))
        """
        both = self.paired(metric, a, b, classes=classes, **where)
        kind = " of ".join(filter(None, (metric.replace("_", " "), ", ".join(filter(None, classes)))))
        if both.empty:
            text = f"Not measured yet: {kind}, {_title(a)} against {_title(b)}."
            return Difference(math.nan, math.nan, math.nan, math.nan, 0, text)
        mean, low, high, p, seeds = paired_difference(both["a"], both["b"])
        scale, unit = (100, " points") if SHARES.fullmatch(metric) else (1, "")
        digits = 1 if scale == 100 else 3
        ends = f"[{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"
        facts = f"95 % interval {ends}, paired over {seeds} seeds, p = {p:.2g}"
        found = f"{scale * mean:+.{digits}f}{unit} ({facts if seeds > 1 else 'a single seed'})."
        if seeds > 1 and not low <= 0 <= high:
            text = f"{_title(a)} has a {'higher' if mean > 0 else 'lower'} {kind} than {_title(b)}: {found}"
        else:
            text = f"Not decided by these runs: {kind}, {_title(a)} against {_title(b)}: {found}"
        return Difference(mean, low, high, p, seeds, text)


def _title(side: Side) -> str:
    """A variant's name, or the values of some columns, with methods as tables write them."""
    return side if isinstance(side, str) else ", ".join(TITLES.get(value, value) for value in side.values())


def check_texts(texts: Mapping[str, Any]) -> None:
    """Raise ValueError for a control or half character in a text, or more than 60 characters in a key's."""
    for name, text in texts.items():
        if isinstance(text, str) and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
            raise ValueError(f"{name} {text!r} has a control character; take another name")
        if name in ResultsStore.KEYS and len(str(text)) > 60:
            raise ValueError(f"{name} has {len(str(text))} characters, at most 60 can be recorded; shorten it")


def _safe(text: str) -> str:
    """A text as a part of an id or a file name."""
    return re.sub(r"[^\w.+=-]", "_", text)


def results_folder() -> Path:
    """The results store that the notebooks show and that their full profile fills.

    That is FER_LAB_RESULTS in the environment, else figures/results in a checkout, else the package's copy.
    """
    if named := os.environ.get("FER_LAB_RESULTS"):
        return Path(named)
    checkout = PACKAGE.parent / "figures" / "results"
    return checkout if checkout.is_dir() else PACKAGE / "results"
