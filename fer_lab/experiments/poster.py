"""Notebook 04: what each idea of POSTER adds, over seeds."""

from collections.abc import Iterable
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import PLATEAU, SEEDS, from_starts, setting

# The paper promises of the pyramid, and of the whole, that they bear other scales. Its "scale" is two things:
# how many pixels a face has, and how much of the picture a head fills. Both in percent of the side.
RESOLUTIONS, HEAD_SIZES = (75, 50, 35), (75, 125)
IMAGE_ONLY: dict[str, Any] = {"landmark_stream": "none", "cross_fusion": False, "pyramid": False}
# The landmark stream that learned from faces with the study's knobs, no wider ones.
LANDMARKS: dict[str, Any] = {"landmark_weights": "study"}
# variant → options; each has one idea more than the one before
VARIANTS: dict[str, dict[str, Any]] = {
    "image only": IMAGE_ONLY,
    "+ landmarks": {**LANDMARKS, "cross_fusion": False, "pyramid": False},
    "+ cross fusion": {**LANDMARKS, "pyramid": False},
    "+ pyramid (POSTER)": LANDMARKS,
}


def image_stream(seed: int, faces: FaceRequest | None = None) -> Training:
    """POSTER's image stream alone at its plateau, whose trunk is the start of a seed's variants."""
    return Training(
        model="poster", options=IMAGE_ONLY, seed=seed, changes=PLATEAU, variant="plateau", **setting(faces)
    )


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """The variants that POSTER's claims compare: one trunk a seed, and a transformer from random weights."""
    scales = {"resolutions": RESOLUTIONS, "head_sizes": HEAD_SIZES if faces is None else ()}
    variants = {variant: ("poster", options) for variant, options in VARIANTS.items()}
    return from_starts(seeds, variants, lambda seed: image_stream(seed, faces), setting(faces) | scales)
