"""Executed notebooks as a book in HTML that needs no network: formulas as MathML, pictures inside the pages.

`fer-lab reproduce` writes these pages, each as soon as its notebook has ended. The book with navigation and
search is made by Sphinx (`make site`), which sees the same notebooks through `readable`.
"""

import base64
import html
import io
import os
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from fer_lab._files import atomic_path, is_file, write_text
from fer_lab.book.result import NotebookResult, format_numbers, outputs

if TYPE_CHECKING:
    from jinja2.runtime import Context
    from nbformat import NotebookNode

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

    exporter = Exporter(raw_template=_template("page"))
    body, _ = exporter.from_notebook_node(readable(notebook), {"metadata": {"name": page.stem}})
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
            cell.source = re.sub(r"^(run_dir|data_root) = .*\n?", "", cell.source, flags=re.MULTILINE)
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
    """Write the book's first page: the sentence `heading`, and below it a row for each result."""
    import jinja2

    rows = []
    for result in results:
        link = os.path.relpath(result.page, page.parent).replace(os.sep, "/") if result.page else ""
        drawn = link and Path(result.page).with_suffix(".png").exists()
        rows.append((result, link, link.removesuffix(".html") + ".png" if drawn else ""))
    template = jinja2.Template(_template("index"), autoescape=True, keep_trailing_newline=True)
    write_text(page, template.render(rows=rows, heading=heading, format_numbers=format_numbers))


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


def _template(name: str) -> str:
    return Path(__file__).with_name(f"{name}.html.j2").read_text(encoding="utf-8")
