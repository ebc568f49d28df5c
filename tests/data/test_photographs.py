import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, brick, cat, coffee, coins, grass, gravel, rocket

from fer_lab.data import load_faces, photographs
from fer_lab.data.images import DataError, decode
from fer_lab.data.photographs import (
    FaceBox,
    crop_face,
    crop_folder,
    find_faces,
    find_tilt,
    list_photographs,
    open_image,
    open_upload,
)

# Where the face is in scikit-image's 512 × 512 picture.
FACE = FaceBox(175, 73, 269, 167)
HAS_DLIB = importlib.util.find_spec("dlib") is not None
needs_dlib = pytest.mark.skipif(not HAS_DLIB, reason="dlib has no wheel here")


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


def test_too_many_bytes_or_pixels_are_refused(monkeypatch):
    data = encoded(Image.new("RGB", (30, 20)))
    monkeypatch.setattr("fer_lab.data.photographs.MAX_BYTES", len(data))
    monkeypatch.setattr("fer_lab.data.photographs.MAX_PIXELS", 600)
    assert open_image(data).size == open_image(Image.new("RGB", (30, 20))).size == (30, 20)
    with pytest.raises(DataError, match=f"more than the {len(data):,} accepted"):
        open_image(data + b"0")
    with pytest.raises(DataError, match=r"30×21"):
        open_image(Image.new("RGB", (30, 21)))


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
    for kind in set(photographs.UPLOAD_FORMATS) - {"HEIF"}:
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
    with pytest.raises(TypeError, match="expected a path, bytes, a PIL image or an array, got list"):
        open_image([1, 2])
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")


def test_an_array_is_a_picture_in_rgb_order(portrait):
    for array in (np.asarray(portrait), np.asarray(portrait)[..., 0]):
        assert np.array_equal(np.asarray(open_image(array)), np.asarray(Image.fromarray(array).convert("RGB")))
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(DataError, match=r"expected an array uint8 \[H,W,3\] in RGB order"):
            open_image(wrong)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_too_many_pixels_is_shrunk_and_nothing_else_is(portrait, monkeypatch, progressive):
    picture = portrait.resize((800, 600))
    data = encoded(picture, "JPEG", progressive=progressive, subsampling="4:2:0")
    for limit, size in ((480_000, (800, 600)), (200_000, (400, 300)), (30_000, (200, 150)), (7500, (100, 75))):
        monkeypatch.setattr("fer_lab.data.photographs.UPLOAD_PIXELS", limit)
        assert open_upload(data).size == decode(data, "it", limit).size == size
        small = np.asarray(picture.resize(size, Image.Resampling.BOX)).astype(int)
        assert np.abs(np.asarray(open_upload(data)) - small).mean() < 8
    for kind, few in (("PNG", 200_000), ("JPEG", 7499)):
        with pytest.raises(DataError, match=f"more than the {few:,} pixels accepted"):
            decode(encoded(picture, kind), "it", few)
    # 4:2:0 has half as many coefficients as pixels times three, of two bytes each.
    for spare in (0, -1):
        monkeypatch.setattr("fer_lab.data.images.MAX_COEFFICIENTS", 800 * 600 * 3 + spare)
        if progressive and spare:
            with pytest.raises(DataError, match=r"progressive JPEG of 800×600.* save it as an ordinary JPEG"):
                decode(data, "it")
        else:
            assert decode(data, "it").size == (800, 600)
    monkeypatch.setattr("fer_lab.data.images.JPEG_PIXELS", 300_000)
    with pytest.raises(DataError, match="more than the 200,000 pixels accepted"):
        decode(data, "it", 200_000)


