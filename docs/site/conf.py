"""Sphinx's settings, and what it lacks: formulas as MathML, figures' own alt texts, descriptions."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import nbformat
from docutils import nodes

import fer_lab
from fer_lab.book.html import to_mathml
from fer_lab.book.result import outputs

project = "fer_lab"
author = "The fer_lab authors"
copyright = "the fer_lab authors, MIT licence"
version = release = fer_lab.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.githubpages"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_custom_sections = [("Class attributes", "params_style")]
napoleon_use_ivar = True
maximum_signature_line_length = 90
default_role = "py:obj"
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "fer_lab"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_favicon = "favicon.svg"
html_domain_indices = False  # the reference is one
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # a page opened from a disk may not fetch others
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#332288", "color-brand-content": "#332288"},
    "dark_css_variables": {"color-brand-primary": "#b3b0ec", "color-brand-content": "#b3b0ec"},
    "top_of_page_buttons": [],
}

LONG_SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)


def _inline_math(writer, node):
    writer.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(writer, node):
    writer.body.append(f'<div class="math" tabindex="0">{to_mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def _as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings have a bare * in shapes, and letters after a closing backtick."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
        parts[2::2] = [rf"\ {part}" if part[:1].isalpha() else part for part in parts[2::2]]
        lines[i] = "`".join(parts)


def _give_pictures_their_texts(app, doctree):
    """MyST-NB names a picture by its digest and leaves the alt text that came with it behind."""
    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix != ".ipynb":
        return
    texts = {}
    for output in outputs(nbformat.read(source, 4)):
        if png := output.get("data", {}).get("image/png"):
            digest = hashlib.sha256(base64.b64decode(png)).hexdigest()
            texts[digest] = output.metadata["image/png"]["alt"]
    for image in doctree.findall(nodes.image):
        image["alt"] = texts.get(Path(image["uri"]).stem, image.get("alt", ""))


def _as_lines(signature):
    """A long signature's parameters as lines; Sphinx makes a list of definitions with no terms of them."""
    lines = re.sub(r"<(/?)dl>", r"<\1span>", signature[0])
    return lines.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def _describe_page(app, pagename, templatename, context, doctree):
    """Title and description as people read them, from `build.py`; what keyboards and screen readers need."""
    if tree := context.get("furo_navigation_tree"):
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    body = context.get("body", "").replace("<pre>", '<pre tabindex="0">')
    for kind in ("table-wrapper", "output text_html"):  # wide tables can be scrolled by keys
        body = body.replace(f'<div class="{kind}', f'<div tabindex="0" class="{kind}')
    context["body"] = LONG_SIGNATURE.sub(_as_lines, body)
    page = json.loads((Path(app.srcdir) / "pages.json").read_text(encoding="utf-8")).get(pagename, {})
    context["title"] = page.get("title", context.get("title"))
    if page.get("description"):
        context["metatags"] = f'<meta name="description" content="{html.escape(page["description"])}">'


def setup(app):
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=400)  # before napoleon's own *
    app.connect("doctree-read", _give_pictures_their_texts)
    app.connect("html-page-context", _describe_page, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
