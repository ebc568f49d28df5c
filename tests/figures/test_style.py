"""PNGs with a palette, the same bytes each time; colours that stay what they are."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageColor
from seaborn.utils import relative_luminance

from fer_lab.data.expressions import COLORS
from fer_lab.figures import face_grid, png, save, show, style


def noisy_faces(n=6):
    return np.random.default_rng(0).integers(0, 256, (n, 3, 40, 40), dtype=np.uint8)


def chart():
    fig = Figure(figsize=(3, 2))
    ax = fig.subplots()
    ax.barh(range(len(COLORS)), range(1, len(COLORS) + 1), color=list(COLORS.values()))
    return fig


def test_a_saved_figure_has_a_palette_and_its_bytes_repeat(tmp_path):
    first = save(face_grid(noisy_faces()), tmp_path / "new" / "a.png")
    second = save(face_grid(noisy_faces()), tmp_path / "b.png")
    assert first == tmp_path / "new" / "a.png"
    assert first.read_bytes() == second.read_bytes()
    picture = Image.open(first)
    assert picture.mode == "P"
    assert set(picture.info) <= {"dpi"}  # no date, no version
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_only_png_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"got 'a\.pdf'"):
        save(chart(), tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_bars_keep_the_expressions_exact_colours_and_the_paper_is_white():
    picture = Image.open(io.BytesIO(png(chart()))).convert("RGB")
    found = {color for _, color in picture.getcolors(100_000)}
    wanted = {tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in COLORS.values()}
    assert wanted <= found
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_flat_colours_stay_exact_beside_faces():
    shades = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    shades[:20] = (230, 159, 0)
    shades[20:40] = 255
    picture = style.with_palette(Image.fromarray(shades), soft=True)
    drawn = np.asarray(picture.convert("RGB"))
    assert picture.mode == "P"
    assert (drawn[:40] == shades[:40]).all()
    # 256 colours cannot be exact elsewhere, but must be close: a random colour would be off by 85.
    assert np.abs(drawn[40:].astype(int) - shades[40:]).mean() < 30


def test_shades_of_skin_have_no_dots_of_another_hue():
    light, hue = np.mgrid[0:1:90j, 0:1:120j]
    colors = np.array([150.0, 100, 75]) + hue[..., None] * np.array([70, 60, 55])
    pixels = ((0.4 + 0.6 * light)[..., None] * colors).astype(np.uint8)
    drawn = np.asarray(style.with_palette(Image.fromarray(pixels), soft=True).convert("RGB"))
    apart = drawn.astype(int) - pixels
    assert np.ptp(apart, axis=2).max() < 16  # red against green; error diffusion reaches twice that
    assert np.abs(apart.reshape(9, 10, 12, 10, 3).mean((1, 3))).max() < 3  # and no bands


def test_few_colours_are_kept_as_they_are():
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    pixels[:5] = (204, 121, 167)
    assert (np.asarray(style.with_palette(Image.fromarray(pixels), soft=True).convert("RGB")) == pixels).all()


def test_the_style_does_not_leak_and_ignores_the_readers_settings():
    plain = png(face_grid(noisy_faces(), list("abcdef")))
    with mpl.rc_context({"font.size": 22, "figure.facecolor": "black", "font.style": "italic"}):
        before = mpl.rcParams.copy()
        assert png(face_grid(noisy_faces(), list("abcdef"))) == plain
        assert mpl.rcParams == before


def test_show_displays_the_saved_bytes_at_the_size_in_inches(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    fig = chart()
    show(fig, alt="eight bars")
    assert shown[0].data == png(fig)
    assert (shown[0].format, shown[0].width, shown[0].alt) == ("png", 288, "eight bars")


@pytest.mark.parametrize("alt", ["", " \n"])
def test_a_figure_without_a_text_is_not_shown(alt, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    with pytest.raises(ValueError, match="needs an alt text, got an empty one"):
        show(chart(), alt=alt)
    assert shown == []


def test_a_thin_line_keeps_its_classs_colour_beside_a_photograph():
    fig = Figure(figsize=(3, 2))
    left, right = fig.subplots(1, 2)
    left.imshow(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    for i, color in enumerate(COLORS.values()):
        right.axhline(i, color=color, linewidth=3)
    written = Image.open(io.BytesIO(png(fig))).convert("RGB")
    there = {rgb for _, rgb in written.getcolors(written.width * written.height)}
    assert {ImageColor.getrgb(color) for color in COLORS.values()} <= there


def test_methods_have_titles_and_colours_of_their_own():
    assert len(set(style.METHOD_COLORS.values())) == len(style.METHOD_COLORS) == 6
    assert style.method_title("triplet_center") == "triplet-center"
    assert style.method_title("ferplus/dan") == "DAN · photographs"
    assert style.method_title("100 GB/s") == "100 GB/s"
    assert style.method_color("ferplus/dan") == style.METHOD_COLORS["dan"]
    assert style.method_color("nobody's") == "#999999"
    assert style.method_palette(["mine", "yours"]) == {"mine": style.SERIES[0], "yours": style.SERIES[1]}


@pytest.mark.parametrize(("count", "places", "empty"), [(2, (1, 2), 0), (4, (2, 2), 0), (5, (2, 3), 1)])
def test_panels_leave_a_hole_only_for_a_legend(count, places, empty):
    fig, axes, left = style.panels(count, 2, 2, 0.5)
    assert (len(axes), len(left)) == (count, empty)
    assert axes[0].get_gridspec().get_geometry() == places
    style.legend(fig, [style.mark("a")], left)
    assert len(fig.legends) == 1 - empty


def test_every_text_of_a_heat_table_stands_out_from_its_cell():
    values = np.linspace(0, 1, 100).reshape(10, 10)
    names = list("abcdefghij")
    ax = Figure().subplots()
    style.heat_table(ax, values, names, names, values.round(2).astype(str))
    assert len(ax.texts) == values.size
    for text in ax.texts:
        column, row = map(int, text.get_position())
        cell = ax.collections[0].get_facecolor()[10 * row + column]
        light, dark = sorted(map(relative_luminance, (text.get_color(), cell)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.5, (values[row, column], text.get_color())
