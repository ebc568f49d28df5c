"""Recipe: the settings of one training, as plain data that a run can write and read."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_lab.data.augmentation import Augmentation, check_number

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "exponential", "one_cycle")
SAMPLERS = ("shuffle", "balanced")
NEGATIVES = ("by_frequency", "by_class")
PRECISIONS = ("fp32", "bf16", "auto")


def check_choice(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise ValueError where an option is not one of those there are."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimiser, schedule, augmentation, epochs and seed of one training; ValueError for a wrong value."""

    epochs: int  # passes over the training faces
    batch_size: int  # faces per step (pairs or quadruplets for the methods that train on them)
    optimizer: str = "sgd"  # one of `OPTIMIZERS`
    lr: float = 0.1  # learning rate; the highest one under "one_cycle"
    momentum: float = 0.9  # of SGD
    # L2 for SGD and Adam, decoupled for AdamW; biases and norms are decayed too, as in the four papers' codes.
    weight_decay: float = 0.0
    # "step" multiplies by `gamma` every `step_epochs`, "exponential" by `gamma` every epoch; "one_cycle" moves
    # every step, up over `warmup` of the run, then down to zero by a cosine.
    schedule: str = "constant"
    step_epochs: int = 10
    gamma: float = 0.1
    warmup: float = 0.2
    label_smoothing: float = 0.0  # share of each hard label spread evenly over the classes, 0…1
    soft_targets: bool = False  # train on the annotators' vote shares where the faces have them
    sampler: str = "shuffle"  # "balanced" draws classes with equal probability
    # A quadruplet's negatives: all faces of other classes, or one other class drawn uniformly ("by_class").
    negatives: str = "by_frequency"
    epoch_fraction: float = 1.0  # share of the faces that counts as one epoch, 0…1
    sam_rho: float = 0.0  # radius of sharpness-aware minimisation; 0 is off
    ema_decay: float = 0.0  # per step, of the averaged weights that are evaluated and kept; 0 is off
    clip_norm: float = 0.0  # largest gradient norm; 0 is off
    # Mixed pairs of a batch's faces, and their targets with them: a weighted mean of both (Zhang et al., arXiv
    # 1710.09412), or a rectangle of one in the other (Yun et al., arXiv 1905.04899). The parameter of the Beta
    # distribution that draws the shares of a batch; 0 is off. With both, each batch takes one of them.
    mixup: float = 0.0
    cutmix: float = 0.0
    # Of 1 − cosine between a face's map and the skin that its active units move; 0 is off. Only rendered faces
    # have it.
    map_weight: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)  # random changes to each training face
    # "bf16" is autocast; "auto" is bf16 on a processor with native units for it, else float32, on a GPU as
    # TensorFloat-32.
    precision: str = "fp32"
    compile: bool = False  # compile the training step with torch.compile; docs/speed.md says what that gains
    seed: int = 0  # of batches, augmentation and dropout; 0…2³² − 1, since torch reads no more bits

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("sampler", self.sampler, SAMPLERS)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_choice("precision", self.precision, PRECISIONS)
        if not isinstance(self.compile, bool):
            raise ValueError(f"compile must be true or false, got {self.compile!r}")
        for f in dataclasses.fields(self):
            if f.type is float:
                check_number(f.name, getattr(self, f.name))
        for key in ("epochs", "batch_size", "step_epochs"):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                raise ValueError(f"{key} must be a whole number of at least 1, got {value!r}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be a whole number of 0…{2**32 - 1:,}, got {self.seed!r}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr!r}")
        for key in ("label_smoothing", "ema_decay", "warmup", "momentum"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key} must lie in [0, 1), got {getattr(self, key)!r}")
        if not 0 < self.epoch_fraction <= 1:
            raise ValueError(f"epoch_fraction must lie in (0, 1], got {self.epoch_fraction!r}")
        for key in ("weight_decay", "sam_rho", "clip_norm", "map_weight", "mixup", "cutmix"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must not be negative, got {getattr(self, key)!r}")
        if self.map_weight and (self.mixup or self.cutmix):
            raise ValueError("a mixed face has no map to teach: give map_weight, or mixup and cutmix")

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed; ValueError for an unknown field or a wrong value."""
        known = [f.name for f in dataclasses.fields(self)]
        if unknown := [key for key in changes if key not in known]:
            raise ValueError(f"no recipe field {', '.join(unknown)}; there are {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`."""
        data = dict(data)
        if isinstance(data.get("augmentation"), dict):
            data["augmentation"] = Augmentation.from_dict(data["augmentation"])
        return cls(**data)


# What the scripts of POSTER's and of QCS's authors have in common.
ADAM_SAM = Recipe(epochs=1, batch_size=1, optimizer="adam", schedule="exponential", gamma=0.98, sam_rho=0.05)
