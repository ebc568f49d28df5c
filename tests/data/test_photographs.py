import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from fer_lab.data import photographs
from fer_lab.data.images import DataError
from fer_lab.data.photographs import FaceBox, crop_face, find_faces, open_image, open_upload

# Where the face is in scikit-image's 512 × 512 picture.
FACE = FaceBox(175, 73, 269, 167)


@pytest.fixture(scope="module")
def portrait():
    return Image.fromarray(astronaut())


def encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def overlap(a: FaceBox, b: FaceBox) -> float:
    """Intersection over union."""
    width = max(0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0, min(a.bottom, b.bottom) - max(a.top, b.top))
    return width * height / (a.area + b.area - width * height)


def test_a_path_bytes_and_an_image_open_alike(tmp_path, portrait):
    small = portrait.resize((40, 30))
    path = tmp_path / "a face.jpg"
    path.write_bytes(encoded(small))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), small):
        image = open_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.asarray(small))


def test_an_opened_image_is_turned_upright_and_made_rgb():
    wide = Image.new("L", (40, 20))
    wide.paste(255, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image = open_image(Image.open(io.BytesIO(encoded(wide, "JPEG", exif=exif))))
    assert (image.mode, image.size) == ("RGB", (20, 40))
    assert image.getpixel((10, 5))[0] > 250
    assert image.getpixel((10, 35))[0] < 5


def test_too_many_bytes_or_pixels_are_refused(tmp_path):
    data = encoded(Image.new("RGB", (30, 20)))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert open_image(path, max_bytes=len(data), max_pixels=600).size == (30, 20)
    for source in (path, data):
        with pytest.raises(DataError, match=f"{len(data) - 1:,} "):
            open_image(source, max_bytes=len(data) - 1)
    for source in (path, data, Image.new("RGB", (30, 20))):
        with pytest.raises(DataError, match=r"30×20"):
            open_image(source, max_pixels=599)


@pytest.mark.parametrize("data", [b"", b"<svg xmlns='x'/>", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"MZ" * 200])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(DataError, match="the picture"):
        open_image(data)


def test_a_truncated_picture_is_refused(portrait):
    data = encoded(portrait)[:5000]
    with pytest.raises(DataError, match="the picture is truncated or damaged"):
        open_image(data)
    with pytest.raises(DataError, match="the picture is damaged"):
        open_image(Image.open(io.BytesIO(data)))


def test_an_upload_is_a_picture_within_its_limits(portrait, monkeypatch):
    for kind in photographs.UPLOAD_FORMATS:
        data = encoded(portrait.resize((40, 30)), kind)
        image = open_upload(memoryview(data), "a.txt")
        assert (image.mode, image.size) == ("RGB", (40, 30))
        assert np.abs(np.asarray(image).astype(int) - np.asarray(portrait.resize((40, 30)))).mean() < 25
    for kind in ("TIFF", "PPM"):
        with pytest.raises(DataError, match=f"^me is a {kind} picture; save it as one of JPEG"):
            open_upload(encoded(portrait, kind), "me")
    monkeypatch.setattr("fer_lab.data.photographs.UPLOAD_SIDE", 20)
    assert open_upload(data).size == (20, 15)
    monkeypatch.setattr("fer_lab.data.photographs.UPLOAD_BYTES", len(data) - 1)
    with pytest.raises(DataError, match=f"^the upload has {len(data):,} bytes, more than"):
        open_upload(data)


@pytest.mark.filterwarnings("error")
def test_an_upload_of_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    # 100 million pixels in a file of 12 kB; Pillow alone would warn and go on.
    data = encoded(Image.new("1", (10_000, 10_000)))
    decoded = []
    monkeypatch.setattr("fer_lab.data.photographs.decode", lambda *given: decoded.append(given))
    with pytest.raises(DataError, match=r"10000×10000, more than the 40,000,000 pixels accepted"):
        open_upload(data)
    assert decoded == []


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(TypeError, match="expected a path, bytes or a PIL image, got ndarray"):
        open_image(np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")


@pytest.mark.parametrize("side", [300, 512, 1500])
def test_the_face_is_found_at_any_size(portrait, side):
    scale = side / 512
    expected = FaceBox(*(round(edge * scale) for edge in FACE.box))
    faces = find_faces(portrait.resize((side, side)))
    assert [overlap(face, expected) > 0.5 for face in faces] == [True]


def test_two_faces_are_two_boxes(portrait):
    both = Image.new("RGB", (1024, 512))
    both.paste(portrait, (0, 0))
    both.paste(portrait, (512, 0))
    second = FaceBox(FACE.left + 512, FACE.top, FACE.right + 512, FACE.bottom)
    faces = find_faces(encoded(both))
    for expected in (FACE, second):
        assert sum(overlap(face, expected) > 0.5 for face in faces) == 1
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)
    assert len(find_faces(both, largest_first=1)) == 1


@pytest.mark.parametrize("size", [(300, 300), (8, 8), (24, 24), (3000, 30), (1, 1)])
def test_no_face_where_there_is_none(size):
    assert find_faces(Image.new("RGB", size, "gray")) == []


def test_the_search_does_not_grow_with_the_picture(monkeypatch):
    searched = []

    class Cascade:
        def detect_multi_scale(self, img, **options):
            searched.append(img.shape)
            return []

    monkeypatch.setattr("fer_lab.data.photographs._cascade", Cascade)
    for size in ((6000, 3000), (320, 200)):
        find_faces(Image.new("RGB", size))
    assert searched == [(320, 640), (200, 320)]


@pytest.mark.parametrize("smallest", [0, 1, -1])
def test_a_share_out_of_range_is_refused(smallest):
    with pytest.raises(ValueError, match="smallest must be between 0 and 1"):
        find_faces(Image.new("RGB", (30, 30)), smallest=smallest)


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red is the column and whose green is the row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack((x, y, 0 * x), -1).astype(np.uint8))


