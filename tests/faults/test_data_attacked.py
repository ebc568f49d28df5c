"""Data sets and pictures under attack: damaged caches, swapped files, depths, slow pictures, odd files."""

import contextlib
import itertools
import os
import struct
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from helpers.broken_sets import encoded
from helpers.small_sets import (
    picture,
    write_affectnet,
    write_affectnet_lists,
    write_ferplus,
    write_folder,
    write_kaggle,
    write_rafdb,
)
from PIL import Image

from fer_lab.data.datasets import check_dataset, load_dataset
from fer_lab.data.images import DataError, decode
from fer_lab.data.photographs import open_image

pytestmark = pytest.mark.fault("data sets attacked")


def same(faces, others) -> bool:
    return torch.equal(faces.images, others.images) and faces.fingerprint == others.fingerprint


def rewritten(path, data: bytes) -> None:
    """Other bytes in the file, and its times put back."""
    state = os.stat(path)
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def swapped(path, other) -> None:
    """Two files change names; their sizes and times are equal."""
    spare = path.with_name("spare")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


# ---------------------------------------------------------------------------------------------------------
# The cache is what is on disk


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_in_the_cache_changes_no_face(tmp_path, suffix, part):
    root = write_rafdb(tmp_path / "set")
    # An unreadable picture, so that the card has a row that must stay out.
    (root / "Image" / "aligned" / "train_00003_aligned.jpg").write_bytes(b"nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        true = load_dataset("rafdb", root, skip_bad=True, cache=False)
        load_dataset("rafdb", root, skip_bad=True)
        file = next((tmp_path / "cache").glob(f"*{suffix}"))
        whole = file.read_bytes()
        for place in range(17 * part, len(whole), len(whole) // 12):
            rewritten(file, whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            faces = load_dataset("rafdb", root, skip_bad=True)
            assert len(faces) == 13, place
            assert same(faces, true), place


@pytest.mark.parametrize("change", ["swapped", "rewritten", "table"])
def test_other_pictures_of_equal_size_and_time_are_noticed(tmp_path, change):
    if change == "table":
        name, root = "ferplus", write_kaggle(tmp_path / "set")
    else:
        name, root = "folder", tmp_path / "set"
        for i, word in enumerate(("anger", "fear")):
            picture(root / "train" / word / "a.bmp", 90 * i + 7)
            os.utime(root / "train" / word / "a.bmp", (10**9, 10**9))
    before = load_dataset(name, root)
    if change == "table":
        rewritten(root / "fer2013.csv", (root / "fer2013.csv").read_bytes().replace(b"1 1 1", b"1 9 1"))
    elif change == "swapped":
        swapped(root / "train" / "anger" / "a.bmp", root / "train" / "fear" / "a.bmp")
    else:
        one, two = (root / "train" / word / "a.bmp" for word in ("anger", "fear"))
        rewritten(one, two.read_bytes())
    after = load_dataset(name, root)
    true = load_dataset(name, root, cache=False)
    assert same(after, true)
    assert not same(after, before)


def names_of(root) -> list[str]:
    """One folder, by the names that people write."""
    link = root.with_name("link")
    link.symlink_to(root)
    return [str(root), os.path.relpath(root), f"{root}/", f"{root}/../{root.name}", str(link)]


def test_one_data_set_is_decoded_once_by_whatever_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_of(write_ferplus(tmp_path / "set"))
    first = load_dataset("ferplus", names[0])
    monkeypatch.setattr("fer_lab.data.cache.to_square", lambda *_: pytest.fail("decoded again"))
    assert all(same(load_dataset("ferplus", name), first) for name in names)


def test_two_at_once_by_two_names_both_have_their_faces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_of(write_ferplus(tmp_path / "set"))
    true = load_dataset("ferplus", names[0], cache=False)
    failed = []

    def load(name, number):
        try:
            assert same(load_dataset("ferplus", name, size=12 + number), true) or number
        except BaseException as error:
            failed.append(error)

    for number in range(8):
        readers = [threading.Thread(target=load, args=(name, number)) for name in names]
        for one in readers:
            one.start()
        for one in readers:
            one.join()
    assert not failed


# ---------------------------------------------------------------------------------------------------------
# Grey is grey in every depth

RAMP = np.arange(0, 256, 17).repeat(16).reshape(16, 16)


def tiff(
    values: np.ndarray, bits: int, sample: int = 1, white: int = 1, order: str = "<", **tags: int
) -> bytes:
    """A grey TIFF without compression, of any depth, kind of number, meaning of zero and byte order."""
    packed = np.array(values).astype(values.dtype.newbyteorder(order)).tobytes()
    if bits == 12:
        left, right = values.reshape(-1, 2).T
        packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], 1).astype(np.uint8).tobytes()
    height, width = values.shape
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: height}
    entries |= {279: len(packed), 339: sample} | {int(tag[1:]): value for tag, value in tags.items()}
    parts = [struct.pack(order + "HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries)]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(packed))
    return head + packed + struct.pack(order + "H", len(parts)) + b"".join(parts) + bytes(4)


def grey(kind: str) -> bytes:
    """RAMP as a file of this kind."""
    image = Image.fromarray(RAMP.astype(np.uint8))
    deep = Image.fromarray((RAMP * 257).astype(np.uint16))
    if kind == "PNG 16":
        return encoded(deep, "PNG")
    if kind == "PGM 16":
        return encoded(deep, "PPM")
    if kind == "PGM of 0 to 1000":
        return b"P5 16 16 1000\n" + np.round(RAMP / 255 * 1000).astype(">u2").tobytes()
    form, mode = kind.split()
    return encoded(
        image.quantize(256) if mode == "P" else image.convert(mode), form, quality=100, lossless=True
    )


MODES = ("PNG L", "PNG LA", "PNG P", "PNG RGB", "PNG RGBA", "PNG 16", "TIFF L", "TIFF LA", "TIFF P", "TIFF RGB",
         "TIFF RGBA", "TIFF CMYK", "TIFF YCbCr", "JPEG L", "JPEG RGB", "JPEG CMYK", "BMP L", "BMP P", "BMP RGB",
         "GIF P", "PPM L", "PPM RGB", "PGM 16", "PGM of 0 to 1000", "WEBP RGB", "WEBP RGBA")  # fmt: skip


@pytest.mark.parametrize("kind", MODES)
def test_a_ramp_is_the_same_in_every_mode(kind):
    found = np.asarray(decode(grey(kind), "ramp")).astype(int)
    assert np.abs(found - RAMP[..., None]).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_black_and_white_are_black_and_white(kind):
    found = np.asarray(decode(encoded(Image.fromarray(RAMP > 127), kind), "it"))
    assert np.array_equal(found[..., 0], np.where(RAMP > 127, 255, 0))


DEPTHS = [(8, 1, "u1"), (12, 1, "u2"), (16, 1, "u2"), (32, 1, "u4"), (8, 2, "i1"), (16, 2, "i2"), (32, 2, "i4"),
          (32, 3, "f4"), (64, 3, "f8")]  # fmt: skip


@pytest.mark.parametrize(("bits", "sample", "kind"), DEPTHS)
@pytest.mark.parametrize(("white", "order"), list(itertools.product((0, 1), "<>")))
def test_a_tiff_of_any_depth_is_read_right_or_refused(bits, sample, kind, white, order):
    ramp = RAMP if white else 255 - RAMP
    scales = {"as they are": 1.0}
    scales["up to the largest"] = 1 / 255 if sample == 3 else (2.0 ** (bits - (sample == 2)) - 1) / 255
    for words, scale in scales.items():
        values = (
            np.floor(ramp * scale).astype(kind) if kind != "i1" else np.minimum(ramp * scale, 127).astype(kind)
        )
        try:
            found = np.asarray(decode(tiff(values, bits, sample, white, order), "ramp")).astype(int)
        except DataError:
            # Pillow knows the others in one byte order alone, or not at all.
            assert (bits, sample, white) not in ((8, 1, 1), (16, 1, 1)), words
            assert (kind, order, white, words) != ("u4", "<", 1, "as they are")
            assert (bits, order, white) != (12, "<", 1)
            continue
        # What names its depth is dark when its values are small; elsewhere the values are what they say.
        dark = (1, words) == (sample, "as they are") and bits in (12, 16)
        expected = np.floor(ramp * 255 / (2**bits - 1)) if dark else ramp
        expected = expected if white else 255 - expected
        assert np.abs(found - expected[..., None]).max() <= 1, words


@pytest.mark.parametrize("kind", [np.int32, np.int16, np.uint16, np.float32])
def test_an_opened_picture_of_deep_pixels_is_right_or_refused(kind):
    for values in (RAMP, RAMP * 257):
        try:
            found = np.asarray(open_image(Image.fromarray(values.astype(kind)))).astype(int)
        except (DataError, TypeError):
            continue
        expected = values >> 8 if kind is np.uint16 else values
        assert np.abs(found - expected[..., None]).max() <= 1


# ---------------------------------------------------------------------------------------------------------
# Pictures that would cost minutes or gigabytes


def many_scans() -> bytes:
    data = encoded(Image.new("RGB", (3000, 3000), "teal"), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 20_000 + data[-2:]


def empty_parts() -> bytes:
    data = encoded(Image.new("L", (12, 12)), "PNG")
    return (
        data[:33]
        + (struct.pack(">I", 0) + b"noNe" + struct.pack(">I", zlib.crc32(b"noNe"))) * 10**6
        + data[33:]
    )


def greedy_tags() -> bytes:
    data = bytearray(tiff(RAMP.astype(np.uint8), 8))
    start = len(data) - 4
    extra = [struct.pack("<HHII", 40_000 + i, 1, 10**7, 8) for i in range(20_000)]
    struct.pack_into("<H", data, 8 + RAMP.size, 10 + len(extra))
    return bytes(data[:start]) + b"".join(extra) + bytes(10**7)


def greedy_exif() -> bytes:
    tags = [struct.pack("<HHII", 40_000 + i, 1, 10**6, 8) for i in range(20_000)]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(10**6)
    return encoded(Image.fromarray(RAMP.astype(np.uint8)), "PNG", exif=exif)


def runs_of_one() -> bytes:
    return (
        encoded(Image.new("L", (12, 12)), "BMP")[:14]
        + struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, 1, 0, 0, 0, 256, 0)
        + bytes(1024)
        + b"\x01\x00" * 25_000_000
    )


SLOW = {
    "20,000 scans": many_scans,
    "a million empty parts": empty_parts,
    "tags that all claim the file": greedy_tags,
    "Exif tags that all claim the file": greedy_exif,
    "runs of one pixel": runs_of_one,
    "values of words": lambda: b"P3 3000 3000 200\n" + b"7 " * 27_000_000,
    "a scale of its own": lambda: b"P5 5000 5000 254\n" + bytes(25_000_000),
    "one large tile": lambda: tiff(RAMP.astype(np.uint8), 8, t322=60_000, t323=30_000, t324=8, t325=256),
    "a strip larger than the file": lambda: tiff(RAMP.astype(np.uint8), 8, t279=2**30, t259=5),
    "JPEG in a TIFF": lambda: tiff(RAMP.astype(np.uint8), 8, t259=7),
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", SLOW)
def test_a_picture_that_would_take_minutes_is_given_up(kind, monkeypatch):
    monkeypatch.setattr("fer_lab.data.images.MAX_SECONDS", 0.3)
    data = SLOW[kind]()
    started = time.thread_time()
    if "tags" in kind:  # the pixels are whole; what is done about the tags depends on Pillow's version
        with contextlib.suppress(DataError):
            assert np.array_equal(np.asarray(decode(data, "it"))[..., 0], RAMP)
    else:
        with pytest.raises(DataError, match="it "):
            decode(data, "it")
    assert time.thread_time() - started < 3


# ---------------------------------------------------------------------------------------------------------
# What is no file, or never ends

ENDLESS = {
    "a pipe": os.mkfifo,
    "a link to zeros": lambda path: path.symlink_to("/dev/zero"),
    "a line without an end": lambda path: (path.touch(), os.truncate(path, 2**36)),
}
PLACES = {
    "ferplus picture": ("ferplus", write_ferplus, "FER2013Train/fer03.png"),
    "ferplus labels": ("ferplus", write_ferplus, "FER2013Train/label.csv"),
    "kaggle pixels": ("ferplus", write_kaggle, "fer2013.csv"),
    "kaggle votes": ("ferplus", write_kaggle, "fer2013new.csv"),
    "rafdb labels": ("rafdb", write_rafdb, "EmoLabel/list_patition_label.txt"),
    "affectnet annotation": ("affectnet", write_affectnet, "train_set/annotations/3_exp.npy"),
    "affectnet list": ("affectnet", write_affectnet_lists, "training.csv"),
    "folder picture": ("folder", lambda root: write_folder(root, ("anger", "fear")), "train/anger/a.png"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_named_at_once(tmp_path, place, kind):
    name, write, file = PLACES[place]
    path = write(tmp_path / "set") / file
    path.unlink()
    ENDLESS[kind](path)
    started = time.thread_time()
    with pytest.raises(DataError, match=path.name):
        load_dataset(name, tmp_path / "set")
    assert time.thread_time() - started < 2
    if "picture" in place:
        assert path.name in check_dataset(name, tmp_path / "set").bad[0]
