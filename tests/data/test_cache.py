"""The cache: right pixels, rebuilt when it must be, and nothing half-written ever taken for good."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lab._files import DiskFullError, remove_leftovers
from fer_lab.data import cache
from fer_lab.data.cache import Stored, build_cache, cache_folder, for_each, load_pixels, native_size, open_cache
from fer_lab.data.images import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An own, empty cache folder."""
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def color(i):
    return (i % 256, (7 * i) % 256, (100 + i) % 256)


def make_sources(root, n=5, size=8):
    """`n` pictures of one colour each."""
    root.mkdir(exist_ok=True)
    sources = []
    for i in range(n):
        path = root / f"{i}.png"
        Image.new("RGB", (size, size), color(i)).save(path)
        sources.append(Stored(path.name, str(path)))
    return sources


def first_pixels(pixels):
    return [tuple(face[:, 0, 0].tolist()) for face in pixels.storage]


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("a picture was decoded again")

    monkeypatch.setattr(cache, "to_square", fail)


def test_the_folder_is_the_readers_choice(folder, monkeypatch, tmp_path):
    assert cache_folder() == folder
    monkeypatch.delenv("FER_LAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fer_lab"


def test_pixels_come_in_the_order_of_the_sources(tmp_path):
    sources = make_sources(tmp_path / "set", n=200)[::-1]
    pixels = load_pixels("toy", tmp_path / "set", sources)
    assert pixels.storage.shape == (200, 3, 8, 8)
    assert pixels.storage.dtype == torch.uint8
    assert first_pixels(pixels) == [color(i) for i in reversed(range(200))]
    assert pixels.bad == {}


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    sources = make_sources(tmp_path / "set")
    first = load_pixels("toy", tmp_path / "set", sources)
    forbid_decoding(monkeypatch)
    again = load_pixels("toy", tmp_path / "set", sources)
    assert torch.equal(first.storage, again.storage)
    assert first.digest == again.digest


def test_without_cache_nothing_is_written(tmp_path, folder):
    sources = make_sources(tmp_path / "set")
    memory = load_pixels("toy", tmp_path / "set", sources, cache=False)
    assert not folder.exists()
    disk = load_pixels("toy", tmp_path / "set", sources)
    assert torch.equal(memory.storage, disk.storage)
    assert memory.digest == disk.digest


def test_two_files_and_nothing_else_lie_there(tmp_path, folder):
    sources = make_sources(tmp_path / "set")
    build_cache("toy", tmp_path / "set", sources)
    array, card = sorted(folder.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert (array.suffix, card.suffix) == (".npy", ".json")
    assert json.loads(card.read_text())["file"] == array.name
    assert np.load(array, mmap_mode="r").shape == (5, 3, 8, 8)


def change_content(sources):
    path = sources[2].path
    state = os.stat(path)
    Image.new("RGB", (8, 8), "white").save(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    return sources


def drop_one(sources):
    return sources[1:]


def rename_one(sources):
    return [sources[0]._replace(name="other.png"), *sources[1:]]


@pytest.mark.parametrize("change", [change_content, drop_one, rename_one])
def test_it_is_rebuilt_when_the_files_change(tmp_path, folder, change):
    sources = make_sources(tmp_path / "set")
    build_cache("toy", tmp_path / "set", sources)
    changed = change(sources)
    assert open_cache("toy", tmp_path / "set", changed) is None
    new = load_pixels("toy", tmp_path / "set", changed)
    fresh = load_pixels("toy", tmp_path / "set", changed, cache=False)
    assert torch.equal(new.storage, fresh.storage)
    assert len(list(folder.iterdir())) == 2, "the old pixels should be gone"


def test_sizes_and_sets_do_not_share_a_cache(tmp_path, folder, monkeypatch):
    one, two = make_sources(tmp_path / "one"), make_sources(tmp_path / "two", n=3)
    build_cache("toy", tmp_path / "one", one)
    build_cache("toy", tmp_path / "one", one, 4)
    build_cache("toy", tmp_path / "two", two)
    assert len(list(folder.glob("*.json"))) == 3
    forbid_decoding(monkeypatch)
    assert load_pixels("toy", tmp_path / "one", one).storage.shape == (5, 3, 8, 8)
    assert load_pixels("toy", tmp_path / "one", one, 4).storage.shape == (5, 3, 4, 4)
    assert load_pixels("toy", tmp_path / "two", two).storage.shape == (3, 3, 8, 8)


def other_version(card):
    card.write_text(card.read_text().replace(f'"format": {cache.FORMAT}', '"format": 0'))


def truncated_array(card):
    array = next(card.parent.glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-100])


def empty_array(card):
    next(card.parent.glob("*.npy")).write_bytes(b"")


def missing_array(card):
    next(card.parent.glob("*.npy")).unlink()


def pickled_array(card):
    np.save(next(card.parent.glob("*.npy")), np.array([{}]), allow_pickle=True)


def wrong_shape(card):
    np.save(next(card.parent.glob("*.npy")), np.zeros((4, 3, 8, 8), np.uint8))


def truncated_card(card):
    card.write_text(card.read_text()[:-30])


def empty_card(card):
    card.write_text("")


def list_card(card):
    card.write_text("[1, 2]")


def binary_card(card):
    card.write_bytes(b"\xff\xfe\x00")


def fieldless_card(card):
    card.write_text(json.dumps({"format": cache.FORMAT}))


DAMAGES = [
    other_version,
    truncated_array,
    empty_array,
    missing_array,
    pickled_array,
    wrong_shape,
    truncated_card,
    empty_card,
    list_card,
    binary_card,
    fieldless_card,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_older_cache_is_rebuilt(tmp_path, folder, damage):
    sources = make_sources(tmp_path / "set")
    build_cache("toy", tmp_path / "set", sources)
    damage(next(folder.glob("*.json")))
    assert open_cache("toy", tmp_path / "set", sources) is None
    assert first_pixels(load_pixels("toy", tmp_path / "set", sources)) == [color(i) for i in range(5)]
    assert open_cache("toy", tmp_path / "set", sources) is not None


def test_writing_into_the_tensor_warns_not_and_never_reaches_the_disk(tmp_path):
    sources = make_sources(tmp_path / "set")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = load_pixels("toy", tmp_path / "set", sources)
    pixels.storage.fill_(0)
    assert first_pixels(load_pixels("toy", tmp_path / "set", sources))[1] == color(1)


def test_a_map_that_the_system_refuses_to_copy_is_read_only(tmp_path, monkeypatch):
    sources = make_sources(tmp_path / "set")
    build_cache("toy", tmp_path / "set", sources)
    load = np.load

    def refuse(path, mmap_mode, **options):
        if mmap_mode == "c":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return load(path, mmap_mode=mmap_mode, **options)

    monkeypatch.setattr(np, "load", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = open_cache("toy", tmp_path / "set", sources)
    assert first_pixels(pixels) == [color(i) for i in range(5)]


def test_unreadable_pictures_are_black_and_named(tmp_path):
    sources = make_sources(tmp_path / "set")
    (tmp_path / "set" / "1.png").write_bytes(b"no picture")
    (tmp_path / "set" / "3.png").unlink()
    for _ in range(2):  # built, then read
        pixels = load_pixels("toy", tmp_path / "set", sources)
        assert sorted(pixels.bad) == [1, 3]
        assert "1.png is not a picture" in pixels.bad[1]
        assert "3.png does not exist" in pixels.bad[3]
        assert first_pixels(pixels) == [color(0), (0, 0, 0), color(2), (0, 0, 0), color(4)]


def test_a_mended_picture_is_read(tmp_path):
    sources = make_sources(tmp_path / "set")
    (tmp_path / "set" / "3.png").unlink()
    build_cache("toy", tmp_path / "set", sources)
    make_sources(tmp_path / "set")
    assert load_pixels("toy", tmp_path / "set", sources).bad == {}


def test_the_digest_follows_the_content_and_not_the_place(tmp_path):
    here = load_pixels("toy", tmp_path / "a", make_sources(tmp_path / "a")).digest
    there = load_pixels("toy", tmp_path / "b", make_sources(tmp_path / "b")).digest
    assert here == there
    other = load_pixels("toy", tmp_path / "a", change_content(make_sources(tmp_path / "a"))).digest
    assert other != here


@pytest.mark.parametrize(
    ("sizes", "native"),
    [
        ([(8, 8), (8, 8)], 8),
        ([(8, 8), (9, 9)], 112),
        ([(8, 6), (8, 6)], 112),
        ([None, (7, 7)], 7),
        ([None], 112),
    ],
)
def test_native_size(tmp_path, sizes, native):
    sources = []
    for i, size in enumerate(sizes):
        path = tmp_path / f"{i}.png"
        path.write_bytes(b"broken") if size is None else Image.new("L", size).save(path)
        sources.append(Stored(path.name, str(path)))
    assert native_size(sources) == native


def test_pictures_are_resized_with_antialiasing(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # point sampling would see only black or only white
    path = tmp_path / "stripes.png"
    Image.fromarray(stripes).save(path)
    small = load_pixels("toy", tmp_path, [Stored("stripes.png", str(path))], 8).storage.float()
    assert small.shape == (1, 3, 8, 8)
    assert (small - 127.5).abs().max() < 10


def make_table(tmp_path, text):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n0," + text + ",Training\n")
    return Stored("FER2013Train/a.png", str(path), offset=23, length=len(text), line=2)


def test_pixels_inside_a_table(tmp_path):
    values = np.arange(48 * 48) % 256
    source = make_table(tmp_path, " ".join(map(str, values)))
    pixels = load_pixels("toy", tmp_path, [source])
    assert np.array_equal(pixels.storage[0], values.reshape(1, 48, 48).repeat(3, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", r"line 2: expected 48×48 = 2304 pixels, got 3"),
        (" ".join(["256"] * 2304), "line 2: pixels run from 256 to 256, expected 0 to 255"),
        (" ".join(["-1"] * 2304), "line 2: pixels run from -1"),
        ("a" + " 1" * 2303, "line 2: pixels must be whole numbers"),
        ("99999999999999999999" + " 1" * 2303, "line 2: pixels must be whole numbers"),
        ("", "line 2: expected 48×48"),
    ],
)
def test_wrong_pixels_inside_a_table_are_named(tmp_path, text, message):
    pixels = load_pixels("toy", tmp_path, [make_table(tmp_path, text)])
    assert message in pixels.bad[0]


def test_no_space_is_said_before_the_work_begins(tmp_path, folder, monkeypatch):
    sources = make_sources(tmp_path / "set")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    forbid_decoding(monkeypatch)
    message = r"no space to write .*npy: 1,088 bytes needed, 1,000 free; .*FER_LAB_CACHE"
    with pytest.raises(DiskFullError, match=message) as caught:
        build_cache("toy", tmp_path / "set", sources)
    assert caught.value.errno == errno.ENOSPC
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_leaves_the_last_good_cache(tmp_path, folder, monkeypatch):
    sources = make_sources(tmp_path / "set")
    build_cache("toy", tmp_path / "set", sources)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no space to write .*npy: 1,088 bytes needed"):
        build_cache("toy", tmp_path / "set", change_content(sources))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write the cache in .*file.*FER_LAB_CACHE"):
        build_cache("toy", tmp_path / "set", make_sources(tmp_path / "set"))


def test_an_interrupted_build_leaves_nothing(tmp_path, folder, monkeypatch):
    sources = make_sources(tmp_path / "set", n=100)
    whole = cache.to_square
    calls = iter(range(1000))

    def interrupted(image, size):
        if next(calls) == 60:
            raise KeyboardInterrupt
        return whole(image, size)

    monkeypatch.setattr(cache, "to_square", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_cache("toy", tmp_path / "set", sources)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_build_is_never_taken_for_good(tmp_path, folder):
    sources = make_sources(tmp_path / "set", n=100)
    # Killed while pixels are written, and between the pixels and their card.
    moments = {
        "pixels": "cache.Stored.decode = lambda *a: os.kill(os.getpid(), 9) if next(n) == 60 else old(*a)",
        "card": "cache.write_json = lambda *a: os.kill(os.getpid(), 9)",
    }
    for moment in moments.values():
        script = f"""
            import itertools, os, pathlib
            from fer_lab.data import cache
            n, old = itertools.count(), cache.Stored.decode
            {moment}
            root = pathlib.Path({str(tmp_path / "set")!r})
            sources = [cache.Stored(f"{{i}}.png", str(root / f"{{i}}.png")) for i in range(100)]
            cache.build_cache("toy", root, sources)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True)
        assert done.returncode == -9, done.stderr.decode()
        assert any(folder.iterdir())
        assert open_cache("toy", tmp_path / "set", sources) is None
    for part in folder.glob(".*.part.*"):
        assert part.stat().st_mtime > time.time() - cache.ABANDONED
        os.utime(part, (0, 0))
    pixels = load_pixels("toy", tmp_path / "set", sources)
    assert first_pixels(pixels) == [color(i) for i in range(100)]
    assert len(list(folder.iterdir())) == 2, "what the killed builds left should be gone"


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files")
def test_a_build_in_another_process_is_left_alone(tmp_path, folder, monkeypatch):
    sources = make_sources(tmp_path / "set")
    parts_left = []

    def clean_up_during(function):
        def wrapped(*arguments):
            remove_leftovers(folder.glob(".*.part.*"))
            parts_left.append(len(list(folder.glob(".*.part.*"))))
            return function(*arguments)

        return wrapped

    monkeypatch.setattr(cache, "to_square", clean_up_during(cache.to_square))
    # The last moment at which the complete pixels are closed and do not have their final name.
    monkeypatch.setattr(os, "replace", clean_up_during(os.replace))
    monkeypatch.setattr(cache, "write_json", lambda *_: None)
    with pytest.raises(OSError, match="does not read back as it was written"):
        build_cache("toy", tmp_path / "set", sources)
    assert parts_left == [1] * 6


def test_files_that_change_while_they_are_read_are_an_error(tmp_path, monkeypatch):
    sources = make_sources(tmp_path / "set")
    whole = cache.to_square

    def busy(image, size):
        make_sources(tmp_path / "set", size=9)
        return whole(image, size)

    monkeypatch.setattr(cache, "to_square", busy)
    with pytest.raises(DataError, match="changed while they were read"):
        build_cache("toy", tmp_path / "set", sources)


def test_for_each_keeps_order_returns_errors_and_bounds_what_waits(tmp_path):
    sources = [Stored(str(i), "") for i in range(1000)]
    started = []

    def work(source):
        started.append(source)
        if source.name == "7":
            raise DataError("seven")
        return int(source.name)

    for row, result in enumerate(for_each(sources, work, "test", block=4)):
        assert len(started) <= row + 64
        if row == 7:
            assert str(result) == "seven"
        else:
            assert result == row
    assert row == 999


def test_the_bar_is_silent_where_nobody_watches(tmp_path, capfd):
    load_pixels("toy", tmp_path / "set", make_sources(tmp_path / "set"))
    assert capfd.readouterr() == ("", "")
