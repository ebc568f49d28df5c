"""One notebook, executed by papermill in a process of its own.

`python -m fer_lab.book.worker request.json` writes result.json, a `NotebookResult`, beside the request. One
process a notebook: a killed kernel or worker costs one notebook, and threads are set before torch is imported.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fer_lab._files import DiskFullError, atomic_path, write_json
from fer_lab.book.html import write_page

HEADLINE = "application/vnd.fer-lab.headline+json"
KERNEL = "python3"
_ANSI = re.compile("\x1b\\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class NotebookResult:
    """One notebook, executed once.

    Attributes:
        notebook: its stem ("02_dan"), with "_seedN" where the grid has several seeds.
        title: its first heading.
        seconds: wall time, from starting the kernel to its end.
        headline: the numbers it recorded by `headline`, by name.
        figures: how many PNG pictures its outputs hold.
        peak_mb: largest resident memory of the kernel in MB; 0 where the system does not tell.
        error: "" or, in one line, where and by what it stopped.
        traceback: the whole traceback of a failed cell, without colours.
        path: the executed notebook.
        page: its HTML page.
    """

    notebook: str
    title: str = ""
    seconds: float = 0.0
    headline: dict = field(default_factory=dict)
    figures: int = 0
    peak_mb: int = 0
    error: str = ""
    traceback: str = ""
    path: str = ""
    page: str = ""


def read_notebook(path: Path):
    """A notebook node, nbformat 4.

    Raises:
        ValueError: not a notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a readable notebook: {str(error).splitlines()[0][:200]}") from error


def _work(request: Path) -> None:
    """Execute the notebook that `request` describes; leave result.json beside it."""
    import papermill

    cell = json.loads(request.read_text())
    output = Path(cell["output"])
    error = None
    start = time.monotonic()
    # Elsewhere while it runs: what an earlier run left stays until there is a whole one in its place.
    with tempfile.TemporaryDirectory(prefix="fer_lab-notebook-") as scratch:
        staged = Path(scratch) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                # papermill fills in braces of paths from the parameters
                cell["source"].replace("{", "{{").replace("}", "}}"),
                str(staged).replace("{", "{{").replace("}", "}}"),
                parameters=cell["parameters"],
                kernel_name=KERNEL,
                language="python",
                cwd=cell["run_dir"],
                execution_timeout=cell["timeout"],
                start_timeout=120,
                progress_bar=False,
                log_output=False,
            )
        except Exception as caught:  # whatever stops a notebook is that notebook's result
            error = caught
        seconds = time.monotonic() - start
        notebook = read_notebook(staged if staged.exists() else Path(cell["source"]))
        if staged.exists():
            with atomic_path(output, needed=staged.stat().st_size) as whole:
                shutil.copyfile(staged, whole)
    pictures = [o for o in outputs(notebook) if "image/png" in o.get("data", {})]
    numbers = {}
    for one in outputs(notebook):
        numbers |= one.get("data", {}).get(HEADLINE, {})
    where, trace = _explain(error, notebook) if error else ("", "")
    result = NotebookResult(
        notebook=cell["name"],
        title=_title(notebook) or cell["name"],
        seconds=seconds,
        headline=numbers,
        figures=len(pictures),
        peak_mb=_peak_mb(),
        error=where,
        traceback=trace,
        path=str(output),
        page=cell.get("page", ""),
    )
    if result.page:
        write_page(notebook, Path(result.page), Path(cell["source"]).parent)
    write_json(request.with_name("result.json"), asdict(result))


def _stop_with_parent() -> None:
    """End this process soon after the one that started it; the kernel ends in the same way."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _explain(error: Exception, notebook) -> tuple[str, str]:
    """(one line with the cell's number, traceback) of what stopped a notebook."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [c for c in notebook.cells if not added & set(c.metadata.get("tags", ()))]
    notes = [c.metadata.get("papermill", {}) for c in cells]
    failed = [i for i, note in enumerate(notes) if note.get("exception")]
    # A kernel that dies leaves no mark but that nothing started after it.
    failed = failed or [i for i, note in enumerate(notes) if note.get("start_time")][-1:]
    where = f"cell {failed[0] + 1} of {len(cells)}: " if failed else ""
    if hasattr(error, "ename"):  # an exception inside the notebook
        trace = _ANSI.sub("", "\n".join(error.traceback))
        return f"{where}{error.ename}: {error.evalue.strip().partition(chr(10))[0]}", trace
    source = cells[failed[0]].source if failed else ""
    reason = " ".join(str(error).split("\n", 1)[0].split())
    return f"{where}{type(error).__name__}: {reason}", f"{error}\n\n{source}".strip()


def outputs(notebook) -> list:
    """All outputs of all cells, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def _title(notebook) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return match[1].strip()
    return ""


def _peak_mb() -> int:
    """Largest resident memory of the kernel that has ended, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        _work(Path(sys.argv[1]))
    except DiskFullError as error:
        sys.exit(f"DiskFullError: {error}")
