"""Notebooks in processes of this machine: threads, what an interrupted run left, workers that die."""

import os
import time

import pytest

from fer_lab.book.run import reproduce


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 1, "8"), (8, 3, "2"), (2, 4, "1")])
def test_threads_are_cores_over_jobs(workers, shelf, tmp_path, monkeypatch, cores, jobs, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    reproduce(folder=shelf, out=tmp_path / "book", jobs=jobs)
    assert {worker.env["OMP_NUM_THREADS"] for worker in workers.started} == {threads}
    assert {worker.env["OMP_WAIT_POLICY"] for worker in workers.started} == {"PASSIVE"}


def test_what_an_interrupted_run_left_is_continued_and_a_finished_one_starts_afresh(workers, shelf, tmp_path):
    def run(**options):
        reproduce(folder=shelf, notebooks=["00"], out=tmp_path / "book", **options)
        return workers.started[-1].found

    run_dir = tmp_path / "book" / "runs" / "00_start"
    assert run() == ["log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    assert run() == ["log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    (run_dir / "result.json").unlink()
    assert run() == ["checkpoint", "log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    (run_dir / "result.json").unlink()
    assert run(seeds=[5]) == ["log.txt", "request.json"]


def test_a_folder_that_no_run_made_is_left_alone(workers, shelf, tmp_path):
    mine = tmp_path / "book" / "runs" / "00_start" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    reproduce(folder=shelf, notebooks=["00"], out=tmp_path / "book")
    assert mine.read_text() == "keep"


def test_a_worker_that_dies_is_a_failed_notebook(workers, shelf, tmp_path):
    workers.codes = {"02_dan": -9}
    results = reproduce(folder=shelf, out=tmp_path / "book")
    assert [result.error for result in results] == ["", "the process that ran it ended with code -9", ""]


def test_a_notebook_is_named_when_it_begins_and_told_of_when_it_ends(
    workers, shelf, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("FER_LAB_QUIET", raising=False)
    workers.codes = {"00_start": None}
    came = []

    def told(result):
        came.append(result.notebook)
        if len(came) == 2:  # the first one runs as long as both others
            while not (first := [one for one in workers.started if one.run_dir.name == "00_start"]):
                time.sleep(0.01)
            first[0].killed.set()

    results = reproduce(folder=shelf, out=tmp_path / "book", jobs=2, on_result=told)
    assert came == ["02_dan", "03_next", "00_start"]
    assert [result.notebook for result in results] == ["00_start", "02_dan", "03_next"]
    begun = ["00_start begins (1/3)", "02_dan begins (2/3)", "03_next begins (3/3)"]
    assert sorted(capsys.readouterr().err.splitlines()) == begun


def test_an_interrupt_kills_what_runs_and_starts_nothing_more(workers, shelf, tmp_path):
    workers.codes = {"02_dan": None}

    def interrupt(result):
        while len(workers.started) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(folder=shelf, out=tmp_path / "book", on_result=interrupt)
    assert [(worker.run_dir.name, worker.killed.is_set()) for worker in workers.started] == [
        ("00_start", False),
        ("02_dan", True),
    ]
