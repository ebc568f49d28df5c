"""Run, the folder of one training."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fer_lab._files import Lock, atomic_path, is_file, locked, read_csv, read_json, write_csv, write_json
from fer_lab.models import weights
from fer_lab.models.method import Method
from fer_lab.runs.environment import environment
from fer_lab.runs.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd

# What a checkpoint must share with the training that resumes it.
IDENTITY = ("method", "num_classes", "size", "options")
# Bytes of config.json and of environment.json: a thousand times those that the book has.
MAX_JSON = 2**22


def _check_plain(value: Any, where: str) -> int:
    """Bytes of the tensors in nested data; ValueError for what `torch.load(weights_only=True)` refuses."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(_check_plain(item, f"{where}[{key!r}]") for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(_check_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    # Exactly these: numpy's float64 is a float too, and is refused on reading.
    if value is None or type(value) in (bool, int, float, str):
        return 0
    kind = type(value).__name__
    raise ValueError(f"{where} is a {kind}; a checkpoint holds tensors, numbers, text, lists and dicts")


class Run:
    """The folder of one training. Nothing is made on disk before something is saved.

    `config.json`, `environment.json`, `history.csv` (a row an epoch), `checkpoint.pt` (to resume from),
    `weights.safetensors` (the result), `predictions.npz`, `figures/`. `locked_by_launcher`: the process that
    started this one holds the lock.
    """

    # In the order in which they are deleted: without weights no run is finished, and without its environment
    # none is known as one.
    FILES = (
        *("weights.safetensors", "checkpoint.pt", "predictions.npz"),
        *("history.csv", "config.json", "environment.json"),
    )

    def __init__(self, folder: str | Path, *, locked_by_launcher: bool = False):
        if folder == "":
            raise ValueError("the name of the run's folder is empty; give a folder")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file, expected the folder of a run")
        self._lock: Lock | None = None
        self._locked = locked_by_launcher

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.history)} epochs, finished={self.is_finished})"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing here: `with run.lock(): …`. Also clears half-written files.

        Inside, the same object may lock again, which does nothing. RunBusyError is raised where another process
        has it; the lock of one that died is free. Files of a run's names that are not of a run: ValueError.
        """
        if self._locked:
            yield
            return
        # Every run has written its environment first.
        there = [name for name in self.FILES if is_file(self.folder / name)]
        if there and "fer_lab" not in self.environment:
            raise ValueError(
                f"{self.folder / there[0]} is not of a run here; choose another folder, or move the file away"
            )
        with locked(self.folder / ".lock") as self._lock:
            self._locked = True
            try:
                yield
            finally:
                self._lock, self._locked = None, False

    @property
    def lock_file(self) -> list[int]:
        """The open file that holds the lock, for `parallel.launch`; none where there is no lock."""
        return [] if self._lock is None else [self._lock.file.fileno()]

    def _path(self, name: str) -> Path:
        """The path of a file that is about to be written."""
        if self._lock is not None:
            self._lock.check()
        return self.folder / name

    def clear(self) -> None:
        """Delete the run's files (not its figures), to train again in the same folder."""
        for name in self.FILES:
            self._path(name).unlink(missing_ok=True)

    @property
    def config(self) -> dict:
        """Model, recipe, data, command and request of the training; {} before they were saved."""
        return read_json(self.folder / "config.json", MAX_JSON)

    @property
    def environment(self) -> dict:
        """Where it ran; {} before the config was saved."""
        return read_json(self.folder / "environment.json", MAX_JSON)

    def save_config(self, config: dict) -> None:
        """Write config.json, and environment.json beside it.

        The config is plain data: `**model_card(model)`, recipe, dataset, fingerprint, command, … A folder that
        already holds a checkpoint or weights of another model raises CheckpointError.
        """
        if any((self.folder / name).exists() for name in ("checkpoint.pt", "weights.safetensors")):
            weights.check_identity(self.config, config, IDENTITY, self.folder, "this training")
        write_json(self._path("environment.json"), environment())
        write_json(self._path("config.json"), config)

    @property
    def history(self) -> "pd.DataFrame":
        """One row an epoch; empty before the first."""
        return read_csv(self.folder / "history.csv")

    def save_history(self, history: "pd.DataFrame") -> None:
        """Write history.csv; numbers are read back to the last bit."""
        write_csv(self._path("history.csv"), history)

    def save_checkpoint(self, state: dict) -> None:
        """Replace checkpoint.pt by nested dicts and lists of tensors, numbers and text.

        Anything else in it raises ValueError. On a full disk, DiskFullError, the previous checkpoint stays.
        """
        needed = _check_plain(state, "state")
        identity = {key: value for key, value in self.config.items() if key in IDENTITY}
        whole = {"fer_lab": weights.FORMAT, "identity": identity, "state": state}
        with atomic_path(self._path("checkpoint.pt"), needed=needed) as part, open(part, "wb") as file:
            torch.save(whole, file)

    def load_checkpoint(self) -> dict | None:
        """The state that `save_checkpoint` wrote, on the CPU; None if there is none.

        A damaged or foreign file, or one of another model than config.json's, raises CheckpointError.
        """
        path = self.folder / "checkpoint.pt"
        if not is_file(path):
            return None
        try:
            # torch.load reads a flipped bit without a word, so the archive's checksums are compared first.
            with zipfile.ZipFile(path) as archive:
                # Ours are stored as they are; a compressed one may unpack to any size.
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("compressed, so not written here")
                if damaged := archive.testzip():
                    raise ValueError(f"wrong checksum in {damaged}")
            whole = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(whole, dict) or whole.get("fer_lab") != weights.FORMAT:
                raise ValueError("not written by this version of fer_lab")
            state, identity = dict(whole["state"]), dict(whole["identity"])
        # An unpickler fed with arbitrary bytes raises nearly anything.
        except Exception as error:
            reason = str(error).split("\n")[0]
            raise weights.CheckpointError(
                f"{path} cannot be used as a checkpoint ({reason}); delete it to train from the start"
            ) from error
        weights.check_identity(identity, self.config, IDENTITY, path, "the run's config.json")
        return state

    def save_weights(self, model: Method, metrics: dict | None = None) -> None:
        """Write weights.safetensors, the training's result; see `save_model`."""
        weights.save_model(model, self._path("weights.safetensors"), metrics=metrics or {})

    def load_model(self) -> Method:
        """The trained model, in eval mode on the CPU; see `load_model`."""
        return weights.load_model(self.folder / "weights.safetensors")

    def save_predictions(self, predictions: Predictions) -> None:
        """Write predictions.npz, with embeddings if there are any."""
        predictions.save(self._path("predictions.npz"))

    def load_predictions(self) -> Predictions:
        """Read predictions.npz; see `Predictions.load`."""
        return Predictions.load(self.folder / "predictions.npz")

    @property
    def is_finished(self) -> bool:
        """Whether there are weights and a history of as many epochs as the recipe in the config asks for."""
        recipe = self.config.get("recipe")
        if not isinstance(recipe, dict) or not is_file(self.folder / "weights.safetensors"):
            return False
        epochs = recipe.get("epochs", 1)
        return isinstance(epochs, int) and len(self.history) >= epochs


def weights_file(path: Path | str) -> Path:
    """The file of weights of a run's folder, or of a bundled model (`dan`, `synthetic/dan`); a file is itself.

    A name that is empty, that no disk can have, or of no bundled model raises ValueError; a closed folder
    PermissionError.
    """
    given, path = path, Path(path)
    try:
        if weights.is_shipped_name(path):
            return weights.shipped_weights(path.name, None if path.parent == Path() else path.parent.name)
        return path if path.is_file() else Run(given).folder / "weights.safetensors"
    except PermissionError:
        raise
    except OSError as error:
        message = f"{path} cannot be there ({error.strerror}); expected a run's folder"
        raise weights.CheckpointError(message) from error


def open_model(path: Path | str) -> Method:
    """The trained model in a run's folder, in a file of weights, or a bundled one, in eval mode on the CPU.

    Raises what `weights_file` does; FileNotFoundError for nothing at the path, ValueError for a damaged file.
    """
    return weights.load_model(weights_file(path))
