"""The book as a site: executed notebooks, the texts of docs/, diagrams and the package's reference.

`python docs/site/build.py FOLDER` collects the pages in a temporary folder, where their links hold, and lets
Sphinx make HTML of them. It runs no notebook and needs no network. `--live PAGE` takes the explorer's page, as
`fer-lab export page PAGE` writes it, into the site, and its first page links to it.
"""

import argparse
import ast
import base64
import importlib
import inspect
import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import nbformat
import typer
from PIL import Image
from sphinx.cmd.build import main as sphinx
from typer.cli import get_docs_for_click

import fer_lab
from fer_lab import figures
from fer_lab.book import html
from fer_lab.book.html import CHAPTERS, readable, title_of
from fer_lab.book.result import HEADLINE, format_numbers, outputs
from fer_lab.cli import app
from fer_lab.figures import style
from fer_lab.models import output_shapes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Folders whose public face is documented, as a reader meets them.
FOLDERS = (
    *("", "data", "models", "training", "evaluation", "explanation", "figures", "explorer", "runs"),
    *("experiments", "parallel", "bench", "book"),
)
# diagram → the method whose shapes it shows, and what one who does not see it is told
DIAGRAMS = {
    "dan": ("dan", "DAN: trunk, K heads, fusion, and where its two losses act."),
    "dan_head": ("dan", "One head of DAN: a map over the places, then a gate over the channels."),
    "triplet_center": (
        "triplet_center",
        "The triplet-center loss on a trunk, with its negative and both attentions.",
    ),
    "poster": ("poster", "POSTER: two streams, three widths of the tokens, and one class token that answers."),
    "cross_block": ("poster", "A cross-fusion block of POSTER: whose queries meet whose keys and values."),
    "qcs": ("qcs", "QCS: the base branch that answers, and the cross branch that training alone has."),
    "quadruplet": ("qcs", "Which face is compared with which, and what its map is made of."),
}
DESCRIPTIONS = {
    "index": "A research workbook for facial expression recognition: ten notebooks, four published networks.",
    "docs/results": "What the methods of fer_lab reach, which differences hold over seeds, what is not known.",
    "docs/speed": "How fast each network of fer_lab trains and answers, and how that was measured.",
    "docs/data": "Data sets of photographs and published checkpoints that fer_lab reads, and their layouts.",
    "docs/cluster": "fer_lab on several GPUs, on a cluster with Slurm, and many runs at once with Ray.",
    "docs/doors": "Other ways into fer_lab: the explorer as one page, networks as ONNX files, a container.",
    "figures/README": "Every picture of fer_lab, which notebook makes it, and what it shows.",
    "notebooks/README": "For teachers: minutes a section, exercises with solutions, marking with nbgrader.",
    "runs": "Figures and headline numbers of every notebook of fer_lab, as it was last run.",
    "diagrams": "The networks of fer_lab as diagrams, with the shapes that their modules really have.",
    "api/index": "Reference of the Python package fer_lab.",
}


def collect(folder: Path, live: Path | None = None) -> None:
    """Lay out in `folder` what Sphinx reads; the first page links to the explorer if there is its page."""
    pages = {page: {"description": text} for page, text in DESCRIPTIONS.items()}
    shutil.copytree(ROOT / "figures", folder / "figures")
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "notebooks" / "README.md"]:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        text = path.read_text(encoding="utf-8")
        # A site shows no folders.
        copy.write_text(text.replace("](../figures/results)", "](../figures/README.md)"), encoding="utf-8")
    shown = (folder / "figures" / "README.md").read_text(encoding="utf-8")
    alts = dict(re.findall(r"^\| (\S+\.png) \|.*\| (.+?) \|$", shown, re.MULTILINE))
    cards, runs = [], []
    (folder / "cards").mkdir()
    for name, chapter in CHAPTERS.items():
        notebook = readable(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4))
        pictures = [o for o in outputs(notebook) if "image/png" in o.get("data", {})]
        numbers = [o.data.pop(HEADLINE) for o in outputs(notebook) if HEADLINE in o.get("data", {})]
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
        pages[f"notebooks/{name}"] = {"title": chapter["title"], "description": chapter["sentence"]}
        if file := chapter.get("picture"):
            picture, alt = Image.open(ROOT / "figures" / file), alts[file]
        else:
            picture = Image.open(io.BytesIO(base64.b64decode(pictures[-1].data["image/png"])))
            alt = pictures[-1].metadata["image/png"]["alt"]
        picture = picture.convert("RGB")
        picture.thumbnail((720, 720))
        picture.quantize(128).save(folder / "cards" / f"{name}.png")
        link, number = f"notebooks/{name}.ipynb", name[:2]
        heading = title_of(notebook)
        cards.append(
            f":::{{container}} chapter\n![{alt}](cards/{name}.png)\n\n"
            f"[{number} {heading}]({link})\n\n{chapter['sentence']}\n:::"
        )
        found = format_numbers({key: value for one in numbers for key, value in one.items()})
        runs.append(f"| [{number} {heading}]({link}) | {len(pictures)} | {found} |")
    index = (HERE / "index.md").read_text(encoding="utf-8")
    tree = ["```{toctree}", ":caption: The chapters", ":hidden:", ""]
    tree += [
        f"{name[:2]} {chapter['title'].partition(':')[0]} <notebooks/{name}>"
        for name, chapter in CHAPTERS.items()
    ]
    listed = "\n\n".join(["::::{container} chapters", *cards, "::::", "\n".join([*tree, "```"])])
    door = '<p class="live"><a href="live.html">Move a face\'s muscles in this browser</a>: no install.</p>'
    index = index.replace("<!-- live -->", door if live else "").replace("<!-- chapters -->", listed)
    (folder / "index.md").write_text(index, encoding="utf-8")
    (folder / "runs.md").write_text(
        "# What the notebooks found when they were last run\n\n"
        "All of them ran from top to bottom, with their defaults, on two CPU cores and rendered faces. `make`\n"
        "runs them on your machine and lists seconds and memory, too.\n\n"
        "| chapter | figures | headline numbers |\n| --- | ---: | --- |\n" + "\n".join(runs) + "\n",
        encoding="utf-8",
    )
    (folder / "diagrams.md").write_text(draw_diagrams(folder / "diagrams"), encoding="utf-8")
    pages |= write_reference(folder / "api")
    (folder / "pages.json").write_text(json.dumps(pages), encoding="utf-8")


