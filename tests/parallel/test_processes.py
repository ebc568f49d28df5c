"""Several processes: how many there may be, what they are told, and what is heard of one that fails."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from fer_lab.parallel import check_devices, count_devices, launch

PROGRAM = """
import os, sys, time
from pathlib import Path
from torch.distributed.elastic.multiprocessing.errors import record
from fer_lab.parallel import stop_with_launcher

@record
def main(folder, what):
    stop_with_launcher()
    rank = os.environ["RANK"]
    names = ("WORLD_SIZE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "FER_LAB_QUIET")
    (Path(folder) / rank).write_text(" ".join([str(os.getpid()), *(os.environ[name] for name in names)]))
    if what == "fail" and rank == "1":
        raise ValueError("no such thing: there are two")
    if what == "exit" and rank == "1":
        print("the last words")
        os._exit(7)
    if what != "end":
        time.sleep(60)

main(*sys.argv[1:])
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder with `program.py`, which can be launched, on a machine of four cores."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    four = (4, "processor cores")
    monkeypatch.setattr("fer_lab.parallel.processes.count_devices", lambda device="auto": four)
    return tmp_path


def gone(pid: int) -> bool:
    """Whether a process has ended (or waits to be buried)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() in ("", "Z")


def test_every_process_knows_of_the_others_and_has_its_share_of_the_cores(program):
    polls = []
    launch(2, ["program", str(program), "end"], on_poll=lambda: polls.append(1))
    said = [(program / rank).read_text().split(maxsplit=1) for rank in "01"]
    assert [rest for _, rest in said] == ["2 2 PASSIVE 1"] * 2
    assert said[0][0] != said[1][0]
    assert len(polls) > 1


def test_a_failure_is_told_in_its_own_words_and_ends_the_others(program):
    with pytest.raises(RuntimeError, match=r"^no such thing: there are two$"):
        launch(2, ["program", str(program), "fail"])
    assert gone(int((program / "0").read_text().split()[0]))


def test_of_a_process_that_said_nothing_the_end_of_its_output_is_told(program):
    with pytest.raises(RuntimeError, match=r"^a process ended with code 7: the last words$"):
        launch(2, ["program", str(program), "exit"])


def test_the_processes_end_with_a_launcher_that_is_killed(program):
    code = "from fer_lab.parallel import processes as m; m.count_devices = lambda device='auto': (4, '')"
    code += f"; m.launch(2, ['program', {str(program)!r}, 'sleep'])"
    launcher = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.time() + 100
    while not all((program / rank).exists() for rank in "01") and time.time() < deadline:
        time.sleep(0.05)
    pids = [int((program / rank).read_text().split()[0]) for rank in "01"]
    assert not any(gone(pid) for pid in pids)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    while not all(gone(pid) for pid in pids) and time.time() < deadline:
        time.sleep(0.05)
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("there", "device", "found"),
    [
        (0, "auto", "processor core"),
        (1, "auto", "GPU"),
        (3, "cuda", "GPUs"),
        (3, "cpu", "processor core"),
        (0, "mps", "mps device"),
    ],
)
def test_what_there_is(there, device, found, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5}, raising=False)
    assert count_devices(device) == (there if "GPU" in found else 1, found)


def test_more_devices_than_there_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices(2)
    with pytest.raises(ValueError, match=r"^there are 2 GPUs here, not 4$"):
        check_devices(4)
    with pytest.raises(ValueError, match=r"^there is 1 mps device here, not 0$"):
        launch(0, ["nothing"], device="mps")
