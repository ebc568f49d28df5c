"""One notebook in a process of its own: its parameters, its folder, and what is reported of those that fail."""

import sys

import nbformat
from helpers.shelf import NASTY


def test_a_notebook_gets_its_parameters_as_they_are(book):
    folder, results, _ = book
    good = results["00_good"]
    assert good.error == ""
    assert {k: good.headline[k] for k in ("text", "lr", "heads", "seed", "profile")} == {
        "text": NASTY,
        "lr": 1e-4,
        "heads": "[4, 2]",
        "seed": 3,
        "profile": "smoke",
    }
    assert (folder / "runs" / "00_good" / "made.txt").read_text() == NASTY


def test_a_notebook_runs_in_this_python_in_its_own_folder(book):
    folder, results, _ = book
    numbers = results["00_good"].headline
    assert numbers["python"] == sys.executable
    assert numbers["here"] == str(folder / "runs" / "00_good")
    assert numbers["policy"] == "PASSIVE"


def test_what_is_reported_of_a_notebook(book):
    good = book[1]["00_good"]
    assert good.title == "About 00_good"
    assert good.figures == 1
    assert good.headline["accuracy"] == 0.8123456
    assert 200 < good.peak_mb < 1000
    assert 0 < good.seconds < 60
    executed = nbformat.read(good.path, 4)
    assert executed.cells[-1].execution_count == len(executed.cells) - 1


def test_a_failed_cell_is_named_with_its_traceback_and_the_others_run(book):
    _, results, _ = book
    bad = results["01_bad"]
    assert bad.error == "cell 4 of 5: ZeroDivisionError: division by zero"
    assert "----> 2     return 1 / 0" in bad.traceback
    assert "\x1b" not in bad.traceback
    assert list(results) == ["00_good", "01_bad", "02_dead"]


def test_a_killed_kernel_is_reported_within_seconds(book):
    _, results, arrived = book
    assert results["02_dead"].error.startswith("cell 3 of 4: DeadKernelError")
    assert "signal.SIGKILL" in results["02_dead"].traceback
    assert arrived["02_dead"] - arrived["01_bad"] < 20
