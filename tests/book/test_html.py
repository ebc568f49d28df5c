"""The book in HTML: pages that fetch nothing, formulas, figures, errors, links, and the first page."""

import re

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from fer_lab.book.html import to_mathml


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
    assert "IntSlider(" not in " ".join(area.get_text() for area in good.find_all(class_="jp-OutputArea"))
    assert "ZeroDivisionError" in (folder / "html" / "01_bad.html").read_text(encoding="utf-8")


def test_the_first_page_lists_every_notebook(book):
    folder, _, _ = book
    index = BeautifulSoup((folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    rows = index.find_all("tr")[1:]
    assert [row.a["href"] for row in rows] == [f"html/{n}.html" for n in ("00_good", "01_bad", "02_dead")]
    assert "accuracy 0.812" in rows[0].get_text()
    assert "ZeroDivisionError: division by zero" in rows[1].find(class_="failed").get_text()
    assert Image.open(folder / rows[0].img["src"]).size == (384, 128)
    assert rows[1].img is None


@pytest.mark.parametrize("tex", ["", r"\frac", r"\begin{nothing}x\end{nothing}"])
def test_a_formula_that_cannot_be_converted_stays_readable(tex):
    assert "\\" not in re.sub(r"<code>.*</code>", "", to_mathml(tex))
