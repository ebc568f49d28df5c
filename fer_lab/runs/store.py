"""The results store: what finished runs measured, as small text files.

Intervals over seeds are Student's t and not the bootstrap used over faces. A bootstrap of n values never
leaves their range: on normal data its nominal 95 % interval (BCa) holds the mean in 73 % of the cases for
3 seeds, 83 % for 5, 90 % for 10 and 92 % for 20; t in 95 % of them (a test repeats it for 3 seeds).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fer_lab._files import locked, read_csv, write_csv
from fer_lab.intervals import seed_interval
from fer_lab.runs.environment import environment, portable_command
from fer_lab.runs.predictions import Predictions


class ResultsStore:
    """Results of finished runs as small text files that can be read, compared and committed.

    `runs.csv` has a row a run, `metrics.csv` a row a number, `predictions/` an npz a run. Several
    processes may record at once.
    """

    KEYS = ("method", "size", "variant", "dataset", "split", "seed")
    RUNS = {
        **dict.fromkeys(("id", "method", "size", "variant", "dataset", "fingerprint", "split"), "str"),
        "seed": "int64",
        "minutes": "float64",
        **dict.fromkeys(("device", "versions", "commit", "command"), "str"),
    }
    METRICS = {
        **dict.fromkeys(("id", "metric", "class"), "str"),
        **dict.fromkeys(("value", "low", "high"), "float64"),
    }

    def __init__(self, folder: str | Path = "figures/results"):
        self.folder = Path(folder)

    def runs(self) -> pd.DataFrame:
        """One row a run, sorted by what identifies it."""
        return read_csv(self.folder / "runs.csv", self.RUNS)

    def metrics(self) -> pd.DataFrame:
        """Columns id, metric, class ("" for all), value, low, high."""
        table = read_csv(self.folder / "metrics.csv", self.METRICS)
        # runs.csv is written last: numbers without a run there are of a recording that was cut short.
        return table[table["id"].isin(self.runs()["id"])].reset_index(drop=True)

    def predictions(self, run_id: str) -> Predictions:
        """A run's predictions, with float16 probabilities.

        Raises:
            ValueError: no run of that id.
            FileNotFoundError: a run recorded without predictions.
        """
        if run_id not in set(self.runs()["id"]):
            raise ValueError(f"no run {run_id!r} in {self.folder}; there are {', '.join(self.runs()['id'])}")
        return Predictions.load(self._predictions_path(run_id))

    def _predictions_path(self, run_id: str) -> Path:
        return self.folder / "predictions" / f"{run_id}.npz"

    def record(
        self,
        *,
        method: str,
        size: str,
        variant: str,
        dataset: str,
        fingerprint: str,
        split: str,
        seed: int,
        minutes: float,
        device: str,
        command: str,
        metrics: pd.DataFrame,
        predictions: Predictions | None = None,
    ) -> str:
        """Write one finished run; the same method, size, variant, data set, split and seed replace theirs.

        Args:
            metrics: as `evaluation.evaluate` gives them; low, high and class may be missing.
            command: reproduces the run; the reader's data folder in it becomes `$FER_DATA`.

        Returns:
            The run's id.

        Raises:
            ValueError: metrics without metric or value, or an id that another run already has.
            RunBusyError: another process holds the store for a minute.
        """
        if missing := {"metric", "value"} - set(metrics.columns):
            raise ValueError(f"metrics need the columns metric and value; {', '.join(sorted(missing))} missing")
        here = environment()
        row = {
            "method": method,
            "size": size,
            "variant": variant,
            "dataset": dataset,
            "fingerprint": fingerprint,
            "split": split,
            "seed": int(seed),
            "minutes": round(float(minutes), 2),
            "device": device,
            "versions": f"fer_lab {here['fer_lab']}, torch {here['torch']}, python {here['python']}",
            "commit": here["commit"],
            "command": portable_command(command),
        }
        parts = [re.sub(r"[^\w.+=-]", "_", str(row[key])) for key in self.KEYS]
        row["id"] = run_id = "-".join(part for part in parts if part)
        numbers = metrics.assign(id=run_id).reindex(columns=list(self.METRICS))
        numbers["class"] = numbers["class"].fillna("").astype(str)
        with locked(self.folder / ".lock", wait=60):
            runs, table = self.runs(), self.metrics()
            for key in self.KEYS:
                if (clash := runs.loc[runs["id"] == run_id, key]).size and clash.iloc[0] != row[key]:
                    raise ValueError(f"{run_id} is already a run of {key} {clash.iloc[0]!r}, not {row[key]!r}")
            runs = pd.concat([runs[runs["id"] != run_id], pd.DataFrame([row])]).sort_values(list(self.KEYS))
            numbers = pd.concat([table[table["id"] != run_id], numbers])
            rank = {name: i for i, name in enumerate(runs["id"])}
            numbers = numbers.sort_values("id", key=lambda ids: ids.map(rank), kind="stable")
            if predictions is None:
                self._predictions_path(run_id).unlink(missing_ok=True)
            else:
                predictions.save(self._predictions_path(run_id), small=True)
            write_csv(self.folder / "metrics.csv", numbers[list(self.METRICS)])
            write_csv(self.folder / "runs.csv", runs[list(self.RUNS)])
        return run_id

    def summary(
        self,
        metric: str = "accuracy",
        by: Sequence[str] = ("method", "size", "variant", "dataset", "split"),
        class_: str = "",
    ) -> pd.DataFrame:
        """Mean over seeds of one metric: columns `by`, mean, low, high, seeds; see `seed_interval`.

        Raises:
            ValueError: a metric or column that the store does not have.
        """
        if unknown := set(by) - set(self.RUNS):
            raise ValueError(f"no column {', '.join(sorted(unknown))}; there are {', '.join(self.RUNS)}")
        table = self.metrics()
        chosen = table[(table["metric"] == metric) & (table["class"] == class_)]
        if chosen.empty and len(table):
            known = ", ".join(sorted(set(table["metric"])))
            raise ValueError(f"no {metric!r} for class {class_!r} in {self.folder}; metrics are {known}")
        merged = chosen.merge(self.runs(), on="id")
        rows = [
            (*group, *seed_interval(part["value"]), len(part))
            for group, part in merged.groupby(list(by), sort=True)
        ]
        return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def over_seeds(
    store: ResultsStore,
    metric: str,
    classes: Sequence[str] = ("",),
    by: Sequence[str] = ("method", "variant", "dataset", "split"),
    minus: str | None = None,
) -> pd.DataFrame:
    """A metric's mean over seeds with its 95 % interval, such as the recall of the rare classes.

    Args:
        metric: in the store, such as "recall" or "nearest_center_margin".
        classes: averaged within each run first; "" is the number for all classes.
        by: what makes a group of runs; its seeds are averaged.
        minus: a variant; instead of the metric, how much it lies above that variant's at the same seed, which
            takes out what a seed does to both.

    Returns:
        Columns `by`, mean, low, high, seeds; no rows where the store has none.

    Raises:
        ValueError: a column that runs do not have.
    """
    if unknown := set(by) - set(ResultsStore.RUNS):
        raise ValueError(f"no column {', '.join(sorted(unknown))}; there are {', '.join(ResultsStore.RUNS)}")
    table = store.metrics()
    table = table[(table["metric"] == metric) & table["class"].isin(list(classes))]
    values = table.groupby("id")["value"].mean().rename("value")
    runs = store.runs().merge(values, left_on="id", right_index=True)
    if minus is not None:
        same = [name for name in (*by, "seed") if name != "variant"]
        other = runs[runs["variant"] == minus].set_index(same)["value"].rename("other")
        runs = runs[runs["variant"] != minus].merge(other, left_on=same, right_index=True)
        runs["value"] -= runs["other"]
    groups = runs.groupby(list(by), sort=True)
    rows = [(*group, *seed_interval(part["value"]), len(part)) for group, part in groups]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def results_folder() -> Path:
    """The results store that the notebooks show: figures/results in a checkout, else the package's copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "figures" / "results"
    return checkout if checkout.is_dir() else package / "results"
