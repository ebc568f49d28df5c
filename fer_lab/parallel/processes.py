"""Several processes on this machine: the same program in each, started by torch.distributed.run."""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

# Seconds between two looks at the processes.
POLL = 0.2
# What lightning-fabric knows as an accelerator.
DEVICES = ("auto", "cpu", "cuda", "mps", "tpu")


def count_devices(device: str = "auto") -> tuple[int, str]:
    """The number of devices here, each for one process, and what they are ("GPUs", "processor cores", …).

    "auto" counts GPUs where there are any, else processor cores; "cuda" and "cpu" count one kind.
    """
    gpus = torch.cuda.device_count()
    if device == "cuda" or (device == "auto" and gpus):
        return gpus, "GPU" if gpus == 1 else "GPUs"
    if device not in ("auto", "cpu"):
        return 1, f"{device} device"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores, "processor core" if cores == 1 else "processor cores"


def check_devices(devices: int, device: str = "auto") -> None:
    """Raise ValueError for an unknown kind of device, or fewer devices than requested, with their number."""
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; expected one of {', '.join(DEVICES)}")
    there, kind = count_devices(device)
    if not 1 <= devices <= there:
        raise ValueError(f"there {'is' if there == 1 else 'are'} {there} {kind} here, not {devices}")


def launch(
    devices: int,
    arguments: Sequence[str],
    *,
    device: str = "auto",
    on_poll: Callable[[], None] = lambda: None,
    keep: Sequence[int] = (),
) -> None:
    """Run `python -m ARGUMENTS` in several processes that know of each other, and wait for them.

    Each process gets cores ÷ devices threads, and its rank in the environment, where Fabric finds it. Their
    output is shown only where one fails. Raises ValueError for more devices than there are, and RuntimeError,
    with the first failure's message, where a process failed.

    Args:
        devices: number of processes.
        arguments: a module and its arguments. Wrap the module's `main` in torch's `record`, so that a failure
            reports its message and not only an exit code. Let `main` begin with `stop_with_launcher`, so that
            it ends when the launcher is killed.
        device: as in `count_devices`.
        on_poll: called several times a second meanwhile.
        keep: open files that stay open until the last process has ended, such as a lock. Not on Windows.
    """
    check_devices(devices, device)
    threads = str(max(1, count_devices("cpu")[0] // devices))
    source = str(Path(__file__).resolve().parents[2])
    with tempfile.TemporaryDirectory(prefix="fer_lab-launch-") as scratch:
        failure, output = Path(scratch) / "error.json", Path(scratch) / "output.txt"
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "FER_LAB_QUIET": "1",
            "PYTHONSAFEPATH": "1",
            # torch.distributed.run writes the first failure into this file.
            "TORCHELASTIC_ERROR_FILE": str(failure),
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        }
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        with (
            open(output, "wb") as log,
            subprocess.Popen(
                # -P and PYTHONSAFEPATH: without them a file torch.py in the current folder would be imported.
                [sys.executable, "-P", *torchrun, "--nproc-per-node", str(devices), "-m", *arguments],
                env=environment,
                pass_fds=keep if os.name == "posix" else (),
                # The other end closes when this process ends, even by a signal; see `stop_with_launcher`.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                while process.poll() is None:
                    time.sleep(POLL)
                    on_poll()
            finally:
                # torchrun ends the processes that it has started.
                process.terminate()
                process.wait()
        if process.returncode:
            raise RuntimeError(_reason(failure, output.read_text(errors="replace"), process.returncode))


def stop_with_launcher() -> None:
    """End this process, which `launch` started, soon after its launcher ends, even if that was killed.

    At its own end it leaves the group of processes first: Python may abort if threads of the group still run.
    """
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    atexit.register(_leave_group)


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _stop_at_end_of_input() -> None:
    # os.read and not sys.stdin: a waiting thread would hold sys.stdin's lock when Python ends.
    while os.read(0, 1):
        pass
    os._exit(1)


def _reason(failure: Path, output: str, code: int) -> str:
    """The message of the first process that failed, or its exit code and the end of the output."""
    try:
        message = json.loads(failure.read_text())["message"]
        text = message["message"] if isinstance(message, dict) else message
    except (OSError, ValueError, KeyError, TypeError):
        # The rest is torchrun's own traceback.
        words = re.split(r"^.*torch/distributed/elastic/", output, maxsplit=1, flags=re.MULTILINE)[0]
        died = re.search(r"\(exitcode: (-?\d+)\)", output)
        code = int(died[1]) if died else code
        why = ", killed; by a lack of memory?" if code == -signal.SIGKILL else ""
        return f"a process ended with code {code}{why}: {words.strip()[-2000:]}"
    kind, _, rest = text.partition(": ")
    return rest if kind.isidentifier() and rest else text
