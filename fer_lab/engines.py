"""Where notebooks run: in processes of this machine, or on the machines of a Ray cluster.

A cell is one notebook with its parameters and the folder that it writes to, as `workbook` describes it. Ray is
an optional extra, imported when it is asked for.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from fer_lab.atomic import atomic_path
from fer_lab.worker import KERNEL, NotebookResult

ENGINES = ("pool", "ray")
# How often a task starts again whose machine or process was lost.
RETRIES = 3
# With fewer bytes free, a worker that says nothing had no room for its last words.
FULL = 2**16
NO_RAY = "the engine ray needs Ray, which is not installed: pip install 'fer_lab[scale]'"
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
        cell: as `workbook` makes it, for `fer_lab.worker`.
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
            [sys.executable, "-m", "fer_lab.worker", str(request)],
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
        source = str(Path(__file__).resolve().parent.parent)
        yield environment | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "JUPYTER_PATH": scratch,
            "IPYTHONDIR": f"{scratch}/ipython",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "TQDM_DISABLE": "1",
            "FER_LAB_QUIET": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        }


# ---------------------------------------------------------------------------------------------------------
# Ray


def check_engine(engine: str) -> None:
    """Raise ValueError for an unknown engine, ImportError with the line that installs it for one not there."""
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "ray":
        _import_ray()


def _import_ray():
    # Before the import, which reads it: nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(NO_RAY) from error
    return ray


def run_on_ray(cells: Sequence[dict], jobs: int, on_result: OnResult) -> list[NotebookResult]:
    """Run notebooks on a Ray cluster: the one that is running, else one of this machine alone.

    Where the cluster has GPUs, each notebook has one to itself, else a machine runs `jobs` at a time. What has
    finished before, with the same notebook and parameters, is not run again. A notebook whose Ray process is
    lost starts again elsewhere, and goes on from its checkpoints.

    Args:
        cells: their paths must lie on a file system that all machines share.
        jobs: notebooks at a time on a machine without GPUs.
        on_result: called with each result as it comes.

    Returns:
        Results in the cells' order; one that was lost `RETRIES` times more has its `error` set.

    Raises:
        ImportError: Ray is not installed.
    """
    ray = _import_ray()
    results = {i: done for i, cell in enumerate(cells) if (done := finished(cell)) is not None}
    for done in results.values():
        on_result(done)
    if len(results) == len(cells):
        return [results[i] for i in range(len(cells))]
    mine = not ray.is_initialized()
    if mine:
        _connect(ray)
    try:
        threads, needs = _share_of_a_machine(ray.nodes(), jobs)
        task = ray.remote(_task).options(max_retries=RETRIES, **needs)
        pending = {task.remote(cell, threads): i for i, cell in enumerate(cells) if i not in results}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            i = pending.pop(done)
            results[i] = _result_of(ray, done, cells[i])
            on_result(results[i])
    finally:
        if mine:
            ray.shutdown()
    return [results[i] for i in range(len(cells))]


def _connect(ray) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        # Ray's own choice is the lowest priority but four, under which a notebook starves beside anything else.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Results are small: what the notebooks make is in files.
        ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, **quiet)


def _share_of_a_machine(nodes: Sequence[dict], jobs: int) -> tuple[int, dict[str, float]]:
    """(threads of a notebook, what of a machine it takes) on a cluster with these nodes."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [have for have in resources if have.get("GPU")]
    if with_gpus:
        return max(1, int(min(have["CPU"] // have["GPU"] for have in with_gpus))), {"num_gpus": 1}
    cores = max(1, int(min(have["CPU"] for have in resources if have.get("CPU"))) // jobs)
    return cores, {"num_cpus": cores}


def _task(cell: dict, threads: int) -> dict:
    """Run one notebook on whatever machine this is."""
    if not Path(cell["source"]).exists():
        there = platform.node()
        missing = f"{cell['source']} is not on {there}; notebooks and results must lie on a disk that all share"
        return asdict(NotebookResult(cell["name"], error=missing))
    with clean_environment(threads) as environment:
        return asdict(run_cell(cell, environment))


def _result_of(ray, done, cell: dict) -> NotebookResult:
    try:
        return NotebookResult(**ray.get(done))
    except ray.exceptions.RayError as error:
        reason = f"lost {1 + RETRIES} times: {str(error).splitlines()[0]}"
        return NotebookResult(cell["name"], error=reason, traceback=str(error))


def finished(cell: dict) -> NotebookResult | None:
    """The result of the very same cell if it has run to its end before, without an error."""
    run_dir = Path(cell["run_dir"])
    try:
        if json.loads((run_dir / "request.json").read_text()) != cell:
            return None
        result = NotebookResult(**json.loads((run_dir / "result.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return result if not result.error and Path(result.path).exists() else None
