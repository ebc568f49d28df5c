"""What the book claims of its methods: hypotheses written before the runs, verdicts computed from the runs.

The hypotheses are the rows of hypotheses.csv beside this module, each committed before its runs. A claim
compares two variants that were trained with the same seeds; Holm's method adjusts p-values within its family.
"not known" is the verdict where neither a difference nor equivalence is shown. It does not mean "no
difference". No verdict is given before all planned seeds are there.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from fer_lab.experiments import dan, explain, poster, qcs, transfer, triplet_center
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import PILOT_SEEDS
from fer_lab.intervals import crossed_interval, equivalence_p, holm, paired_difference, smallest_effect
from fer_lab.models.method import create_model
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import SHARES

ALPHA = 0.05
# Accuracies that differ by less than a point count as equal.
EQUIVALENCE_MARGIN = 0.01
LOWER_IS_BETTER = ("within_between", "head_overlap")
# Columns of `judge` that are NaN until they are measured.
MEASURED = (
    *("difference", "low", "high", "crossed_low", "crossed_high"),
    *("p", "adjusted_p", "equivalence_p", "smallest_effect"),
)


@dataclass(frozen=True)
class Claim:
    """One hypothesis about the difference a − b of a metric, as it was expected before the runs.

    The family is one of `FAMILIES`; p-values are adjusted within it, and a and b are variants of its trainings.
    `expected` is the verdict that the hypothesis foretells: "better", "equivalent" or "worse". The metric is
    averaged over `classes`; ("",) is that of all faces.
    """

    name: str
    family: str
    hypothesis: str
    metric: str
    a: str
    b: str
    expected: str
    classes: tuple[str, ...] = ("",)


# The trainings of each family; without an argument with the seeds of the study.
FAMILIES: dict[str, Callable[..., Mapping[str, Training]]] = {
    "DAN": dan.study,
    "triplet center": triplet_center.study,
    "rare classes": triplet_center.study_of_rare_classes,
    "POSTER": poster.study,
    "QCS": qcs.study,
    "taught maps": explain.study,
    "drawings": transfer.study,
}
# In their order; a space stands between two names in the column `classes`.
_SPLIT = {"classes": lambda names: tuple(names.split(" "))}
_WRITTEN = pd.read_csv(Path(__file__).with_name("hypotheses.csv"), keep_default_na=False, converters=_SPLIT)
CLAIMS = tuple(Claim(**row) for row in _WRITTEN.to_dict("records"))


def judge(
    store: ResultsStore, claims: Sequence[Claim] = CLAIMS, requests: Mapping[str, Training] | None = None
) -> pd.DataFrame:
    """A row a claim: what was found, how sure it is, and the verdict.

    The trainings are those of the claims' families, or `requests`, such as a family's on other faces.

    Columns: claim, family, hypothesis, expected, metric, a, b, seeds, planned, faces; difference, low, high for
    other seeds; crossed_low, crossed_high for other seeds and faces (accuracy only); p, adjusted_p;
    equivalence_p, adjusted too (shares only); smallest_effect, which the pilot seeds' spread lets be found with
    a power of 80 % (where the pilot has the claim's variants); cost, operations of one inference of a over
    those of b; verdict: "better", "worse", "equivalent", "not known", "unfinished" where seeds are missing, or
    "not run".
    """
    rows = pd.DataFrame([_measure(claim, store, claims, requests) for claim in claims])
    for column, adjusted in (("p", "adjusted_p"), ("equivalence_p", "equivalence_p")):
        rows[adjusted] = rows[column].dropna().groupby(rows["family"]).transform(holm)
    return rows.assign(verdict=[_verdict(row) for _, row in rows.iterrows()])


def of_family(family: str) -> list[Claim]:
    """The claims of a family."""
    return [claim for claim in CLAIMS if claim.family == family]


def _measure(
    claim: Claim, store: ResultsStore, claims: Sequence[Claim], given: Mapping[str, Training] | None
) -> dict[str, Any]:
    """Everything of a row but what depends on the rest of its family."""
    requests = FAMILIES[claim.family]() if given is None else given
    both = store.paired(claim.metric, claim.a, claim.b, of=requests, classes=claim.classes)
    planned = sum(one.variant == claim.a for one in requests.values())
    row: dict[str, Any] = {
        "claim": claim.name,
        **{name: getattr(claim, name) for name in ("family", "hypothesis", "expected", "metric", "a", "b")},
        "seeds": len(both),
        "planned": planned,
        "faces": 0,
        **dict.fromkeys(MEASURED, np.nan),
        "cost": _operations(requests, claim.a) / _operations(requests, claim.b),
    }
    other = FAMILIES[claim.family](PILOT_SEEDS)
    pilot = store.paired(claim.metric, claim.a, claim.b, of=other, classes=claim.classes)
    if given is None and len(pilot) > 1:
        spread = float((pilot["a"] - pilot["b"]).std(ddof=1))
        comparisons = sum(one.family == claim.family for one in claims)
        row["smallest_effect"] = smallest_effect(spread, planned, comparisons)
    if both.empty:
        return row
    found = paired_difference(both["a"], both["b"])
    row |= {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    row["faces"] = len(store.answers(both["id_a"].iloc[0]).correct)
    if SHARES.fullmatch(claim.metric):
        row["equivalence_p"] = equivalence_p(both["a"], both["b"], EQUIVALENCE_MARGIN)
    if claim.metric == "accuracy" and len(both) > 1:  # the one metric that is a mean of one number a face
        a, b = (np.array([store.answers(one).correct for one in both[f"id_{side}"]], float) for side in "ab")
        _, row["crossed_low"], row["crossed_high"] = crossed_interval(a - b)
    return row


def _operations(requests: Mapping[str, Training], variant: str) -> int:
    """Floating-point operations of one image; minutes would tell as much about what else the machine did."""
    one = next(request for request in requests.values() if request.variant == variant)
    return _operations_of(one.model, one.faces.classes or 7, one.size, tuple(one.options.items()))


@functools.cache
def _operations_of(method: str, classes: int, size: str, options: tuple[tuple[str, Any], ...]) -> int:
    model = create_model(method, classes, size, **dict(options)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, model.image_size, model.image_size))
    return counter.get_total_flops()


def _verdict(row: pd.Series) -> str:
    if row["seeds"] < row["planned"]:  # whoever looks earlier and stops when it suits proves nothing
        return "unfinished" if row["seeds"] else "not run"
    if row["adjusted_p"] < ALPHA:
        return "better" if (row["difference"] < 0) == (row["metric"] in LOWER_IS_BETTER) else "worse"
    return "equivalent" if row["equivalence_p"] < ALPHA else "not known"
