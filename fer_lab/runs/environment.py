"""Where a process runs: versions, commit, device; and commands as others can run them."""

import functools
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import fer_lab
from fer_lab._device import device_name


def environment() -> dict[str, Any]:
    """Where this process runs: python, torch, fer_lab, commit, device, cpu, cores, threads.

    `commit` is the checkout's, with "+changes" where the package's code differs; "" for an installed package.
    """
    return {**_machine(), "threads": torch.get_num_threads()}


@functools.cache
def _machine() -> dict[str, Any]:
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
    }


def _commit(root: Path) -> str:
    # Without this test a package installed inside somebody's project would report that project's commit.
    if not (root / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        # Without optional locks: a run must not stand in the way of somebody's commit.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "fer_lab") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def portable_command(command: str | Sequence[str] | None = None) -> str:
    """A command, by default this process's own, as others can run it: FER_DATA's folder becomes `$FER_DATA`.

    A relative folder stays, since it may be a word of another meaning, such as the name of a data set.
    """
    if command is None:
        program = Path(sys.argv[0])
        command = ["fer-lab" if program.stem in ("fer-lab", "cli") else program.name, *sys.argv[1:]]
    line = command if isinstance(command, str) else shlex.join(command)
    folder = os.environ.get("FER_DATA", "").rstrip("/\\")
    if os.path.isabs(folder):
        line = re.sub(r"(?<![\w./\\-])" + re.escape(folder) + r"(?![\w.-])", lambda _: "$FER_DATA", line)
    return line
