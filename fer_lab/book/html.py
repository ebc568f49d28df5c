"""Executed notebooks as a book in HTML that needs no network: formulas as MathML, pictures inside the pages.

nbconvert's own pages load MathJax, require.js and widgets from the network; these load nothing.
"""

import base64
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from fer_lab._files import atomic_path

_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_css %}<style>
body { max-width: 62rem; margin: 0 auto; }
math[display=block] { margin: .8em 0; }
mtable[columnspacing^="0em"] mtd { padding-left: 0; padding-right: 0; }
nav { padding: 1em; }
</style>{% endblock %}
{% block body_header %}{{ super() }}<nav><a href="../index.html">← the book</a></nav>{% endblock %}
"""
_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>fer_lab, the book</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; color: #222; }
body, nav { padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid #ddd; }
td.number { text-align: right; white-space: nowrap; }
img { max-width: 12rem; display: block; }
.failed { color: #a40000; margin: 0; }
</style></head><body>
<h1>fer_lab, the book</h1>
"""
_HEAD = "<tr><th>Notebook</th><th>Seconds</th><th>Headline numbers</th><th>Figures</th><th></th></tr>"
WIDGET = "application/vnd.jupyter.widget-view+json"


def to_mathml(tex: str, *, display: bool = False) -> str:
    """TeX → MathML; what the converter does not know stays readable as the TeX it was."""
    import latex2mathml.converter

    # `aligned` is what TeX wants inside $$…$$; the converter knows the same table as `split`.
    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{split}", tex.strip())
    try:
        math = latex2mathml.converter.convert(source, display="block" if display else "inline")
    except Exception:  # the converter's errors have no common base
        math = "\\"
    return f"<code>{html.escape(tex)}</code>" if "\\" in math else math


def write_page(notebook, page: Path, source: Path) -> None:
    """Write an executed notebook as one HTML file with nothing to fetch, and a thumbnail beside it.

    Args:
        notebook: notebook node, nbformat 4. Its widgets are left out: they are dead without a kernel.
        page: the file to write; its folder is made.
        source: folder that the Markdown cells' pictures are relative to.
    """
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body):
            return to_mathml(body)

        def block_math(self, body):
            return to_mathml(body, display=True)

        def latex_environment(self, name, body):
            return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context, text):
            renderer = Renderer(
                escape=False,
                attachments=context.get("cell", {}).get("attachments", {}),
                embed_images=True,
                path=str(source),
                anchor_link_text=self.anchor_link_text,
            )
            return MarkdownWithMath(renderer=renderer).render(text)

    exporter = Exporter(raw_template=_TEMPLATE)
    body, _ = exporter.from_notebook_node(without_widgets(notebook), {"metadata": {"name": page.stem}})
    body = re.sub(r'(<a[^>]+href="[^":]*)\.ipynb\b', r"\1.html", body)
    _write(page, body)
    _write_thumbnail(notebook, page.with_suffix(".png"))


def without_widgets(notebook):
    """A copy of a notebook without its widgets, which are dead where their kernel is not."""
    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    return notebook


def write_index(page: Path, results: Sequence, heading: str) -> None:
    """Write the book's first page: a row for each `NotebookResult`, one sentence `heading` above."""
    lines = [_INDEX, f"<p>{html.escape(heading)}</p>", "<table>", _HEAD]
    for result in results:
        numbers = html.escape(format_numbers(result.headline))
        if result.error:
            numbers += f'<p class="failed">{html.escape(result.error)}</p>'
        title = html.escape(result.title or result.notebook)
        picture = ""
        if result.page:
            link = os.path.relpath(result.page, page.parent).replace(os.sep, "/")
            title = f'<a href="{html.escape(link)}">{title}</a>'
            if Path(result.page).with_suffix(".png").exists():
                picture = f'<img alt="its first figure" src="{html.escape(link.removesuffix(".html"))}.png">'
        lines.append(
            f'<tr><td>{title}</td><td class="number">{result.seconds:.1f}</td><td>{numbers}</td>'
            f'<td class="number">{result.figures}</td><td>{picture}</td></tr>'
        )
    lines.append("</table></body></html>\n")
    _write(page, "\n".join(lines))


def format_numbers(numbers: Mapping) -> str:
    """`{"accuracy": 0.81234, "faces": 12}` → "accuracy 0.812 · faces 12"."""
    shown = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in numbers.values())
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in zip(numbers, shown, strict=True))


def _write_thumbnail(notebook, picture: Path) -> None:
    """The first figure, at most 384 px, in `picture`; no file where a notebook has no figure."""
    from PIL import Image

    picture.unlink(missing_ok=True)
    for output in (o for cell in notebook.cells for o in cell.get("outputs", ())):
        if png := output.get("data", {}).get("image/png"):
            image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
            image.thumbnail((384, 384))
            with atomic_path(picture) as whole:
                image.quantize(64).save(whole)
            return


def _write(page: Path, text: str) -> None:
    data = text.encode("utf-8", "replace")
    with atomic_path(page, needed=len(data)) as whole:
        whole.write_bytes(data)
