"""One notebook, executed by papermill in a process of its own.

`python -m fer_lab.book.worker request.json` writes result.json, a `NotebookResult`, next to the request. A
killed kernel or worker costs one notebook, and threads are set before torch is imported.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fer_lab._files import DiskFullError, atomic_path, write_json
from fer_lab.book.html import title_of, write_page
from fer_lab.book.parameters import read_notebook
from fer_lab.book.result import HEADLINE, NotebookResult, outputs

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = "python3"
_ANSI = re.compile("\x1b\\[[0-9;]*[A-Za-z]")


def _work(request: Path) -> None:
    """Execute the notebook that `request` describes; leave result.json next to it."""
    import papermill

    cell = json.loads(request.read_text())
    output = Path(cell["output"])
    error = None
    start = time.monotonic()
    # Papermill writes while the notebook runs. An earlier output must stay until a whole new one replaces it.
    with tempfile.TemporaryDirectory(prefix="fer_lab-notebook-") as scratch:
        staged = Path(scratch) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                # papermill replaces {name} in paths by the parameter of that name
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
    shown = [output.get("data", {}) for output in outputs(notebook)]
    reason, traceback = _explain(error, notebook) if error else ("", "")
    result = NotebookResult(
        notebook=cell["name"],
        title=title_of(notebook) or cell["name"],
        seconds=seconds,
        headline={name: value for data in shown for name, value in data.get(HEADLINE, {}).items()},
        figures=sum("image/png" in data for data in shown),
        peak_mb=_peak_mb(),
        error=reason,
        traceback=traceback,
        path=str(output),
        page=cell.get("page", ""),
    )
    if result.page:
        write_page(notebook, Path(result.page), Path(cell["source"]).parent)
    write_json(request.with_name("result.json"), asdict(result))


def _stop_with_parent() -> None:
    """End this process within a second or two of the one that started it. The kernel does the same."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _explain(error: Exception, notebook: "NotebookNode") -> tuple[str, str]:
    """(one line with the cell's number, traceback) of what stopped a notebook."""
    from papermill.exceptions import PapermillExecutionError

    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [c for c in notebook.cells if not added & set(c.metadata.get("tags", ()))]
    notes = [c.metadata.get("papermill", {}) for c in cells]
    failed = [i for i, note in enumerate(notes) if note.get("exception")]
    # A dead kernel marks no cell as failed: it is the last cell that started.
    failed = failed or [i for i, note in enumerate(notes) if note.get("start_time")][-1:]
    where = f"cell {failed[0] + 1} of {len(cells)}: " if failed else ""
    if isinstance(error, PapermillExecutionError):  # an exception inside the notebook
        trace = _ANSI.sub("", "\n".join(error.traceback))
        return f"{where}{error.ename}: {error.evalue.strip().partition(chr(10))[0]}", trace
    source = cells[failed[0]].source if failed else ""
    reason = " ".join(str(error).split("\n", 1)[0].split())
    return f"{where}{type(error).__name__}: {reason}", f"{error}\n\n{source}".strip()


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