def test_a_heic_photograph_is_read_or_the_missing_package_is_named(portrait, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(DataError, match=r"is a HEIC photograph, .* pip install pillow-heif"):
            open_image(b"\0\0\0\x18ftypheic" + bytes(100))
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(portrait.resize((64, 48)), "HEIF")
    assert (open_image(data).size, open_upload(data).size) == ((64, 48), (64, 48))


@pytest.mark.parametrize("side", [300, 512, 1500])
def test_the_face_is_found_at_any_size(portrait, side):
    scale = side / 512
    expected = FaceBox(*(round(edge * scale) for edge in FACE.box))
    faces = find_faces(portrait.resize((side, side)))
    assert [overlap(face, expected) > 0.5 for face in faces] == [True]


@pytest.mark.parametrize("degrees", [-30, -20, 20, 30])
@needs_dlib
def test_a_rolled_face_is_found_and_turned_upright(portrait, degrees):
    rolled = portrait.rotate(degrees, Image.Resampling.BILINEAR, center=(222, 120))
    (face,) = find_faces(rolled)
    assert overlap(face, FACE) > 0.4
    assert face.score > 0
    # Her head is tilted in the photograph itself.
    assert find_tilt(rolled, face) == pytest.approx(find_tilt(portrait, FACE) - degrees, abs=6)


def test_rendered_faces_on_textures_are_found_and_textures_are_not():
    textures = [Image.fromarray(texture()).convert("RGB") for texture in (brick, coffee, grass, gravel)]
    found = 0
    for i, face in enumerate(load_faces("synthetic", count=16, size=160, seed=3).images):
        picture = textures[i % 4].resize((512, 512))
        picture.paste(Image.fromarray(face.permute(1, 2, 0).numpy()), (20 * i, 18 * i))
        middle = FaceBox(20 * i + 28, 18 * i + 41, 20 * i + 132, 18 * i + 145)
        found += [overlap(face, middle) > 0.4 for face in find_faces(picture)] == [True]
    assert found >= (16 if HAS_DLIB else 12)
    if HAS_DLIB:  # the cascade sees a face in some
        for texture in (brick, cat, coffee, coins, grass, gravel, rocket):
            assert find_faces(texture()) == []


def test_the_cascade_finds_the_same_face_without_dlib(portrait, monkeypatch):
    monkeypatch.setattr("fer_lab.data.photographs._dlib", lambda: None)
    (face,) = find_faces(portrait)
    assert overlap(face, FACE) > 0.6
    assert face.score == 0
    with pytest.raises(RuntimeError, match="pip install dlib-bin"):
        find_tilt(portrait, face)


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
    assert find_faces(both, smallest=0.3) == []


@pytest.mark.parametrize("size", [(300, 300), (8, 8), (24, 24), (3000, 30), (1, 1)])
def test_no_face_where_there_is_none(size, monkeypatch):
    assert find_faces(Image.new("RGB", size, "gray")) == []
    monkeypatch.setattr("fer_lab.data.photographs._dlib", lambda: None)
    assert find_faces(Image.new("RGB", size, "gray")) == []


def test_the_search_does_not_grow_with_the_picture(monkeypatch):
    searched = []

    class Finder:
        def detect_multi_scale(self, img, **options):
            searched.append(img.shape)
            return []

        def run(self, img, *options):
            searched.append(img.shape)
            return [], [], []

    monkeypatch.setattr("fer_lab.data.photographs._dlib", Finder)
    for size in ((6000, 3000), (320, 200)):
        find_faces(Image.new("RGB", size))
    assert searched == [(1225, 2449), (500, 800)]
    searched.clear()
    monkeypatch.setattr("fer_lab.data.photographs._dlib", lambda: None)
    monkeypatch.setattr("fer_lab.data.photographs._cascade", Finder)
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
    crop = crop_face(coordinates(100, 80), (30, 20, 50, 40), size=20)
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


def test_a_found_face_gets_the_frame_of_the_training_pictures():
    face = FaceBox(100, 100, 200, 200, score=1.0)
    assert face.frame() == face.frame("ferplus") == face.frame("rafdb")
    picture = coordinates(255, 255)
    for trained_on, side, middle in (("ferplus", 117, 143), ("synthetic", 154, 137.5)):
        crop = crop_face(picture, face, size=side, trained_on=trained_on).float()
        left, top, right, bottom = face.frame(trained_on)
        assert (right - left, bottom - top) == pytest.approx((side, side), abs=1)
        assert crop[0].mean() == pytest.approx(149.5, abs=1)
        assert crop[1].mean() == pytest.approx(middle - 0.5, abs=1)


# ---------------------------------------------------------------------------------------------------------
# A folder of photographs


@needs_dlib
@pytest.mark.parametrize("side", [112, 224])
def test_small_faces_in_large_pictures_are_no_crops(side):
    # Rendered faces on a texture, at a third of its side, and the faces alone.
    faces = load_faces(count=8, size=side // 3, seed=11, background=0).images
    bare = torch.from_numpy(brick()[:side, :side].copy()).expand(8, 3, -1, -1)
    scenes, place = bare.clone(), slice(side // 4, side // 4 + side // 3)
    scenes[:, :, place, place] = faces
    said = photographs.uncropped(pictures(scenes))
    assert "fer-lab data crop" in said
    share = float(said.split(" fills ")[1].split(" %")[0])
    assert 15 < share < 28  # 0.55 to 0.67 of the face's own picture, which is a third of the whole
    assert photographs.uncropped(pictures(load_faces(count=8, size=side, seed=11, background=0).images)) == ""
    # Too few faces to say anything.
    assert photographs.uncropped(pictures(torch.cat([scenes[:4], bare[:4]]))) == ""
    assert photographs.uncropped(pictures(scenes[:2])) == ""
    assert photographs.uncropped([]) == ""


def pictures(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@needs_dlib
def test_a_small_face_in_a_large_oblong_photograph_is_no_crop(portrait, monkeypatch):
    face = portrait.resize((500, 500))
    wide = []
    for i in range(4):
        scene = Image.fromarray(brick()).convert("RGB").resize((1800, 1200))
        scene.paste(face, (100 + 300 * i, 500))
        wide.append(scene)
    said = photographs.uncropped(wide)
    share = float(said.split(" fills ")[1].split(" %")[0])
    assert 5 < share < 14  # the box has a fifth of the portrait's 500 pixels, of the picture's 1200
    # No detector at all: nothing can be said, and nothing fails.
    monkeypatch.setattr(photographs, "_dlib", lambda: None)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    photographs._cascade.cache_clear()
    assert photographs.uncropped(wide) == ""


@pytest.fixture
def photographs_folder(tmp_path, portrait):
    root = tmp_path / "mine"
    both = Image.new("RGB", (1024, 512))
    both.paste(portrait, (0, 0))
    both.paste(portrait, (512, 0))
    pictures = {
        "happiness/a.png": portrait,
        "happiness/b.JPG": portrait,
        "happiness/us.png": both,
        "neutral/wall.png": Image.new("RGB", (90, 90), "gray"),
        "neutral/a.png": portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    for name, picture in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / name, "PNG")
    (root / "neutral/broken.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("not a picture")
    return root


def test_a_folder_of_photographs_becomes_a_folder_of_faces(photographs_folder, tmp_path, portrait):
    complaints = {}
    outcome = crop_folder(
        photographs_folder,
        tmp_path / "faces",
        size=64,
        on_bad=lambda file, reason: complaints.update({file.name: reason}),
    )
    assert outcome == {"cropped": 3, "several faces": 1, "no face": 1, "unreadable": 1}
    assert (complaints["us.png"], complaints["wall.png"]) == ("several faces", "no face")
    assert "broken.jpg is not a picture" in complaints["broken.jpg"]
    crops = sorted((tmp_path / "faces").rglob("*.*"))
    assert [str(crop.relative_to(tmp_path / "faces")) for crop in crops] == [
        str(Path("happiness", "a.png")),
        str(Path("happiness", "b.png")),
        str(Path("neutral", "a.png")),
    ]
    expected = crop_face(portrait, find_faces(portrait)[0], 64)
    assert np.array_equal(np.asarray(Image.open(crops[0])).transpose(2, 0, 1), expected.numpy())
    assert len(load_faces("folder", tmp_path / "faces", test_share=0.3)) == 3
    with pytest.raises(DataError, match="faces exists; name a folder that does not exist yet"):
        crop_folder(photographs_folder, tmp_path / "faces")


@needs_dlib
def test_aligned_crops_of_a_rolled_and_an_upright_photograph_agree(tmp_path, portrait):
    (tmp_path / "in").mkdir()
    crops = {}
    for degrees in (0, 30):
        portrait.rotate(degrees, Image.Resampling.BICUBIC, center=(222, 120)).save(tmp_path / "in/me.png")
        for align in (False, True):
            crop_folder(tmp_path / "in", tmp_path / f"{degrees}{align}", align=align)
            grey = Image.open(tmp_path / f"{degrees}{align}" / "me.png").convert("L").resize((16, 16))
            crops[degrees, align] = np.asarray(grey).ravel()
    alike = {align: np.corrcoef(crops[0, align], crops[30, align])[0, 1] for align in (False, True)}
    assert alike[True] > alike[False] + 0.2


def test_nothing_is_left_where_nothing_was_cropped(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (90, 90)).save(tmp_path / "in/wall.png")
    assert crop_folder(tmp_path / "in", tmp_path / "out") == {"no face": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_interrupted_crop_leaves_nothing(photographs_folder, tmp_path, monkeypatch):
    def interrupt(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_lab.data.photographs.crop_face", interrupt)
    with pytest.raises(KeyboardInterrupt):
        crop_folder(photographs_folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_links_do_not_lead_out_of_a_folder(photographs_folder, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    (photographs_folder / "link.png").symlink_to(tmp_path / "outside.png")
    (photographs_folder / "all").symlink_to(tmp_path, target_is_directory=True)
    listed = list_photographs([photographs_folder])
    assert [file.name for file in listed] == ["a.png", "b.JPG", "us.png", "a.png", "broken.jpg", "wall.png"]
    # A file that is named on the command line is taken wherever it is.
    assert list_photographs([tmp_path / "outside.png"]) == [tmp_path / "outside.png"]
    with pytest.raises(DataError, match=r"none\.png: no such file or folder"):
        list_photographs([photographs_folder, tmp_path / "none.png"])
