"""The book in HTML: pages that fetch nothing, formulas, figures, errors, links, and the first page."""

import base64
import io
import re
import string

import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from PIL import Image

from fer_lab.book.html import CHAPTERS, WIDGET, readable, to_mathml, write_index, write_page
from fer_lab.book.parameters import notebooks_folder, read_notebook, select_notebooks
from fer_lab.book.result import HEADLINE, NotebookResult, outputs


def test_the_pages_fetch_nothing(book):
    folder, _, _ = book
    pages = sorted(folder.rglob("*.html"))
    assert [page.name for page in pages] == ["00_good.html", "01_bad.html", "02_dead.html", "index.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        soup = BeautifulSoup(text, "html.parser")
        assert soup.find_all("script") == []
        for tag in soup.find_all(["link", "img", "iframe", "source", "object", "embed"]):
            source = tag.get("src") or tag.get("href") or tag.get("data")
            assert source.startswith("data:") or (page.parent / source).exists()
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text)


def test_a_page_shows_formulas_figures_errors_and_links(book):
    folder, _, _ = book
    good = BeautifulSoup((folder / "html" / "00_good.html").read_text(encoding="utf-8"), "html.parser")
    inline, block = good.find_all("math")
    assert inline.get_text() == "a<b"
    assert (block["display"], len(block.find_all("mtr"))) == ("block", 2)
    assert r"\nosuch{x}" in [code.get_text() for code in good.find_all("code")]
    assert good.find("a", string="go")["href"] == "01_bad.html#x"
    assert sum(image["src"].startswith("data:image/png") for image in good.find_all("img")) == 1
    assert good.title.get_text() == "About 00_good"
    assert "IntSlider(" not in " ".join(area.get_text() for area in good.find_all(class_="jp-OutputArea"))
    assert "ZeroDivisionError" in (folder / "html" / "01_bad.html").read_text(encoding="utf-8")


