"""Notebook 05: what comparing faces in training leaves in QCS's base network, over seeds."""

from collections.abc import Iterable
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.poster import image_stream
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import SEEDS, from_starts, setting

# variant → method and its options
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "CE only": ("qcs", {"form": "none"}),
    "DCS": ("dcs", {}),
    "QCS (S)": ("qcs", {"form": "s"}),
    "QCS (D)": ("qcs", {"form": "d"}),
    "QCS (SD)": ("qcs", {"form": "sd"}),
}
# An epoch shows four faces for each anchor: four are as many images as 16 epochs of single faces. From random
# weights eight left the network at 53 % of the held-out faces, so it starts from a trunk at its plateau.
PLATEAU = {"epochs": 4, "batch_size": 4, "precision": "bf16"}
# As many images for all: two passes of four faces an example, or four of two.
AFTERWARDS: dict[str, dict[str, Any]] = {
    "qcs": {"epochs": 2, "batch_size": 4, "lr": 3e-4, "precision": "bf16"},
    "dcs": {"epochs": 4, "batch_size": 8, "lr": 3e-4, "precision": "bf16"},
}


def base_network(seed: int, faces: FaceRequest | None = None) -> Training:
    """A base network behind the trunk of POSTER's image stream, the start of a seed's variants."""
    more = {"variant": "plateau", "trunk": image_stream(seed, faces), **setting(faces)}
    return Training(model="qcs", options={"form": "none"}, seed=seed, changes=PLATEAU, **more)


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """The variants that QCS's claims compare: every way goes on from the whole base network of its seed."""
    return from_starts(seeds, VARIANTS, lambda seed: base_network(seed, faces), setting(faces), AFTERWARDS)
