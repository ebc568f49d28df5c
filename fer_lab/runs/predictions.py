"""Predictions: a model's answer for each face, in memory and in npz files of a run or of a results store."""

import contextlib
import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fer_lab._files import atomic_path, is_file

# Four hundred thousand faces with 2,048 numbers each; a small file can unpack to far more.
MAX_BYTES = 4 * 2**30
# What a file says of the faces; in a results store once for all runs on the same ones, in `SHARED`.
FACES = ("classes", "name", "fingerprint", "labels", "rows")
PARTS = (*FACES, "probabilities", "embeddings")
# No name of a run has this sign.
SHARED = "#faces"


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's answer for each face, on the CPU.

    Attributes:
        probabilities: float32 [N,C], rows sum to 1.
        labels: int64 [N], the truth, indices into `classes`.
        classes: C names.
        name, fingerprint: of the FaceSet.
        rows: int64 [N], `FaceSet.rows`, so that a face can be looked at again; counted up if not given.
        embeddings: float32 [N,D], or None.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    fingerprint: str
    rows: np.ndarray = None  # type: ignore[assignment]  # an array once it is made
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, classes = len(self.labels), tuple(str(name) for name in self.classes)
        arrays = {
            "probabilities": np.asarray(self.probabilities, dtype=np.float32),
            "labels": np.asarray(self.labels, dtype=np.int64),
            "rows": np.arange(n) if self.rows is None else np.asarray(self.rows, dtype=np.int64),
            "embeddings": None if self.embeddings is None else np.asarray(self.embeddings, dtype=np.float32),
            "classes": classes,
        }
        for key, value in arrays.items():
            object.__setattr__(self, key, value)
        if self.probabilities.shape != (n, len(classes)) or self.labels.shape != (n,):
            raise ValueError(
                f"expected probabilities [{n},{len(classes)}] for labels [{n}] of {len(classes)} classes, "
                f"got {list(self.probabilities.shape)} and labels {list(self.labels.shape)}"
            )
        if self.rows.shape != (n,) or (self.embeddings is not None and len(self.embeddings) != n):
            raise ValueError(f"rows and embeddings must have one entry for each of the {n} faces")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(classes):
            raise ValueError(f"labels must lie in 0…{len(classes) - 1}, got up to {self.labels.max()}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """int64 [N], the class of highest probability (the first of equals)."""
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """bool [N]."""
        return self.predicted == self.labels

    def wrong(self, limit: int | None = None) -> torch.Tensor:
        """Indices of the faces that were answered wrong, int64 [K], in order; the first `limit` of them."""
        return torch.from_numpy(np.flatnonzero(~self.correct)[:limit])

    def titles(self, indices: torch.Tensor | np.ndarray | Sequence[int]) -> list[str]:
        """A title "label → answer" for each of the faces at `indices`."""
        chosen = np.asarray(indices, dtype=np.int64)
        pairs = zip(self.labels[chosen], self.predicted[chosen], strict=True)
        return [f"{self.classes[label]} → {self.classes[answer]}" for label, answer in pairs]

    def answers(self) -> "Answers":
        """What a results store keeps."""
        return Answers(self.predicted, self.labels, self.classes, self.name, self.fingerprint, self.rows)

    def save(self, path: str | Path) -> None:
        """Write an npz with everything."""
        arrays = {name: getattr(self, name) for name in PARTS}
        if self.embeddings is None:
            # A part without numbers, so that a lost part is not read as a file without embeddings.
            arrays["embeddings"] = np.zeros(0)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Read what `save` wrote; FileNotFoundError without it, ValueError for a damaged or foreign file."""
        with _opened(Path(path)) as data:
            values = _read(data, PARTS)
            return cls(**values | {"embeddings": values["embeddings"] if values["embeddings"].size else None})


@dataclass(frozen=True, eq=False)
class Answers:
    """The class that a run named for each face: all that a results store keeps of its predictions.

    Probabilities would be nine tenths of the store, which is committed with every new run. What needs them,
    such as the calibration error, is among the metrics. The attributes are those of `Predictions`.
    """

    predicted: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    fingerprint: str
    rows: np.ndarray

    def __post_init__(self) -> None:
        for key in ("predicted", "labels", "rows"):
            object.__setattr__(self, key, np.asarray(getattr(self, key), dtype=np.int64))
        named = np.concatenate([self.predicted, self.labels])
        if not len(self.predicted) == len(self.labels) == len(self.rows):
            raise ValueError(f"{len(self.predicted)} answers, {len(self.labels)} labels, {len(self.rows)} rows")
        if len(named) and not 0 <= named.min() <= named.max() < len(self.classes):
            raise ValueError(f"answers and labels must lie in 0…{len(self.classes) - 1}")

    @property
    def correct(self) -> np.ndarray:
        """bool [N]."""
        return self.predicted == self.labels


def _read(data: "np.lib.npyio.NpzFile", parts: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Those members of an open file that begin with a prefix; others than `parts` are a ValueError."""
    names = {key.removeprefix(prefix): key for key in data.files if key.rpartition("/")[0] == prefix[:-1]}
    if set(names) != set(parts):
        raise ValueError(f"expected the parts {', '.join(parts)}, got {', '.join(names) or 'none'}")
    for key in names.values():
        # numpy stops where an array ends; a member's checksum is compared only at the end of the member.
        with cast(zipfile.ZipFile, data.zip).open(f"{key}.npy") as member:
            while member.read(2**20):
                pass
    values: dict[str, Any] = {name: data[key] for name, key in names.items()}
    values |= {name: str(values[name]) for name in ("name", "fingerprint", "faces") if name in values}
    return values | ({"classes": tuple(values["classes"].tolist())} if "classes" in values else {})


def save_together(path: str | Path, answers: Mapping[str, Answers]) -> None:
    """Write the answers of several runs into one npz, by the names of the runs; their order does not matter."""
    small = {"labels": np.int16, "rows": np.int32}
    arrays: dict[str, Any] = {}
    for name, one in sorted(answers.items()):
        faces = {part: np.asarray(getattr(one, part), dtype=small.get(part)) for part in FACES}
        digest = hashlib.sha256(b"\0".join(part.tobytes() for part in faces.values())).hexdigest()[:16]
        arrays |= {f"{SHARED}/{digest}/{part}": values for part, values in faces.items()}
        arrays |= {f"{name}/predicted": one.predicted.astype(np.int16), f"{name}/faces": np.asarray(digest)}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_together(path: str | Path) -> dict[str, Answers]:
    """Read what `save_together` wrote; raises as `Predictions.load`."""
    with _opened(Path(path)) as data:
        found: dict[str, Answers] = {}
        shared: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(key.rpartition("/")[0] for key in data.files if not key.startswith(SHARED)):
            own = _read(data, ("predicted", "faces"), f"{name}/")
            key = own.pop("faces")
            shared[key] = shared.get(key) or _read(data, FACES, f"{SHARED}/{key}/")
            found[name] = Answers(**own, **shared[key])
        return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["np.lib.npyio.NpzFile"]:
    """An npz, open; whatever fails while they are read is a ValueError about the file."""
    if not is_file(path):
        raise FileNotFoundError(f"{path} does not exist; a run writes it when it is evaluated")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes when unpacked, at most {MAX_BYTES:,} are expected")
        with np.load(path, allow_pickle=False) as data:
            yield data
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on arbitrary bytes
        raise ValueError(f"{path} is no readable file of predictions ({error}); evaluate again") from error
