"""Which faces: a description that can be written down, compared, and turned into the faces."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_lab.data.datasets import load_dataset
from fer_lab.data.faces import FaceSet
from fer_lab.data.layouts import LAYOUTS
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.data.synthetic.generator import set_fingerprint

SYNTHETIC = "synthetic"
RENDERED_FACES = 4000


@dataclass(frozen=True, kw_only=True)
class FaceRequest:
    """A description of faces, rendered or of a data set on disk: the arguments of `load_faces`.

    `root` belongs to the reader and is no part of `to_data`.
    """

    dataset: str = SYNTHETIC
    root: Path | None = None
    classes: int | None = None
    size: int | None = None
    rule: str = "majority"
    skip_bad: bool = False
    order: str = ""
    test_share: float = 0.0
    train_share: float = 0.0
    count: int | None = None
    seed: int = 0
    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rendered and self.count is None:
            object.__setattr__(self, "count", RENDERED_FACES)

    @property
    def rendered(self) -> bool:
        """Whether the faces are rendered, and not read from disk."""
        return self.dataset == SYNTHETIC

    def load(self) -> FaceSet:
        """Render or read the faces; ValueError as of `load_faces`."""
        if self.rendered:
            if self.order or self.test_share or self.train_share:
                raise ValueError(
                    "rendered faces have their own order and splits: no order, no test_share, no train_share"
                )
            return SyntheticFaces(**self._rendering())
        if self.knobs:
            raise ValueError(f"only rendered faces have knobs; {self.dataset} does not know {list(self.knobs)}")
        if self.dataset not in LAYOUTS:
            expected = ", ".join((SYNTHETIC, *LAYOUTS))
            raise ValueError(f"unknown data set {self.dataset!r}; expected one of {expected}")
        if not self.root:
            raise ValueError(f"{self.dataset} needs its folder: --data-root, or FER_DATA in the environment")
        shared = ("skip_bad", "size", "order", "test_share", "count", "seed")
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared}
        faces = load_dataset(
            self.dataset, self.root, num_classes=self.classes, label_rule=self.rule, **settings
        )
        return faces.thin_train(self.train_share, self.seed) if self.train_share else faces

    def fingerprint(self) -> str:
        """Fingerprint of rendered faces, known before a face is drawn; "" for a data set on disk."""
        return set_fingerprint(**self._rendering()) if self.rendered else ""

    def _rendering(self) -> dict[str, Any]:
        num_classes, size = self.classes or 7, self.size or 112
        settings = {"n": self.count, "seed": self.seed, "num_classes": num_classes, "size": size}
        if clash := sorted(settings.keys() & self.knobs.keys()):
            raise ValueError(f"{', '.join(clash)} of the rendered faces are given by name, not as knobs")
        return {**settings, **self.knobs}

    def sized(self, pixels: int) -> "FaceRequest":
        """The same faces for a model: rendered ones at the model's size, unless the request names a size."""
        return self if self.size or not self.rendered else dataclasses.replace(self, size=pixels)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON: what chooses the faces. Fields that are empty or do not apply are left out."""
        inapplicable = {"root", *(("rule", "skip_bad") if self.rendered else ("knobs",))}
        if self.count is None and not self.train_share:
            inapplicable.add("seed")
        return {name: value for name, value in vars(self).items() if value and name not in inapplicable}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], root: Path | None = None) -> "FaceRequest":
        """The inverse of `to_data`, with the folder of the reader's own data set."""
        return cls(**data, root=root)


def load_faces(
    dataset: str = SYNTHETIC,
    root: str | Path | None = None,
    *,
    count: int | None = None,
    size: int | None = None,
    seed: int = 0,
    classes: int | None = None,
    rule: str = "majority",
    skip_bad: bool = False,
    order: str = "",
    test_share: float = 0.0,
    train_share: float = 0.0,
    **knobs: Any,
) -> FaceSet:
    """Faces with labels, images uint8 [N,3,S,S]: rendered with known truth, or read from a data set on disk.

    Example:
        >>> faces = load_faces(count=2000, size=56, imbalance=0)
        >>> train, held_out = faces.split("train").holdout()
        >>> test = faces.split(faces.reported_split())

    Args:
        dataset: "synthetic", "ferplus", "rafdb", "affectnet", "sfew" or "folder".
        root: folder of the data set; not needed for rendered faces.
        count: how many faces to render, 4,000 if None; or to keep of a data set, all if None. Of a data set
            every class keeps its share of every split, and a warning says so.
        seed: of the renderer, or of the choice of `count` or `train_share` faces of a data set.
        size: side in pixels; None takes the data set's own, and 112 for rendered faces.
        classes: 7 or 8; None takes what the data set has, and 7 for rendered faces.
        rule: FER+'s label rule: "largest", "majority" or "votes".
        skip_bad: leave unreadable images out.
        order: for "folder" with class folders named by numbers: the data set whose numbers they are ("rafdb").
        test_share: for "folder" without splits: the share of each class that becomes the test split (0.2).
        train_share: of a data set: the share of each class's training faces that is kept; 0 keeps all.
        knobs: of the renderer, such as `imbalance=0`; `fer_lab.data.synthetic.KNOBS` lists them.

    Raises:
        ValueError: no folder for a data set, knobs for real faces, an unknown knob, or a damaged data set.
    """
    return FaceRequest(
        dataset=dataset, root=Path(root) if root else None, classes=classes, size=size, rule=rule,
        skip_bad=skip_bad, order=order, test_share=test_share, train_share=train_share, count=count, seed=seed,
        knobs=knobs,
    ).load()  # fmt: skip
