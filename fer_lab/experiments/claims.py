"""What the book claims of its methods: hypotheses written before the runs, verdicts computed from the runs.

A claim compares two variants that were trained with the same seeds; Holm's method adjusts p-values within its
family. "not known" is the verdict where neither a difference nor equivalence is shown. It does not mean "no
difference". No verdict is given before all planned seeds are there.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from fer_lab.experiments import dan, explain, poster, qcs, triplet_center
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
}

LOSSES = {
    "center": "Center loss",
    "He et al.": "He et al.'s triplet-center loss",
    "predicted": "Triplet-center loss with the predicted negative",
    "semi": "Triplet-center loss with the semi-synthesised negative",
    "fully": "Triplet-center loss with the fully synthesised negative",
}
WHOLE, AFFINITY, PARTITION = "DAN, K = 4", "no affinity loss", "no partition loss"
COMPACT = "The affinity loss makes the classes of DAN's embedding more compact."
OVERLAP = "The partition loss lowers the overlap of DAN's attention heads."
AFFINE = "The affinity loss changes DAN's accuracy by less than a point."
PARTED = "The partition loss changes DAN's accuracy by less than a point."
HEADS = {2: "Two", 4: "Four", 8: "Eight"}
AS_ONE = "heads are as accurate as one."
AS_LONG = "DAN is as accurate as a ResNet-18 that was trained for as many epochs."
# What every loss of `LOSSES` is expected to do, on balanced and on rare classes.
TIGHT = "makes the classes of the embedding more compact."
FAR = "moves faces away from the nearest wrong class."
SAME = "changes the accuracy by less than a point."
FOUND = "finds more faces of rare classes."
SAME_MEAN = "changes the mean recall by less than a point."
PIXELS = "Pixel-wise attention changes the accuracy of cross-entropy by less than a point."
BOTH = "The paper's method, semi-synthesised with both attentions, is as accurate as cross-entropy alone."
IMAGE, MARKS, FUSION, POSTER = poster.VARIANTS
GUIDED = "A landmark stream makes POSTER's image stream more accurate."
CROSSED = "Cross fusion is as accurate as attention over all tokens of both streams."
WIDTHS = "Three widths of the tokens are as accurate as one."
BETTER = "The whole POSTER is more accurate than its image stream."
# What the paper promises of the pyramid, and of the whole, is that they bear other scales.
SCALES = {
    "resolution_50": "On faces of half the resolution",
    "head_size_75": "On heads of three quarters the usual size",
    "head_size_125": "On heads a quarter larger than usual",
}
RIVALS = {
    "pyramid": ("three widths of the tokens are more accurate than one.", FUSION),
    "poster": ("the whole POSTER is more accurate than its image stream.", IMAGE),
}
CE, DCS, S, D, SD = qcs.VARIANTS
COMPARED = "makes the base network more accurate than cross-entropy on as many images."
QUADRUPLETS = "Quadruplets make the base network more accurate than pairs do."
MOVED = "Distance to another class (D) puts more of a map on moved places than similarity (S)."
TAUGHT = {"ResNet-18": "ResNet-18's class activation map", "DAN, K = 4": "DAN's attention"}
DRAWN = "A loss that draws {} to moved places puts more of it there."
KEPT = "Drawing {} to moved places changes the accuracy by less than a point."
MOVED_BOTH = "Similarity and distance together put more of a map on moved places than similarity alone."


def _of_losses(family: str, part: str, what: str, metric: str, expected: str, *classes: str) -> list[Claim]:
    """The same claim of every loss against cross-entropy."""
    end = ", rare" if family == "rare classes" else ""
    return [
        Claim(f"{loss}-{part}", family, f"{name} {what}", metric, loss + end, "CE" + end, expected, classes)
        for loss, name in LOSSES.items()
    ]


CLAIMS = (
    Claim("affinity-compactness", "DAN", COMPACT, "within_between", WHOLE, AFFINITY, "better"),
    Claim("partition-overlap", "DAN", OVERLAP, "head_overlap", WHOLE, PARTITION, "better"),
    Claim("affinity-accuracy", "DAN", AFFINE, "accuracy", WHOLE, AFFINITY, "equivalent"),
    Claim("partition-accuracy", "DAN", PARTED, "accuracy", WHOLE, PARTITION, "equivalent"),
    *(
        Claim(f"heads-{n}", "DAN", f"{word} {AS_ONE}", "accuracy", f"DAN, K = {n}", "DAN, K = 1", "equivalent")
        for n, word in HEADS.items()
    ),
    Claim("dan-accuracy", "DAN", AS_LONG, "accuracy", WHOLE, "ResNet-18", "equivalent"),
    *_of_losses("triplet center", "compactness", TIGHT, "within_between", "better", ""),
    *_of_losses("triplet center", "margin", FAR, "nearest_center_margin", "better", ""),
    *_of_losses("triplet center", "accuracy", SAME, "accuracy", "equivalent", ""),
    Claim("pixel-wise", "triplet center", PIXELS, "accuracy", "CE, pixel-wise", "CE", "equivalent"),
    Claim("both-attentions", "triplet center", BOTH, "accuracy", "semi, both attentions", "CE", "equivalent"),
    *_of_losses("rare classes", "rare-recall", FOUND, "recall", "better", *triplet_center.RARE),
    *_of_losses("rare classes", "rare-accuracy", SAME_MEAN, "accuracy", "equivalent", ""),
    Claim("landmarks-accuracy", "POSTER", GUIDED, "accuracy", MARKS, IMAGE, "better"),
    Claim("fusion-accuracy", "POSTER", CROSSED, "accuracy", FUSION, MARKS, "equivalent"),
    Claim("pyramid-accuracy", "POSTER", WIDTHS, "accuracy", POSTER, FUSION, "equivalent"),
    Claim("poster-accuracy", "POSTER", BETTER, "accuracy", POSTER, IMAGE, "better"),
    *(
        Claim(
            *(f"{part}-{at}".replace("_", "-"), "POSTER", f"{place} {words}"),
            *(f"accuracy_at_{at}", POSTER, rival, "better"),
        )
        for part, (words, rival) in RIVALS.items()
        for at, place in SCALES.items()
    ),
    Claim("qcs-accuracy", "QCS", f"QCS {COMPARED}", "accuracy", SD, CE, "better"),
    Claim("qcs-s-accuracy", "QCS", f"QCS with similarity alone (S) {COMPARED}", "accuracy", S, CE, "better"),
    Claim("qcs-d-accuracy", "QCS", f"QCS with distance alone (D) {COMPARED}", "accuracy", D, CE, "better"),
    Claim("dcs-accuracy", "QCS", f"DCS, with pairs of one class, {COMPARED}", "accuracy", DCS, CE, "better"),
    Claim("quadruplets-accuracy", "QCS", QUADRUPLETS, "accuracy", SD, DCS, "better"),
    Claim("qcs-map", "QCS", MOVED, "map_mass", D, S, "better"),
    Claim("qcs-map-both", "QCS", MOVED_BOTH, "map_mass", SD, S, "better"),
    *(
        Claim(
            *(f"taught-{method}-{part}", "taught maps", words.format(TAUGHT[network])),
            *(metric, f"{network}, taught maps", f"{network}, free maps", expected),
        )
        for part, metric, words, expected in (
            ("mass", "attention_mass", DRAWN, "better"),
            ("accuracy", "accuracy", KEPT, "equivalent"),
        )
        for method, network in zip(("resnet", "dan"), explain.NETWORKS, strict=True)
    ),
)


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
        values = rows[column].copy()
        for _, part in values.groupby(rows["family"]):
            known = part.dropna()
            values[known.index] = holm(known)
        rows[adjusted] = values
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
        row["equivalence_p"] = equivalence_p(both["a"], both["b"], MARGIN)
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
