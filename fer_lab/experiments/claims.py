"""What the book claims of its methods: hypotheses written before the runs, verdicts computed from the runs.

A claim compares two variants that were trained with the same seeds. `judge` gives the difference paired by
seed, its interval for other seeds, for accuracy also the interval for other seeds and other faces, a p-value
that Holm's method adjusts within the claim's family, and a verdict. "not known" is the verdict where neither a
difference nor equivalence is shown. It does not mean "no difference".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lab.experiments import dan
from fer_lab.experiments.request import Training
from fer_lab.intervals import crossed_interval, equivalence_p, holm, paired_difference, smallest_effect
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import SHARES

ALPHA = 0.05
# Written by `fer-lab results --claims`, in the folder of the store.
FILE = "claims.csv"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One hypothesis about the difference a − b of a metric.

    Attributes:
        name: short, without spaces.
        family: name in `FAMILIES`; p-values are adjusted within it.
        hypothesis: one sentence, as it was expected before the runs.
        metric: in the results store.
        a, b: variants of the family's trainings.
        expected: the verdict that the hypothesis foretells: "better", "equivalent" or "worse".
        lower_is_better: whether a smaller number is the better one.
        margin: differences below it count as none; in the metric's unit.
        pilot: differences a − b of the pilot seeds; () if there was no pilot for this claim.
    """

    name: str
    family: str
    hypothesis: str
    metric: str
    a: str
    b: str
    expected: str
    lower_is_better: bool = False
    margin: float = 0.01
    pilot: tuple[float, ...] = ()


FAMILIES: dict[str, Callable[[], Mapping[str, Training]]] = {"DAN": dan.study}

CLAIMS = (
    Claim(
        name="affinity-compactness",
        family="DAN",
        hypothesis="The affinity loss makes the classes of DAN's embedding more compact.",
        metric="within_between",
        a="DAN, K = 4",
        b="no affinity loss",
        expected="better",
        lower_is_better=True,
    ),
    Claim(
        name="partition-overlap",
        family="DAN",
        hypothesis="The partition loss lowers the overlap of DAN's attention heads.",
        metric="head_overlap",
        a="DAN, K = 4",
        b="no partition loss",
        expected="better",
        lower_is_better=True,
    ),
    Claim(
        name="affinity-accuracy",
        family="DAN",
        hypothesis="The affinity loss changes DAN's accuracy by less than a point.",
        metric="accuracy",
        a="DAN, K = 4",
        b="no affinity loss",
        expected="equivalent",
    ),
    Claim(
        name="partition-accuracy",
        family="DAN",
        hypothesis="The partition loss changes DAN's accuracy by less than a point.",
        metric="accuracy",
        a="DAN, K = 4",
        b="no partition loss",
        expected="equivalent",
    ),
    Claim(
        name="heads-2",
        family="DAN",
        hypothesis="Two heads are as accurate as one.",
        metric="accuracy",
        a="DAN, K = 2",
        b="DAN, K = 1",
        expected="equivalent",
    ),
    Claim(
        name="heads-4",
        family="DAN",
        hypothesis="Four heads are as accurate as one.",
        metric="accuracy",
        a="DAN, K = 4",
        b="DAN, K = 1",
        expected="equivalent",
    ),
    Claim(
        name="heads-8",
        family="DAN",
        hypothesis="Eight heads are as accurate as one.",
        metric="accuracy",
        a="DAN, K = 8",
        b="DAN, K = 1",
        expected="equivalent",
    ),
    Claim(
        name="dan-accuracy",
        family="DAN",
        hypothesis="DAN is as accurate as a ResNet-18 that was trained for as many epochs.",
        metric="accuracy",
        a="DAN, K = 4",
        b="ResNet-18",
        expected="equivalent",
        pilot=(-0.0005, 0.0029, -0.0029),
    ),
)


def judge(store: ResultsStore, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """A row a claim: what was found, how sure it is, and the verdict.

    Columns: claim, family, hypothesis, expected, metric, a, b, seeds, planned, faces; difference, low, high for
    other seeds; crossed_low, crossed_high for other seeds and faces (accuracy only); p, adjusted_p, margin,
    equivalence_p (adjusted too); smallest_effect, which the pilot's spread lets be found with a power of 80 %;
    cost, minutes of a over minutes of b; verdict: "better", "worse", "equivalent", "not known" or "not run".
    """
    rows = pd.DataFrame([_measure(claim, store, claims) for claim in claims])
    for column, adjusted in (("p", "adjusted_p"), ("equivalence_p", "equivalence_p")):
        values = rows[column].copy()
        for _, part in values.groupby(rows["family"]):
            known = part.dropna()
            values[known.index] = holm(known)
        rows[adjusted] = values
    return rows.assign(
        verdict=[_verdict(claim, row) for claim, (_, row) in zip(claims, rows.iterrows(), strict=True)]
    )


def _measure(claim: Claim, store: ResultsStore, claims: Sequence[Claim]) -> dict[str, object]:
    """Everything of a row but what depends on the rest of its family."""
    requests = FAMILIES[claim.family]()
    both = store.paired(claim.metric, claim.a, claim.b, of=requests)
    planned = sum(one.variant == claim.a for one in requests.values())
    comparisons = sum(one.family == claim.family for one in claims)
    spread = np.std(claim.pilot, ddof=1) if claim.pilot else np.nan
    row = {
        "claim": claim.name,
        **{name: getattr(claim, name) for name in ("family", "hypothesis", "expected", "metric", "a", "b")},
        "seeds": len(both),
        "planned": planned,
        **dict.fromkeys(("difference", "low", "high", "crossed_low", "crossed_high", "p"), np.nan),
        "faces": 0,
        "adjusted_p": np.nan,
        "margin": claim.margin,
        "equivalence_p": np.nan,
        "smallest_effect": smallest_effect(float(spread), planned, comparisons),
        "cost": np.nan,
    }
    if both.empty:
        return row
    found = paired_difference(both["a"], both["b"])
    row |= {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    row["equivalence_p"] = equivalence_p(both["a"], both["b"], claim.margin)
    row["cost"] = both["minutes_a"].sum() / both["minutes_b"].sum()
    a, b = ([store.answers(one).correct for one in both[side]] for side in ("id_a", "id_b"))
    row["faces"] = len(a[0])
    if claim.metric == "accuracy" and len(both) > 1:  # the one metric that is a mean of one number a face
        _, row["crossed_low"], row["crossed_high"] = crossed_interval(np.array(a, float) - np.array(b, float))
    return row


def _verdict(claim: Claim, row: pd.Series) -> str:
    if not row["seeds"]:
        return "not run"
    if row["adjusted_p"] < ALPHA:
        return "better" if (row["difference"] < 0) == claim.lower_is_better else "worse"
    return "equivalent" if row["equivalence_p"] < ALPHA and SHARES.fullmatch(claim.metric) else "not known"
