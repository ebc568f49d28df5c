"""Where notebooks run: in processes of this machine, or on the machines of a Ray cluster.

A cell is one notebook with its parameters and the folder that it writes to, as `workbook` describes it. Ray is
an optional extra, imported when it is asked for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fer_lab._files import atomic_path
from fer_lab.book.worker import KERNEL, NotebookResult

# How often a task starts again whose machine or process was lost.
RETRIES = 3
# With fewer bytes free, a worker that says nothing had no room for its last words.
FULL = 2**16
OnResult = Callable[[NotebookResult], None]


def run_in_pool(cells: Sequence[dict], jobs: int, on_result: OnResult) -> list[NotebookResult]:
    """Run notebooks here, `jobs` at a time, each with cores ÷ jobs threads; results in the notebooks' order."""
    running: set[subprocess.Popen] = set()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with clean_environment(threads) as environment, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_cell, cell, environment, running) for cell in cells]
        try:
            results = []
            for future in futures:
                results.append(future.result())
                on_result(results[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Killed, not asked: a worker that ends in order leaves a result, as if its notebook had failed.
            for worker in list(running):
                worker.kill()
            raise
    return results


def run_cell(cell: dict, environment: dict, running: set | None = None) -> NotebookResult:
    """Run one notebook in a worker of its own; a worker that dies is a failed notebook.

    Args:
        cell: as `workbook` makes it, for `fer_lab.book.worker`.
        environment: of the worker, as `clean_environment` gives it.
        running: holds the worker's process meanwhile.
    """
    running = set() if running is None else running
    run_dir = Path(cell["run_dir"])
    request, answer = run_dir / "request.json", run_dir / "result.json"
    wanted = json.dumps(cell, indent=1)
    # What an interrupted run of the same notebook left is continued; anything else there is from another day.
    interrupted = request.exists() and request.read_text() == wanted and not answer.exists()
    if request.exists() and not interrupted:
        shutil.rmtree(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(request, needed=len(wanted)) as whole:
        whole.write_text(wanted)
    start = time.monotonic()
    with open(run_dir / "log.txt", "w+") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "fer_lab.book.worker", str(request)],
            env=environment,
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running.add(worker)
        try:
            code = worker.wait()
        finally:
            running.discard(worker)
        if code == 0:
            return NotebookResult(**json.loads(answer.read_text()))
        log.seek(0)
        said = log.read()[-4000:].strip()
        last = said.rpartition("\n")[2]
        if not last and (free := shutil.disk_usage(run_dir).free) < FULL:
            last = f"no space in {run_dir}, {free:,} bytes free; make room and run again"
        return NotebookResult(
            cell["name"],
            seconds=time.monotonic() - start,
            error=f"the process that ran it ended with code {code}" + (f": {last}" if last else ""),
            traceback=said,
        )


@contextmanager
def clean_environment(threads: int) -> Iterator[dict[str, str]]:
    """What workers see: this interpreter's kernel, nobody's IPython start-up files, so many threads."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory(prefix="fer_lab-kernel-") as scratch:
        write_kernel_spec(Path(scratch) / "kernels" / KERNEL)
        environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[key] = str(threads)
        source = str(Path(__file__).resolve().parents[2])
        yield environment | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "JUPYTER_PATH": scratch,
            "IPYTHONDIR": f"{scratch}/ipython",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "TQDM_DISABLE": "1",
            "FER_LAB_QUIET": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        }