def draw_diagrams(folder: Path) -> str:
    """Draw every diagram as SVG; returns the page that shows them."""
    import torch

    folder.mkdir()
    shapes = {}
    for name in {method for method, _ in DIAGRAMS.values()}:
        faces = torch.zeros(1, 4, 3, 56, 56) if name == "qcs" else torch.zeros(1, 3, 56, 56)
        shapes[name] = output_shapes(fer_lab.create_model(name), faces)
    text = (
        "# The networks, drawn with the shapes that their modules have\n\nSize `tiny`, one face of 56 pixels. "
        "Blue is a layer, yellow a map or centers, red a loss, green the answer; dashed acts in training.\n"
    )
    for name, (method, alt) in DIAGRAMS.items():
        figure = figures.method_diagram(name, shapes[method])
        title = figure.get_suptitle()
        figure.suptitle("")
        style.styled(figure.savefig)(folder / f"{name}.svg", metadata={"Date": None})
        text += f"\n## {title}\n\n![{alt}](diagrams/{name}.svg)\n"
    return text


def write_reference(folder: Path) -> dict[str, dict[str, str]]:
    """A page for each folder of the package, from docstrings or help; returns their titles and descriptions."""
    folder.mkdir()
    pages, tree = {}, []
    for name in FOLDERS:
        module = importlib.import_module(f"fer_lab.{name}".rstrip("."))
        about = inspect.getdoc(module).partition("\n")[0]
        lines = [module.__name__, "=" * len(module.__name__), "", f".. automodule:: {module.__name__}"]
        lines += [f"   :members: {', '.join(module_face(module))}", "   :ignore-module-all:"]
        lines += ["   :no-index:"] * (not name)  # each of these has its place in a folder, too
        (folder / f"{module.__name__}.rst").write_text("\n".join(lines) + "\n", encoding="utf-8")
        pages[f"api/{module.__name__}"] = {
            "title": f"{module.__name__}: {about.rstrip('.')}",
            "description": about,
        }
        tree.append(module.__name__)
    command = typer.main.get_command(app)
    commands = get_docs_for_click(obj=command, ctx=typer.Context(command), name="fer-lab", title="fer_lab.cli")
    (folder / "fer_lab.cli.md").write_text(commands, encoding="utf-8")
    title = "fer_lab.cli: every command and its options"
    pages["api/fer_lab.cli"] = {"title": title, "description": "What `fer-lab` can do: every command's help."}
    tree.append("fer_lab.cli")
    (folder / "index.md").write_text(
        "# The package, folder by folder\n\nWhat each folder of `fer_lab` shows, from docstrings.\n\n"
        "```{toctree}\n" + "\n".join(tree) + "\n```\n",
        encoding="utf-8",
    )
    return pages


def module_face(module: ModuleType) -> list[str]:
    """The names that a folder's `__init__` brings together, modules left out."""
    tree = ast.walk(ast.parse(inspect.getsource(module)))
    brought = [node for node in tree if isinstance(node, ast.ImportFrom) and node.module.startswith("fer_lab.")]
    names = [alias.name for node in brought for alias in node.names if not node.module.startswith("fer_lab._")]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the book as a site.")
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument("--live", type=Path, metavar="PAGE", help="the explorer's page, copied into the site")
    asked = parser.parse_args()
    out, live = asked.out, asked.live
    if live and not live.is_file():
        parser.error(f"{live} is not there; fer-lab export page {live} writes it")
    with tempfile.TemporaryDirectory(prefix="fer_lab-site-") as scratch:
        pages = Path(scratch) / "pages"
        pages.mkdir()
        (pages / "notebooks").mkdir()
        collect(pages, live)
        settings = Path(scratch) / "settings"
        settings.mkdir()
        for name in ("conf.py", "site.css"):
            shutil.copy(HERE / name, settings)
        shutil.copy(Path(html.__file__).with_name("favicon.svg"), settings)
        words = ["-q", "-W", "--keep-going", "-d", str(Path(scratch) / "doctrees"), "-c", str(settings)]
        made = Path(scratch) / "site"  # MyST-NB leaves a folder beside what it makes
        code = sphinx([*words, str(pages), str(made)])
        if live:
            shutil.copy(live, made / "live.html")
        if (out / ".buildinfo").exists():
            shutil.rmtree(out)
        shutil.copytree(made, out, dirs_exist_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
