"""The published book: links, pictures, solutions, requests; on a desk, a phone, in the dark, on paper."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup

pytest.importorskip("furo")
pytest.importorskip("myst_nb")

pytestmark = pytest.mark.timeout(600)  # the site is made once, in half a minute on a quiet machine

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Pages of Sphinx itself.
LISTS = {"genindex.html", "py-modindex.html", "search.html"}
# In place of the explorer's page, which has tests of its own.
LIVE = """<!DOCTYPE html><html lang="en"><title>The explorer in a browser</title><link rel="icon" href="data:,">
<meta name="description" content="A page that stands for the explorer's."><h1>Explorer</h1></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "site"
    live = out.with_name("page.html")
    live.write_text(LIVE, encoding="utf-8")
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "site" / "build.py", out, "--live", live],
        capture_output=True,
        text=True,
        cwd=out.parent,
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert {path.name for path in out.parent.iterdir()} == {"site", "page.html"}
    return out


@pytest.fixture(scope="module")
def pages(site):
    """Path inside the site → the parsed page."""
    found = {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }
    return {name: BeautifulSoup(text, "html.parser") for name, text in found.items()}


def test_every_notebook_text_and_folder_has_its_page(pages):
    needed = {f"notebooks/{path.stem}.html" for path in NOTEBOOKS}
    needed |= {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    folders = [path.parent for path in (ROOT / "fer_lab").glob("*/__init__.py")]
    needed |= {f"api/fer_lab.{path.name}.html" for path in folders} | {"api/fer_lab.html", "runs.html"}
    assert needed - set(pages) == set()
    assert pages["api/fer_lab.models.html"].find(id="fer_lab.models.create_model") is not None
    commands = pages["api/fer_lab.cli.html"].get_text()
    assert {f"fer-lab {name}" for name in ("reproduce", "train", "data crop", "bench models")} <= set(
        re.findall(r"fer-lab [a-z]+(?: [a-z]+)?(?=¶|\n)", commands)
    )
    assert "Seed of every random draw." in commands
    cards = pages["index.html"].find_all(class_="chapter")
    assert [card.find("a")["href"] for card in cards] == [f"notebooks/{path.stem}.html" for path in NOTEBOOKS]
    assert pages["index.html"].select_one("p.live a")["href"] == "live.html"
    assert all(card.img and card.find_all("p")[-1].get_text().endswith(".") for card in cards)


def test_titles_and_descriptions_are_there_and_differ(pages):
    texts = [
        (page.title.get_text(), page.find("meta", attrs={"name": "description"})["content"])
        for name, page in pages.items()
        if name not in LISTS
    ]
    titles, descriptions = zip(*texts, strict=True)
    assert len(set(titles)) == len(set(descriptions)) == len(texts)
    assert all(len(text) > 20 for text in descriptions)
    assert "DAN: several looks at one face - fer_lab" in titles
    assert all(
        page.find("link", rel="icon") or page.find("link", rel="shortcut icon") for page in pages.values()
    )


def test_links_lead_somewhere(site, pages):
    broken = []
    for name, page in pages.items():
        for tag in page.find_all(["a", "img", "link", "script"]):
            link = tag.get("href") or tag.get("src") or "#"
            if re.match(r"(https?|mailto|data):", link):
                continue
            path, _, place = unquote(link).partition("#")
            target = (site / name).parent / path.partition("?")[0] if path else site / name
            other = pages.get(target.resolve().relative_to(site.resolve()).as_posix())
            if not target.exists() or (place and other and not other.find(id=place)):
                broken.append((name, link))
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site, pages):
    fetched = [
        tag.get("src") or tag.get("href")
        for page in pages.values()
        for tag in page.find_all(["script", "img", "iframe", "source", "object", "embed", "link"])
    ]
    assert len(fetched) > 100
    assert [link for link in fetched if re.match(r"(https?:)?//", link or "")] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert [text for text in styles if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text)] == []


