"""Locks, small tables, and where a process runs."""

import contextlib
import functools
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

import fer_lab
from fer_lab.atomic import atomic_path
from fer_lab.hardware import device_name


class RunBusyError(RuntimeError):
    """Another process is writing to the same folder."""


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock on `path`, which the system lets go when the process dies.

    Raises:
        RunBusyError: another process, or this one a second time, holds it for longer than `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with open(path, "a+") as file:
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise RunBusyError(
                    f"{path.parent} is in use by another process (number {holder}); "
                    "wait for it, stop it, or choose another folder"
                )
            time.sleep(0.02)
        # The lock holds on a full disk too, where nobody learns whose it is.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        for leftover in path.parent.rglob(".*.part*"):
            leftover.unlink(missing_ok=True)
        yield


def _try_lock(file) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # Far behind the text, or the lock would also keep others from reading the holder's number.
        file.seek(2**30)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_json(path: Path) -> dict:
    """The object in a JSON file, {} where there is none.

    Raises:
        ValueError: the file is not one JSON object.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete the run's folder and train again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, expected an object; delete it")
    return data


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_csv(path: Path, columns: dict[str, str] | None = None) -> pd.DataFrame:
    """A table; with `columns` (name → dtype) exactly these, text columns kept as text.

    Raises:
        ValueError: the file is damaged or has other columns.
    """
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in (columns or {}).items()})
    options = {}
    if columns:
        # A class called "NA", or no class at all, is text and not a missing number.
        numbers = [name for name, kind in columns.items() if kind != "str"]
        options = {"dtype": columns, "keep_default_na": False, "na_values": {name: [""] for name in numbers}}
    try:
        table = pd.read_csv(path, float_precision="round_trip", **options)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable table: {error}") from error
    if columns and list(table.columns) != list(columns):
        raise ValueError(f"{path} has columns {list(table.columns)}, expected {list(columns)}")
    return table


@functools.cache
def environment() -> dict:
    """Where this process runs: python, torch, fer_lab, commit, device, cpu, cores, threads.

    `commit` is the checkout's commit with "+changes" where the package's code differs from it, and ""
    for an installed package.
    """
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(errors="replace"), re.M)
        cpu = names[0] if names else cpu
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fer_lab": fer_lab.__version__,
        "commit": _commit(Path(fer_lab.__file__).parents[1]),
        "device": device_name(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _commit(root: Path) -> str:
    # Without this test a package installed inside somebody's project would report that project's commit.
    if not (root / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        return subprocess.run(
            # Without optional locks: a run must not stand in the way of somebody's commit.
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "fer_lab") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def portable_command(command: str | Sequence[str] | None = None) -> str:
    """A command as others can run it: the folder in the variable FER_DATA is written `$FER_DATA`.

    Args:
        command: a line, or its words; None is this process's own.
    """
    if command is None:
        program = Path(sys.argv[0])
        command = ["fer-lab" if program.stem in ("fer-lab", "cli") else program.name, *sys.argv[1:]]
    line = command if isinstance(command, str) else shlex.join(command)
    if folder := os.environ.get("FER_DATA", "").rstrip("/\\"):
        line = re.sub(re.escape(folder) + r"(?![\w.-])", lambda _: "$FER_DATA", line)
    return line