def test_the_first_page_lists_every_notebook(book):
    folder, _, _ = book
    index = BeautifulSoup((folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    rows = index.find_all("li")
    assert [row.a["href"] for row in rows] == [f"html/{n}.html" for n in ("00_good", "01_bad", "02_dead")]
    assert [row.h2.get_text() for row in rows] == ["00 About 00_good", "01 About 01_bad", "02 About 02_dead"]
    assert "accuracy 0.812" in rows[0].details.get_text()
    assert all(row.details.has_attr("open") for row in rows)
    assert "ZeroDivisionError: division by zero" in rows[1].find(class_="failed").get_text()
    assert Image.open(folder / rows[0].img["src"]).size == (384, 128)
    assert rows[1].img is None


def links(page):
    """Where a page's two navigations lead, by relation."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    head, foot = soup.find_all("nav")
    assert str(head) == str(foot)
    return {"".join(a.get("rel", ["up"])): (a["href"], a.get_text()) for a in head.find_all("a")}


def test_pages_lead_to_the_one_before_and_after(book):
    folder, _, _ = book
    up = ("../index.html", "The book")
    bad, dead = ("01_bad.html", "01_bad"), ("02_dead.html", "02_dead")
    assert links(folder / "html" / "00_good.html") == {"up": up, "next": (bad[0], "01_bad →")}
    middle = {"prev": ("00_good.html", "← 00_good"), "up": up, "next": (dead[0], "02_dead →")}
    assert links(folder / "html" / "01_bad.html") == middle
    assert links(folder / "html" / "02_dead.html") == {"prev": (bad[0], "← 01_bad"), "up": up}


def test_a_chapter_has_its_title_sentence_and_result_in_words(tmp_path):
    (tmp_path / "html").mkdir()
    results = []
    for name, headline in {"00_start_here": {}, "02_dan": {"accuracy": 0.9, "head_overlap": 0.85}}.items():
        page = tmp_path / "html" / f"{name}.html"
        write_page(v4.new_notebook(cells=[v4.new_markdown_cell("# A heading")]), page, tmp_path)
        results.append(NotebookResult(name, "A heading", 2.0, headline, page=str(page)))
        description = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find(
            "meta", {"name": "description"}
        )
        assert description["content"] == CHAPTERS[name]["sentence"]
    results.append(NotebookResult("02_dan_seed1", "A heading", headline={"accuracy": 0.8}))
    for _ in range(2):  # a book is added to
        write_index(tmp_path / "index.html", results, "Profile smoke.")
    first, second, third = BeautifulSoup(
        (tmp_path / "index.html").read_text(encoding="utf-8"), "html.parser"
    ).find_all("li")
    assert first.h2.get_text() == "00 Start here: a first network that reads faces"
    assert [p.get_text() for p in first.find_all("p")] == [CHAPTERS["00_start_here"]["sentence"]]
    assert "No headline numbers." in first.details.get_text()
    said = second.find_all("p")[1].get_text()
    assert (
        said
        == "DAN names 90\xa0% of the test faces right. Its heads' maps overlap by 0.85, where 1 is one map."
    )
    assert not second.details.has_attr("open")
    assert (third.h2.get_text(), third.a, third.p) == ("02 A heading", None, None)
    assert "accuracy 0.8" in third.details.get_text()
    assert links(tmp_path / "html" / "00_start_here.html")["next"] == ("02_dan.html", "02 DAN →")


def test_every_chapter_of_the_book_is_described():
    assert list(CHAPTERS) == [path.stem for path in select_notebooks()]
    for name, chapter in CHAPTERS.items():
        needed = {field for _, field, _, _ in string.Formatter().parse(chapter["found"]) if field}
        recorded = [
            o.data[HEADLINE]
            for o in outputs(read_notebook(notebooks_folder() / f"{name}.ipynb"))
            if HEADLINE in o.get("data", {})
        ]
        assert needed <= {key for one in recorded for key in one}, name


@pytest.mark.parametrize("tex", ["", r"\frac", r"\begin{nothing}x\end{nothing}"])
def test_a_formula_that_cannot_be_converted_stays_readable(tex):
    assert "\\" not in re.sub(r"<code>.*</code>", "", to_mathml(tex))


def png() -> str:
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def picture(**metadata):
    return v4.new_output("display_data", {"image/png": png()}, metadata={"image/png": metadata})


def test_pictures_keep_their_texts_and_widths(tmp_path):
    bare = v4.new_output("display_data", {"image/png": png()})
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# A title"),
            v4.new_code_cell("show(a)", outputs=[picture(alt='"a" < b', width=90)]),
            v4.new_code_cell("display(b)", outputs=[picture(), bare]),
        ]
    )
    write_page(notebook, tmp_path / "page.html", tmp_path)
    page = BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")
    assert page.title.get_text() == "A title"
    images = page.find_all("img")
    assert [image["alt"] for image in images] == ['"a" < b', *["a picture without a text"] * 2]
    assert [image.get("width") for image in images] == ["90", None, None]


def test_code_of_a_solution_stays_folded_with_it(tmp_path):
    text = "<details><summary>Solution</summary>\n\n```python\nx = 1\n```\n\n</details>\n\nafter"
    write_page(v4.new_notebook(cells=[v4.new_markdown_cell(text)]), tmp_path / "page.html", tmp_path)
    page = BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")
    assert page.details.pre.get_text() == "x = 1\n"
    assert "after" not in page.details.get_text()


@pytest.mark.parametrize("source", ["FaceExplorer(models)", "x = 1\nexplorer.frame_player(draw, 3)"])
def test_a_note_stands_for_a_widget(source):
    widget = v4.new_output("display_data", {WIDGET: {}, "text/plain": "FaceExplorer()"})
    cells = [v4.new_code_cell(source, outputs=[widget]), v4.new_code_cell("from a import FaceExplorer")]
    notebook = v4.new_notebook(cells=cells)
    shown = readable(notebook)
    assert [output.data["text/plain"] for output in shown.cells[0].outputs] == [
        "Runs live in JupyterLab: make lab"
    ]
    assert shown.cells[1].outputs == []
    assert notebook.cells[0].outputs == [widget]  # the executed notebook keeps it


def test_a_page_shows_the_parameters_of_a_run_and_no_folder_of_it():
    source = (
        '# Parameters\nprofile = "smoke"\ndata_root = "/home/me/faces"\nrun_dir = "/home/me/run"\nseed = 3\n'
    )
    injected = v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    marked = v4.new_code_cell("1 + 1  # NBVAL_CHECK_OUTPUT")
    shown = readable(v4.new_notebook(cells=[injected, marked]))
    assert [cell.source for cell in shown.cells] == [
        '# Parameters of this run\nprofile = "smoke"\nseed = 3\n',
        "1 + 1",
    ]
