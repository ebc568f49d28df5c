"""Run notebooks in processes of this machine, a few at a time.

A *cell* here is one notebook of a grid, as `fer_lab.book.run` describes it: parameters, time limit, files.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fer_lab._files import atomic_path, is_file, read_json, write_text
from fer_lab._progress import say
from fer_lab.book.result import NotebookResult
from fer_lab.book.worker import KERNEL

# Below this much free disk space, assume that a worker that died without a message ran out of space.
FULL = 2**16
OnResult = Callable[[NotebookResult], Any]


def run_in_pool(cells: Sequence[dict], jobs: int, on_result: OnResult) -> list[NotebookResult]:
    """Run notebooks here, `jobs` at a time, each with cores ÷ jobs threads; results in the notebooks' order."""

    def work(number: int, cell: dict) -> NotebookResult:
        say(f"{cell['name']} begins ({number}/{len(cells)})")
        return run_cell(cell, environment, running)

    running: set[subprocess.Popen] = set()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with clean_environment(threads) as environment, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, number, cell) for number, cell in enumerate(cells, 1)]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in (one for one in futures if one in done):
                    on_result(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # SIGKILL, not SIGTERM: a worker that exits cleanly would record its notebook as failed.
            for worker in list(running):
                worker.kill()
            raise
    return [future.result() for future in futures]


def run_cell(
    cell: dict, environment: dict[str, str], running: set[subprocess.Popen] | None = None
) -> NotebookResult:
    """Run one notebook in a worker of its own, which `running` holds; one that dies is a failed notebook."""
    running = set() if running is None else running
    run_dir = Path(cell["run_dir"])
    request, answer = run_dir / "request.json", run_dir / "result.json"
    wanted = json.dumps(cell, indent=1)
    # An interrupted run of the same notebook is continued. Whatever else is there belongs to another run.
    interrupted = is_file(request) and request.read_text() == wanted and not answer.exists()
    if request.exists() and not interrupted:
        _set_aside(run_dir, Path(cell["output"]))
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(request, wanted)
    start = time.monotonic()
    with open(run_dir / "log.txt", "w+") as log:
        # -P: a Python file that lies in the run's folder must not take the place of a module.
        command = [sys.executable, "-P", "-m", "fer_lab.book.worker", str(request)]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        worker = subprocess.Popen(command, env=environment, cwd=run_dir, start_new_session=True, **streams)
        running.add(worker)
        try:
            code = worker.wait()
        finally:
            running.discard(worker)
        if code == 0:
            return NotebookResult(**json.loads(answer.read_text()))
        log.seek(0)
        printed = log.read()[-4000:].strip()
    last = printed.rpartition("\n")[2]
    if not last and (free := shutil.disk_usage(run_dir).free) < FULL:
        last = f"no space in {run_dir}, {free:,} bytes free; make room and run again"
    error = f"the process that ran it ended with code {code}" + (f": {last}" if last else "")
    return NotebookResult(cell["name"], seconds=time.monotonic() - start, error=error, traceback=printed)


def _set_aside(run_dir: Path, executed: Path) -> None:
    """Move a run's folder, with its executed notebook, to the book's folder `earlier`."""
    earlier = run_dir.parents[1] / "earlier"
    earlier.mkdir(exist_ok=True)
    places = (earlier / f"{run_dir.name}-{number}" for number in itertools.count(1))
    place = next(place for place in places if not place.exists())
    if executed.exists():
        with atomic_path(run_dir / executed.name) as copy:
            shutil.copyfile(executed, copy)
    run_dir.rename(place)


def recorded(run_dir: Path) -> tuple[dict, NotebookResult] | None:
    """The request and the result that a run's folder holds; None unless it has both."""
    try:
        request = read_json(run_dir / "request.json")
        return request, NotebookResult(**read_json(run_dir / "result.json"))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def clean_environment(threads: int) -> Iterator[dict[str, str]]:
    """Environment of a worker: this interpreter's kernel, no IPython start-up files, `threads` threads.

    No module is imported from the folder that the worker and the kernel run in.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory(prefix="fer_lab-kernel-") as scratch:
        write_kernel_spec(
            Path(scratch) / "kernels" / KERNEL, extra_arguments=["--InteractiveShellApp.ignore_cwd=True"]
        )
        environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[key] = str(threads)
        folders = [Path(__file__).resolve().parents[2]]
        # As seen from here: in the run's folder "." would be that folder.
        folders += [Path(one).resolve() for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
        yield environment | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "JUPYTER_PATH": scratch,
            "IPYTHONDIR": f"{scratch}/ipython",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "TQDM_DISABLE": "1",
            "FER_LAB_QUIET": "1",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "PYTHONSAFEPATH": "1",
        }
