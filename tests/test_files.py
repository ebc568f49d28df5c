"""Whole files, locks, tables, and where a run was made."""

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections import namedtuple

import pandas as pd
import pytest

from fer_lab import _files
from fer_lab._files import DiskFullError, RunBusyError, atomic_file, atomic_path, remove_leftovers
from fer_lab.runs import portable_command
from fer_lab.runs.environment import _commit, environment

Usage = namedtuple("Usage", "total used free")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_atomic_path_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
            temporary.write_text(text)
        assert path.read_text() == text
    assert names(path.parent) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="no pipes in folders")
def test_atomic_path_replaces_no_pipe_and_no_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(ValueError, match="pipe is a pipe or a device"),
        atomic_path(tmp_path / "pipe") as temporary,
    ):
        temporary.write_text("x")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**6, 10**6 - 1000, 1000))
    refused = pytest.raises(DiskFullError, match=r"a\.bin: 2,000 bytes needed, 1,000 free")
    with refused as caught, atomic_path(tmp_path / "a.bin", needed=2000):
        raise AssertionError("not reached")
    assert caught.value.errno == errno.ENOSPC
    with atomic_path(tmp_path / "a.bin", needed=1000) as temporary:
        temporary.write_bytes(b"fits")
    assert (tmp_path / "a.bin").read_bytes() == b"fits"


def full_disk_behind_another_error():
    error = RuntimeError("writing failed")
    error.__context__ = OSError(errno.ENOSPC, "full")
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "quota"),
        ValueError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
        full_disk_behind_another_error(),
    ],
)
def test_a_disk_that_fills_up_is_named_with_the_bytes(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(DiskFullError, match=r"a\.bin: more than 4 bytes needed, [\d,]+ free"):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a.bin"):
        raise PermissionError(errno.EACCES, "no")


def test_a_lock_refuses_a_second_holder_and_names_the_first(tmp_path):
    lock = tmp_path / ".lock"
    refused = pytest.raises(RunBusyError, match=rf"number {os.getpid()}\)")
    with _files.locked(lock), refused, _files.locked(lock):
        pass
    with _files.locked(lock):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    lock, (reading, writing) = tmp_path / ".lock", os.pipe()
    child = os.fork()
    if not child:
        with _files.locked(lock):
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    with pytest.raises(RunBusyError, match=f"number {child}"), _files.locked(lock):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with _files.locked(lock):
        assert lock.read_text() == str(os.getpid())


def test_who_holds_the_lock_clears_half_written_files_of_its_own_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in (".a.0123abcd.part.csv", ".b.0123abcd.part", "inner/.b.0123abcd.part", "a.csv"):
        (tmp_path / name).write_text("x")
    with _files.locked(tmp_path / ".lock"):
        assert names(tmp_path) == [".lock", "a.csv", "inner"]
        assert names(tmp_path / "inner") == [".b.0123abcd.part"]


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files")
def test_leftovers_of_dead_processes_are_deleted_and_locked_files_stay(tmp_path):
    (tmp_path / ".dead.0123abcd.part.bin").write_bytes(b"half")
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path.glob(".*.part*"))
        (part,) = names(tmp_path)
        assert part.startswith(".a.")
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def test_tables_keep_text_as_text_and_numbers_to_the_last_bit(tmp_path):
    columns = {"name": "str", "digest": "str", "value": "float64"}
    table = pd.DataFrame({"name": ["NA", ""], "digest": ["12e45", "007"], "value": [0.1 + 0.2, float("nan")]})
    _files.write_csv(tmp_path / "t.csv", table)
    back = _files.read_csv(tmp_path / "t.csv", columns)
    assert back["name"].tolist() == ["NA", ""]
    assert back["digest"].tolist() == ["12e45", "007"]
    assert back["value"][0] == 0.1 + 0.2
    assert pd.isna(back["value"][1])


def test_a_table_that_is_missing_is_empty_and_a_wrong_one_is_named(tmp_path):
    path = tmp_path / "t.csv"
    assert list(_files.read_csv(path, {"a": "str"}).columns) == ["a"]
    for content in (b"b\n1\n", b"a\n1,2\n3,4,5\n", b"\xff\xfe\x00", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"t\.csv"):
            _files.read_csv(path, {"a": "int64"})


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, "\udcff"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"c\.json"):
        _files.read_json(path)


def test_environment_says_where_we_are():
    import torch

    here = environment()
    assert set(here) == {"python", "torch", "fer_lab", "commit", "device", "cpu", "cores", "threads"}
    assert here["torch"] == torch.__version__
    assert here["cores"] == os.cpu_count()


def test_commit_is_the_checkouts_own_and_says_if_the_code_differs(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True
        ).stdout

    assert _commit(tmp_path) == ""
    git("init", "-q")
    assert _commit(tmp_path) == ""
    (tmp_path / "fer_lab").mkdir()
    (tmp_path / "fer_lab" / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "figure.png").write_text("not code")
    assert _commit(tmp_path) == git("rev-parse", "HEAD").strip()
    (tmp_path / "fer_lab" / "a.py").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{40}\+changes", _commit(tmp_path))
    inner = tmp_path / "site-packages"
    inner.mkdir()
    assert _commit(inner) == ""


def test_a_command_hides_the_readers_data_folder(monkeypatch):
    monkeypatch.setenv("FER_DATA", "/home/ann/faces/")
    words = ["fer-lab", "train", "--data-root", "/home/ann/faces/FER+", "--out", "/home/ann/faces2", "a b"]
    assert portable_command(words) == "fer-lab train --data-root $FER_DATA/FER+ --out /home/ann/faces2 'a b'"
    assert portable_command("x /home/ann/faces") == "x $FER_DATA"
    monkeypatch.delenv("FER_DATA")
    assert portable_command("x /home/ann/faces") == "x /home/ann/faces"
    monkeypatch.setattr("sys.argv", ["/usr/bin/fer-lab", "train"])
    assert portable_command() == "fer-lab train"


def test_a_table_of_countless_columns_is_refused_at_once(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("a," * 100_000 + "a\n")
    start = time.perf_counter()
    with pytest.raises(ValueError, match="first line has more than 16,384 bytes"):
        _files.read_csv(path)
    assert time.perf_counter() - start < 1
