"""What the book claims of its methods: hypotheses written before the runs, verdicts computed from the runs.

A claim compares two variants that were trained with the same seeds. `judge` gives the difference paired by
seed, its interval for other seeds, for accuracy also the interval for other seeds and other faces, a p-value
that Holm's method adjusts within the claim's family, and a verdict. "not known" is the verdict where neither a
difference nor equivalence is shown. It does not mean "no difference".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from fer_lab.experiments import dan
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import PILOT_SEEDS
from fer_lab.intervals import crossed_interval, equivalence_p, holm, paired_difference, smallest_effect
from fer_lab.models.method import create_model
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import SHARES

ALPHA = 0.05
# Accuracies that differ by less than a point count as equal.
MARGIN = 0.01
LOWER_IS_BETTER = ("within_between", "head_overlap")
# `fer-lab results --claims --csv` writes it, in the folder of the store.
FILE = "claims.csv"


@dataclass(frozen=True)
class Claim:
    """One hypothesis about the difference a − b of a metric, as it was expected before the runs.

    Attributes:
        name: short, without spaces.
        family: name in `FAMILIES`; p-values are adjusted within it.
        hypothesis: one sentence.
        metric: in the results store.
        a, b: variants of the family's trainings.
        expected: the verdict that the hypothesis foretells: "better", "equivalent" or "worse".
    """

    name: str
    family: str
    hypothesis: str
    metric: str
    a: str
    b: str
    expected: str


# The trainings of each family; without an argument with the seeds of the study.
FAMILIES: dict[str, Callable[..., Mapping[str, Training]]] = {"DAN": dan.study}

WHOLE, AFFINITY, PARTITION = "DAN, K = 4", "no affinity loss", "no partition loss"
COMPACT = "The affinity loss makes the classes of DAN's embedding more compact."
OVERLAP = "The partition loss lowers the overlap of DAN's attention heads."
AFFINE = "The affinity loss changes DAN's accuracy by less than a point."
PARTED = "The partition loss changes DAN's accuracy by less than a point."
AS_LONG = "DAN is as accurate as a ResNet-18 that was trained for as many epochs."
CLAIMS = (
    Claim("affinity-compactness", "DAN", COMPACT, "within_between", WHOLE, AFFINITY, "better"),
    Claim("partition-overlap", "DAN", OVERLAP, "head_overlap", WHOLE, PARTITION, "better"),
    Claim("affinity-accuracy", "DAN", AFFINE, "accuracy", WHOLE, AFFINITY, "equivalent"),
    Claim("partition-accuracy", "DAN", PARTED, "accuracy", WHOLE, PARTITION, "equivalent"),
    *(
        Claim(
            f"heads-{heads}",
            "DAN",
            f"{word} heads are as accurate as one.",
            "accuracy",
            f"DAN, K = {heads}",
            "DAN, K = 1",
            "equivalent",
        )
        for heads, word in ((2, "Two"), (4, "Four"), (8, "Eight"))
    ),
    Claim("dan-accuracy", "DAN", AS_LONG, "accuracy", WHOLE, "ResNet-18", "equivalent"),
)


def judge(store: ResultsStore, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """A row a claim: what was found, how sure it is, and the verdict.

    Columns: claim, family, hypothesis, expected, metric, a, b, seeds, planned, faces; difference, low, high for
    other seeds; crossed_low, crossed_high for other seeds and faces (accuracy only); p, adjusted_p;
    equivalence_p, adjusted too (shares only); smallest_effect, which the pilot seeds' spread lets be found with
    a power of 80 % (where the pilot has the claim's variants); cost, operations of one inference of a over
    those of b; verdict: "better", "worse", "equivalent", "not known" or "not run".
    """
    rows = pd.DataFrame([_measure(claim, store, claims) for claim in claims])
    for column, adjusted in (("p", "adjusted_p"), ("equivalence_p", "equivalence_p")):
        values = rows[column].copy()
        for _, part in values.groupby(rows["family"]):
            known = part.dropna()
            values[known.index] = holm(known)
        rows[adjusted] = values
    return rows.assign(verdict=[_verdict(row) for _, row in rows.iterrows()])


def _measure(claim: Claim, store: ResultsStore, claims: Sequence[Claim]) -> dict[str, Any]:
    """Everything of a row but what depends on the rest of its family."""
    requests = FAMILIES[claim.family]()
    both = store.paired(claim.metric, claim.a, claim.b, of=requests)
    planned = sum(one.variant == claim.a for one in requests.values())
    row: dict[str, Any] = {
        "claim": claim.name,
        **{name: getattr(claim, name) for name in ("family", "hypothesis", "expected", "metric", "a", "b")},
        "seeds": len(both),
        "planned": planned,
        "faces": 0,
        **dict.fromkeys(
            ("difference", "low", "high", "crossed_low", "crossed_high", "p", "adjusted_p"), np.nan
        ),
        **dict.fromkeys(("equivalence_p", "smallest_effect"), np.nan),
        "cost": _operations(requests, claim.a) / _operations(requests, claim.b),
    }
    pilot = store.paired(claim.metric, claim.a, claim.b, of=FAMILIES[claim.family](PILOT_SEEDS))
    if len(pilot) > 1:
        spread = float((pilot["a"] - pilot["b"]).std(ddof=1))
        comparisons = sum(one.family == claim.family for one in claims)
        row["smallest_effect"] = smallest_effect(spread, planned, comparisons)
    if both.empty:
        return row
    found = paired_difference(both["a"], both["b"])
    row |= {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    right = {side: np.array([store.answers(one).correct for one in both[f"id_{side}"]], float) for side in "ab"}
    row["faces"] = right["a"].shape[1]
    if SHARES.fullmatch(claim.metric):
        row["equivalence_p"] = equivalence_p(both["a"], both["b"], MARGIN)
    if claim.metric == "accuracy" and len(both) > 1:  # the one metric that is a mean of one number a face
        _, row["crossed_low"], row["crossed_high"] = crossed_interval(right["a"] - right["b"])
    return row


def _operations(requests: Mapping[str, Training], variant: str) -> int:
    """Floating-point operations of one image; minutes would tell as much about what else the machine did."""
    one = next(request for request in requests.values() if request.variant == variant)
    model = create_model(one.model, one.faces.classes or 7, one.size, **one.options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, model.image_size, model.image_size))
    return counter.get_total_flops()


def _verdict(row: pd.Series) -> str:
    if not row["seeds"]:
        return "not run"
    if row["adjusted_p"] < ALPHA:
        return "better" if (row["difference"] < 0) == (row["metric"] in LOWER_IS_BETTER) else "worse"
    return "equivalent" if row["equivalence_p"] < ALPHA else "not known"
