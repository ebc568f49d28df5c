"""Pictures of every kind that strangers' folders hold: a right read, or one error that says why."""

import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fer_lab.data import images
from fer_lab.data.images import DataError, decode, open_header, read_limited, to_rgb


def gradient(height=6, width=8):
    """RGB, no two pixels alike and no axis symmetric."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([y * 30, x * 25, (y + 2 * x) * 8], 2).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_as_they_were(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encoded(gradient(), kind, **options), "face")
    assert found.mode == "RGB"
    assert np.array_equal(pixels(found), pixels(gradient()))


def test_jpeg_comes_back_nearly():
    flat = decode(encoded(Image.new("RGB", (16, 16), (200, 100, 50)), "JPEG", quality=95), "face")
    assert abs(pixels(flat) - [200, 100, 50]).max() <= 3


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "face.png"
    path.write_bytes(encoded(Image.new("RGB", (4, 4), "red"), "BMP"))
    assert decode(read_limited(path), str(path)).getpixel((0, 0)) == (255, 0, 0)


def test_grey_becomes_three_equal_channels():
    grey = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    found = pixels(decode(encoded(grey), "face"))
    assert found.shape == (6, 8, 3)
    assert np.array_equal(found, np.arange(48).reshape(6, 8, 1).repeat(3, 2))


def test_one_bit_and_palette_pictures():
    assert decode(encoded(Image.new("1", (3, 3), 1)), "face").getpixel((1, 1)) == (255, 255, 255)
    palette = gradient().quantize(64)
    assert np.array_equal(pixels(decode(encoded(palette), "face")), pixels(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 256, 32768], [65535, 25700, 51400]], np.uint16)
    found = pixels(decode(encoded(Image.fromarray(values), kind), "face"))[..., 0]
    assert np.abs(found - values / 257).max() <= 1


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    for kind in ("JPEG", "TIFF"):
        red, green, blue = decode(encoded(cmyk, kind), "face").getpixel((5, 5))
        assert red > 240
        assert green < 15
        assert blue < 15


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    found = decode(encoded(clear), "face")
    assert [found.getpixel((0, 0)), found.getpixel((1, 0))] == [(255, 255, 255), (10, 20, 30)]
    assert decode(encoded(clear.convert("LA")), "face").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data, "face").getpixel((3, 3)) == (255, 0, 0)


TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(gradient(), exif=exif), "face")
    upright = TURNS.get(orientation, lambda a: a)(pixels(gradient()))
    assert np.array_equal(pixels(found), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_pixels_as_they_lie():
    for exif in (b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0", b"junk"):
        data = encoded(Image.new("RGB", (16, 16), "red"), "JPEG", exif=exif)
        assert decode(data, "face").size == (16, 16)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused_by_name(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(DataError, match=r"set/face\.png"):
        decode(data[: int(len(data) * share)], "set/face.png")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_a_picture_or_the_one_error(seed):
    random = np.random.default_rng(seed)
    kind = ("PNG", "JPEG", "GIF", "TIFF", "WEBP")[seed % 5]
    data = bytearray(encoded(gradient(24, 24), kind))
    for at in random.integers(0, len(data), 4):
        data[at] = random.integers(0, 256)
    try:
        found = decode(bytes(data), "face.png", max_pixels=10_000)
    except DataError as error:
        assert "face.png" in str(error)  # noqa: PT017 both ends are right, and both are looked at
    else:
        assert found.mode == "RGB"
        assert found.width * found.height <= 10_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"x\.png is empty \(0 bytes\)"),
        (b"<html>404</html>", r"x\.png is not a picture in a known format \(BMP, GIF, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not a picture in a known format"),
        (b"\x89PNG\r\n\x1a\n", r"x\.png"),
        (b"\0" + os.urandom(999), "not a picture in a known format"),
        (b"\0\0\0\x20ftypisom" + bytes(90), r"x\.png is a film, .* ffmpeg -i FILM"),
        (b"\x1aE\xdf\xa3" + bytes(90), r"x\.png is a film"),
    ],
)
def test_what_is_no_picture_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        decode(data, "x.png")


def test_a_decompression_bomb_is_refused_by_its_header():
    # 30,000 × 30,000 pixels said by a file of 100 bytes.
    header = b"IHDR" + (30_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    data += b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4)
    with pytest.raises(DataError, match="more than the 50,000,000 pixels accepted"):
        decode(data, "bomb.png")


def test_the_limit_counts_pixels():
    data = encoded(gradient(10, 10))
    assert open_header(data, "face", max_pixels=100).size == (10, 10)
    with pytest.raises(DataError, match=r"face is 10×10, more than the 99 pixels"):
        decode(data, "face", max_pixels=99)


def test_a_text_bomb_inside_a_png_is_refused():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 200_000_000, zip=True)
    data = encoded(gradient(), pnginfo=text)
    assert len(data) < 1_000_000
    with pytest.raises(DataError, match="face"):
        decode(data, "face")


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_range_are_refused(mode):
    values = np.full((4, 4), -3.5 if mode == "F" else -3)
    image = Image.fromarray(values.astype(np.float32 if mode == "F" else np.int32))
    with pytest.raises(DataError, match="floating-point pixels" if mode == "F" else "values from -3 to -3"):
        to_rgb(image, "face")


def test_to_rgb_leaves_its_argument_alone():
    original = gradient()
    found = to_rgb(original, "face")
    found.putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == (0, 0, 0)


def test_reading_has_a_limit_and_wants_a_file(tmp_path):
    path = tmp_path / "face ☺ 1.png"
    path.write_bytes(b"12345678")
    assert read_limited(path, 8) == b"12345678"
    with pytest.raises(DataError, match="larger than the 7 bytes accepted"):
        read_limited(path, 7)
    with pytest.raises(DataError, match=r"nothing\.png does not exist"):
        read_limited(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="is not a regular file"):
        read_limited(tmp_path)
    with pytest.raises(DataError, match=r"a\\x00b\.png"):
        read_limited("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        read_limited(tmp_path / "pipe.png")


def test_a_loop_of_links_ends(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        read_limited(tmp_path / "a.png")


def test_only_suffixes_of_accepted_formats_are_listed():
    registered = Image.registered_extensions()
    assert {registered[suffix] for suffix in images.SUFFIXES} == set(images.FORMATS)