def test_a_crop_is_the_square_of_the_box():
    crop = crop_face(coordinates(100, 80), FaceBox(30, 20, 50, 40), size=20)
    assert crop.dtype == torch.uint8
    assert crop.shape == (3, 20, 20)
    assert crop[0, 0].tolist() == list(range(30, 50))
    assert crop[1, :, 0].tolist() == list(range(20, 40))


@pytest.mark.parametrize(
    ("box", "margin", "left", "top", "side"),
    [
        ((30, 20, 50, 40), 0.1, 28, 18, 24),  # a tenth of 20 on every side
        ((30, 20, 50, 30), 0.0, 30, 15, 20),  # a wide box becomes a square about its middle
        ((0, 0, 20, 20), 0.5, 0, 0, 40),  # moved into the picture
        ((90, 70, 100, 80), 0.5, 80, 60, 20),
        ((10, 10, 90, 70), 1.0, 10, 0, 80),  # no larger than the picture
        ((-10, -10, 10, 10), 0.0, 0, 0, 20),
        (None, 0.0, 10, 0, 80),  # the middle square
    ],
)
def test_where_the_square_lies(box, margin, left, top, side):
    crop = crop_face(coordinates(100, 80), box, size=side, margin=margin)
    assert crop[0, 0].tolist() == list(range(left, left + side))
    assert crop[1, :, 0].tolist() == list(range(top, top + side))


def test_a_crop_is_resized():
    crop = crop_face(Image.new("RGB", (300, 200), (1, 2, 3)), None)
    assert crop.shape == (3, 112, 112)
    assert [channel.unique().tolist() for channel in crop] == [[1], [2], [3]]


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (200, 5, 210, 9), (-9, -9, 0, 0)])
def test_a_box_that_holds_nothing_is_refused(box):
    with pytest.raises(ValueError, match="no part of the box"):
        crop_face(Image.new("RGB", (100, 100)), box)


@pytest.mark.parametrize("options", [{"size": 0}, {"margin": -0.5}, {"margin": float("nan")}])
def test_crop_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        crop_face(Image.new("RGB", (100, 100)), None, **options)
