"""Run notebooks on the machines of a Ray cluster. Ray is an optional extra, imported when first needed."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from fer_lab.book.pool import OnResult, clean_environment, recorded, run_cell
from fer_lab.book.result import NotebookResult

# How often a notebook is started again after its machine or process was lost.
RETRIES = 3


def import_ray() -> ModuleType:
    """Ray, with its usage reports off; ImportError with the line that installs it where it is missing."""
    # Ray reads this when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("the engine ray needs Ray: pip install 'fer_lab[scale]'") from error
    return ray


def run_on_ray(cells: Sequence[dict], jobs: int, on_result: OnResult) -> list[NotebookResult]:
    """Run notebooks on the running Ray cluster, else on one of this machine; results in the cells' order.

    On a cluster with GPUs each notebook has one GPU to itself. Without GPUs a machine runs `jobs` notebooks at
    a time. All machines must share the disk of the cells' paths. A notebook that has finished before with the
    same parameters is not run again. A notebook whose Ray process is lost starts again on another machine, from
    its last checkpoints; one that was lost 1 + `RETRIES` times has its `error` set.
    """
    ray = import_ray()
    results = {i: done for i, cell in enumerate(cells) if (done := finished(cell))}
    for done in results.values():
        on_result(done)
    if len(results) == len(cells):
        return list(results.values())
    mine = not ray.is_initialized()
    if mine:
        _connect(ray)
    try:
        threads, needs = _share_of_a_machine(ray.nodes(), jobs)
        task = ray.remote(_task).options(max_retries=RETRIES, **needs)
        pending = {task.remote(cell, threads): i for i, cell in enumerate(cells) if i not in results}
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            i = pending.pop(reference)
            results[i] = _result_of(ray, reference, cells[i])
            on_result(results[i])
    finally:
        if mine:
            ray.shutdown()
    return [results[i] for i in range(len(cells))]


def _connect(ray: ModuleType) -> None:
    """Join the cluster that is running, or start one on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        # Ray's default niceness of 15 starves a notebook whenever another program runs.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # A small object store is enough: a notebook's products are files.
        ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, **quiet)


def _share_of_a_machine(nodes: Sequence[dict], jobs: int) -> tuple[int, dict[str, float]]:
    """(threads of a notebook, the resources it asks Ray for) on a cluster with these nodes."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [have for have in resources if have.get("GPU")]
    if with_gpus:
        return max(1, int(min(have["CPU"] // have["GPU"] for have in with_gpus))), {"num_gpus": 1}
    cores = max(1, int(min(have["CPU"] for have in resources if have.get("CPU"))) // jobs)
    return cores, {"num_cpus": cores}


def _task(cell: dict, threads: int) -> dict:
    """Run one notebook on the machine that Ray chose."""
    if not Path(cell["source"]).exists():
        where = f"{cell['source']} is not on {platform.node()}"
        error = f"{where}; notebooks and results must lie on a disk that all share"
        return asdict(NotebookResult(cell["name"], error=error))
    with clean_environment(threads) as environment:
        return asdict(run_cell(cell, environment))


def _result_of(ray: ModuleType, reference: Any, cell: dict) -> NotebookResult:
    try:
        return NotebookResult(**ray.get(reference))
    except ray.exceptions.RayError as error:
        reason = f"lost {1 + RETRIES} times: {str(error).splitlines()[0]}"
        return NotebookResult(cell["name"], error=reason, traceback=str(error))


def finished(cell: dict) -> NotebookResult | None:
    """The result of the same cell if it has run to its end before without an error."""
    request, result = recorded(Path(cell["run_dir"])) or (None, None)
    if result is None or request != cell or result.error or not Path(result.path).exists():
        return None
    return result