def test_every_picture_has_a_text_of_its_own(pages):
    for path in NOTEBOOKS:
        cells = nbformat.read(path, 4).cells
        drawn = [o for cell in cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
        shown = pages[f"notebooks/{path.stem}.html"].article.find_all("img", src=re.compile(r"^\.\./_images/"))
        assert len(shown) == len(drawn) > 0
    for name, page in pages.items():
        assert all(image.get("alt") for image in page.find_all("img")), name
        # The explorer's stills are tables with small pictures inside.
        texts = [image["alt"] for image in page.find_all("img") if not image["src"].startswith("data:")]
        assert all(len(text) > 15 and not re.search(r"\.(png|svg)$", text) for text in texts), name
        assert len(set(texts)) == len(texts), name


def test_solutions_are_folded_and_whole(pages):
    folded = 0
    for path in NOTEBOOKS:
        texts = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
        blocks = re.findall(r"<details>.*?</details>", "\n".join(texts), re.DOTALL)
        shown = pages[f"notebooks/{path.stem}.html"].find_all("details")
        assert len(shown) == len(blocks) > 0
        for one, block in zip(shown, blocks, strict=True):
            assert "open" not in one.attrs
            assert len(one.find_all("pre")) == block.count("```") // 2
            assert len(one.get_text()) > len(one.summary.get_text()) + 10
        folded += len(shown)
    assert folded > 40


def test_pages_show_neither_machinery_nor_folders_of_their_maker(site, pages):
    for path in [*site.rglob("*.html"), site / "searchindex.js"]:
        text = path.read_text(encoding="utf-8")
        for word in (str(ROOT), str(site.parent), str(Path.home()) + "/", "NBVAL_CHECK_OUTPUT", "fer_lab-site"):
            assert word not in text, (path.name, word)
    live = [code.get_text() for code in pages["notebooks/08_explorer.html"].select("p.live code")]
    assert live == ["make lab"] * 3
    assert all(page.find("math") for name, page in pages.items() if name.startswith("notebooks/02"))
    assert not [name for name, page in pages.items() if page.find(string=re.compile(r"\\(frac|sum|lambda)"))]


# ---------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture
def visit(site, browser):
    """Open a page of the site from the disk; no script fails and nothing comes from a network."""
    faults, contexts = [], []

    def open_page(name, width=1366, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 390])
def test_pages_fit_the_window(visit, screenshots, width, scheme):
    for name in ("index", "notebooks/02_dan", "notebooks/08_explorer", "docs/results", "api/fer_lab.data"):
        page = visit(f"{name}.html", width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        red, green, blue = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
        )
        assert (red + green + blue < 150) == (scheme == "dark")
        page.screenshot(path=screenshots / f"site_{Path(name).name}_{width}_{scheme}.png")


def test_code_is_whole_on_paper(visit, screenshots):
    page = visit("notebooks/02_dan.html")
    cut = "[...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) > 0
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 900})
    assert page.evaluate(cut) == 0
    assert not page.locator(".skip-to-content, .sidebar-drawer").first.is_visible()
    printed = page.pdf(path=screenshots / "site_02_dan.pdf", format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) < 40


def test_search_and_the_way_through_the_book_work_from_a_disk(visit):
    page = visit("search.html?q=partition+loss")
    page.locator("#search-results a", has_text="DAN: several looks at one face").click()
    assert page.locator("h1").inner_text().startswith("DAN")
    page = visit(f"notebooks/{NOTEBOOKS[0].stem}.html")
    for path in NOTEBOOKS[1:]:
        page.locator("a.next-page").click()
        assert page.url.endswith(f"/{path.stem}.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(visit, pages, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    some = {"index.html", "notebooks/02_dan.html", "docs/results.html", "api/fer_lab.data.html"}
    serious = []
    for name in sorted(some if scheme == "dark" else pages):
        page = visit(name, scheme=scheme)
        found = axe.run(page).response["violations"]
        page.close()
        serious += [
            (name, v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")
        ]
    assert serious == []
