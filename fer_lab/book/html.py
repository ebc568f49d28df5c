"""Executed notebooks as a book in HTML that needs no network: formulas as MathML, pictures inside the pages.

`fer-lab reproduce` writes these pages, each as soon as its notebook has ended. The book with navigation and
search is made by Sphinx (`make site`), which sees the same notebooks through `readable`.
"""

import base64
import html
import io
import os
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_lab._files import atomic_path, is_file, write_text
from fer_lab.book.result import NotebookResult, format_numbers, outputs

if TYPE_CHECKING:
    from jinja2.runtime import Context
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent
# notebook → what a first page says of it
CHAPTERS: dict[str, dict[str, str]] = tomllib.loads((FOLDER / "chapters.toml").read_text(encoding="utf-8"))
NAVIGATION = re.compile(r'<nav class="book".*?</nav>', re.DOTALL)
WIDGET = "application/vnd.jupyter.widget-view+json"
# A cell that shows a widget, and what a page shows in its place.
LIVE = re.compile(r"^(?:\w+\.)?(?:\w+Explorer|frame_player)\(", re.MULTILINE)
NOTE = {
    "text/html": '<p class="live">Runs live in JupyterLab: <code>make lab</code></p>',
    "text/plain": "Runs live in JupyterLab: make lab",
}


def to_mathml(tex: str, *, display: bool = False) -> str:
    """TeX → MathML. TeX that the converter does not know is shown as it was written."""
    import latex2mathml.converter

    # Inside $$…$$ TeX wants `aligned`; the converter knows the same table as `split`.
    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{split}", tex.strip())
    try:
        math = latex2mathml.converter.convert(source, display="block" if display else "inline")
    except Exception:  # the converter's errors have no common base
        math = "\\"
    return f"<code>{html.escape(tex)}</code>" if "\\" in math else math


def write_page(notebook: "NotebookNode", page: Path, source: Path) -> None:
    """Write an executed notebook, as `readable` makes it, as one HTML file with nothing to fetch.

    A thumbnail lies next to it. The Markdown cells' pictures are relative to the folder `source`.
    """
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_html(self, html: str) -> str:
            return html  # the renderer's own closes <details> before the code inside it

        def inline_math(self, body: str) -> str:
            return to_mathml(body)

        def block_math(self, body: str) -> str:
            return to_mathml(body, display=True)

        def latex_environment(self, name: str, body: str) -> str:
            return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context: "Context", text: str) -> str:
            renderer = Renderer(
                escape=False,
                attachments=context.get("cell", {}).get("attachments", {}),
                embed_images=True,
                path=str(source),
                anchor_link_text=self.anchor_link_text,
            )
            return MarkdownWithMath(renderer=renderer).render(text)

    exporter = Exporter(template_file="page.html.j2", extra_template_paths=[str(FOLDER)])
    about = {"metadata": {"name": page.stem}, "chapter": CHAPTERS.get(page.stem, {})}
    body, _ = exporter.from_notebook_node(readable(notebook), about)
    write_text(page, re.sub(r'(<a[^>]+href="[^":]*)\.ipynb\b', r"\1.html", body))
    _write_thumbnail(notebook, page.with_suffix(".png"))


def readable(notebook: "NotebookNode") -> "NotebookNode":
    """A copy of an executed notebook as a page shows it.

    A note stands for a widget, and neither marks for tests nor the folders of whoever ran it are shown.
    """
    from nbformat import v4

    notebook = without_widgets(notebook)
    notebook.metadata["title"] = title_of(notebook)
    for cell in notebook.cells:
        cell.source = re.sub(r" *# NBVAL_CHECK_OUTPUT", "", cell.source)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            told = re.sub(r"^(run_dir|data_root) = .*\n?", "", cell.source, flags=re.MULTILINE)
            cell.source = told.replace("# Parameters\n", "# Parameters of this run\n", 1)
        if cell.cell_type == "code" and LIVE.search(cell.source):
            cell.outputs = [v4.new_output("display_data", NOTE), *cell.get("outputs", ())]
    return notebook


def title_of(notebook: "NotebookNode") -> str:
    """The first heading of the first level, "" without one."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return match[1].strip()
    return ""


def without_widgets(notebook: "NotebookNode") -> "NotebookNode":
    """A copy of a notebook without its widgets, which do nothing once their kernel has ended."""
    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    return notebook


def write_index(page: Path, results: Sequence[NotebookResult], heading: str) -> None:
    """Write the book's first page, the sentence `heading` above the results; link their pages in this order."""
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(loader=FileSystemLoader(FOLDER), autoescape=True)
    rows = []
    for result in results:
        file = page.parent / "html" / Path(result.page).name
        row: dict[str, Any] = {"result": result, "chapter": CHAPTERS.get(result.notebook, {})}
        row["file"] = file if file.is_file() else None
        with suppress(KeyError, TypeError, ValueError):
            row["found"] = row["chapter"]["found"].format_map(result.headline).replace("%", "\xa0%")
        rows.append(row)
    index = templates.get_template("index.html.j2")
    write_text(page, index.render(rows=rows, heading=heading, format_numbers=format_numbers))
    linked = [row for row in rows if row["file"]]
    for before, row, after in zip([None, *linked], linked, [*linked[1:], None], strict=False):
        links = templates.get_template("navigation.html.j2").render(before=before, after=after)
        write_text(row["file"], links.join(NAVIGATION.split(row["file"].read_text(encoding="utf-8"))))


def is_index(page: Path) -> bool:
    """Whether `write_index` may write a page: nothing is there, or what it wrote before."""
    title = b"<title>fer_lab, the book</title>"
    return not os.path.lexists(page) or (is_file(page) and title in page.read_bytes()[:400])


def _write_thumbnail(notebook: "NotebookNode", picture: Path) -> None:
    """Write the first figure, at most 384 px, to `picture`. A notebook without figures gets no file."""
    from PIL import Image

    picture.unlink(missing_ok=True)
    for output in outputs(notebook):
        if png := output.get("data", {}).get("image/png"):
            image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
            image.thumbnail((384, 384))
            with atomic_path(picture) as whole:
                image.quantize(64).save(whole)
            return
