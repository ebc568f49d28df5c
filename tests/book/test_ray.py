"""A grid of notebooks on a Ray cluster of this machine, one of whose processes is killed in the middle."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from fer_lab.book import ray as on_ray
from fer_lab.book.ray import finished, run_on_ray
from fer_lab.book.result import NotebookResult
from fer_lab.book.run import reproduce

PARAMETERS = """profile = "smoke"
dataset = "synthetic"
data_root = ""
seed = 0
run_dir = ""
heads = 1"""
# A notebook runs in a kernel, that in a process of its own, and that was started by a process of Ray's. With
# seed 1 the latter dies the first time.
KILL = """import os, signal, time
from pathlib import Path
from fer_lab.book.notebook import headline
mark = Path(run_dir).parent / f"killed_{heads}"
if seed == 1 and not mark.exists():
    mark.touch()
    started_by = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(started_by), signal.SIGKILL)
    time.sleep(60)"""
SAY = "headline(seed=seed, product=seed * heads, threads=int(os.environ['OMP_NUM_THREADS']))"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A notebook that kills, and one that fails where the product is 2."""
    folder = tmp_path_factory.mktemp("shelf")
    for name, cells in {"00_killed": [KILL, SAY], "01_fails": ["assert seed * heads != 2"]}.items():
        tagged = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)])
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


def grid(shelf, out, **options):
    return reproduce(
        folder=shelf, out=out, seeds=(0, 1), engine="ray", jobs=2, grid={"heads": ["1", "2"]}, **options
    )


@pytest.fixture(scope="module")
def ray():
    """Ray on two cores, whatever there are."""
    ray = pytest.importorskip("ray")
    if not Path("/proc").exists():
        pytest.skip("the notebook finds out in /proc who started it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=2, num_gpus=0, object_store_memory=100 * 2**20, **settings)
        yield ray
        ray.shutdown()


@pytest.fixture(scope="module")
def run(ray, shelf, tmp_path_factory):
    """(folder, results, results as they came) of a grid on Ray."""
    out, came = tmp_path_factory.mktemp("book"), []
    results = grid(shelf, out, notebooks=["00"], on_result=came.append)
    return out, results, came


def test_all_results_are_there_although_a_process_was_killed(run):
    out, results, _ = run
    assert sorted(path.name for path in (out / "runs").glob("killed_*")) == ["killed_1", "killed_2"]
    assert [(r.notebook, r.error) for r in results] == [
        ("00_killed_seed0_heads=1", ""),
        ("00_killed_seed0_heads=2", ""),
        ("00_killed_seed1_heads=1", ""),
        ("00_killed_seed1_heads=2", ""),
    ]
    assert [r.headline for r in results] == [
        {"seed": seed, "product": seed * heads, "threads": 1} for seed in (0, 1) for heads in (1, 2)
    ]


def test_results_come_when_they_are_there(run):
    _, results, came = run
    assert sorted(r.notebook for r in came) == [r.notebook for r in results]
    # Killed processes come last, whatever their place in the grid.
    assert {r.headline["seed"] for r in came[:2]} == {0}


def test_what_has_finished_is_not_run_again_and_what_failed_is(run, shelf):
    out, results, _ = run
    before = {r.notebook: Path(r.path).stat().st_mtime_ns for r in results}
    first = grid(shelf, out)
    assert {r.notebook: Path(r.path).stat().st_mtime_ns for r in first if r.notebook in before} == before
    assert [r.notebook for r in first if r.error] == ["01_fails_seed1_heads=2"]
    again = {r.notebook: r for r in grid(shelf, out)}
    assert [name for name, r in again.items() if r not in first] == ["01_fails_seed1_heads=2"]


# ---------------------------------------------------------------------------------------------------------
# Without a cluster


def cell(folder, **changes):
    """A cell that has finished, in `folder`."""
    run_dir = folder / "runs" / "a"
    run_dir.mkdir(parents=True, exist_ok=True)
    cell = {"name": "a", "source": str(folder / "a.ipynb"), "run_dir": str(run_dir), "parameters": {"lr": 0.1}}
    (run_dir / "request.json").write_text(json.dumps(cell))
    result = {"notebook": "a", "seconds": 2.0, "error": "", "path": str(folder / "a.ipynb")} | changes
    (run_dir / "result.json").write_text(json.dumps(result))
    (folder / "a.ipynb").touch()
    return cell


def test_finished_is_the_same_cell_without_an_error(tmp_path):
    done = cell(tmp_path)
    assert finished(done).seconds == 2.0
    assert finished(done | {"parameters": {"lr": 0.2}}) is None
    assert finished(done | {"run_dir": str(tmp_path)}) is None
    (tmp_path / "a.ipynb").unlink()
    assert finished(done) is None
    assert finished(cell(tmp_path, error="cell 2 of 3: ZeroDivisionError")) is None
    (tmp_path / "runs" / "a" / "result.json").write_text("{ half")
    assert finished(done) is None


def test_a_grid_that_has_finished_needs_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lab.book.ray.import_ray", lambda: None)
    came = []
    (result,) = run_on_ray([cell(tmp_path)], 1, came.append)
    assert came == [result]
    assert result.notebook == "a"


@pytest.mark.parametrize(
    ("nodes", "jobs", "threads", "needs"),
    [
        ([{"CPU": 8.0}], 1, 8, {"num_cpus": 8}),
        ([{"CPU": 8.0}, {"CPU": 4.0}], 2, 2, {"num_cpus": 2}),
        ([{"CPU": 2.0}], 4, 1, {"num_cpus": 1}),
        ([{"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}], 1, 4, {"num_gpus": 1}),
        ([{"CPU": 1.0, "GPU": 2.0}], 1, 1, {"num_gpus": 1}),
        ([{"memory": 1.0}, {"CPU": 4.0}], 1, 4, {"num_cpus": 4}),
    ],
)
def test_a_notebook_takes_a_gpu_or_its_share_of_the_cores(nodes, jobs, threads, needs):
    lost = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}}
    alive = [{"Alive": True, "Resources": have} for have in nodes]
    assert on_ray._share_of_a_machine([lost, *alive], jobs) == (threads, needs)


def test_a_machine_that_does_not_share_the_disk_says_so(tmp_path):
    result = NotebookResult(**on_ray._task({"name": "a", "source": str(tmp_path / "no.ipynb")}, 1))
    assert "no.ipynb is not on " in result.error
    assert "on a disk that all share" in result.error


def test_a_task_that_is_lost_for_good_is_a_failed_notebook(tmp_path):
    class RayError(Exception):
        pass

    class Ray:
        exceptions = type("exceptions", (), {"RayError": RayError})

        @staticmethod
        def get(done):
            raise RayError("The worker died unexpectedly.\nmore")

    result = on_ray._result_of(Ray, None, {"name": "02_dan"})
    assert (result.notebook, result.error) == ("02_dan", "lost 4 times: The worker died unexpectedly.")


def test_without_ray_the_line_that_installs_it_is_told(shelf, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'fer_lab\[scale\]'"):
        reproduce(folder=shelf, out=tmp_path / "book", engine="ray")
    assert not (tmp_path / "book").exists()
