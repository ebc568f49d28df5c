"""Predictions: what a model said of each face, in memory and in an npz file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_lab._files import atomic_path

# Four hundred thousand faces with 2,048 numbers each; a small file can unpack to far more.
MAX_BYTES = 4 * 2**30


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of each face, on the CPU.

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
    rows: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def __post_init__(self):
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

    def save(self, path: str | Path, *, small: bool = False) -> None:
        """Write an npz; `small` keeps float16 probabilities, no embeddings, and every decision as it was."""
        probabilities = self.probabilities
        data = {"classes": np.array(self.classes), "name": self.name, "fingerprint": self.fingerprint}
        if small:
            probabilities = _half_with_same_winner(probabilities)
            data |= {"labels": self.labels.astype(np.int16), "rows": self.rows.astype(np.int32)}
        else:
            data |= {"labels": self.labels, "rows": self.rows}
            if self.embeddings is not None:
                data["embeddings"] = self.embeddings
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, probabilities=probabilities, **data)

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged or foreign file.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; a run writes it when it is evaluated")
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"{size:,} bytes when unpacked, at most {MAX_BYTES:,} are expected")
            with np.load(path, allow_pickle=False) as data:
                return cls(
                    probabilities=data["probabilities"],
                    labels=data["labels"],
                    classes=tuple(data["classes"].tolist()),
                    name=str(data["name"]),
                    fingerprint=str(data["fingerprint"]),
                    rows=data["rows"],
                    embeddings=data.get("embeddings"),
                )
        except Exception as error:  # numpy, zipfile and zlib raise nearly anything on arbitrary bytes
            raise ValueError(f"{path} is no readable file of predictions ({error}); evaluate again") from error


def _half_with_same_winner(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities [N,C] as float16, where a tie made by rounding is lifted by one step."""
    half = probabilities.astype(np.float16)
    winner = probabilities.argmax(1)
    lost = np.flatnonzero(half.argmax(1) != winner)
    half[lost, winner[lost]] = np.nextafter(half[lost].max(1), np.float16(2))
    return half
