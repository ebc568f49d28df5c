"""Packages that import their names when these are first asked for: nothing waits for what it does not use."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def when_asked(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose `file` imports its names `if TYPE_CHECKING` alone.

    No such name may be that of a module in the package: the module takes its place once it is imported.
    """
    lines = ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    homes = {alias.name: line.module or "" for line in imports for alias in line.names}
    homes = {name: module for name, module in homes.items() if module.startswith(f"{package}.")}

    def find(name: str) -> Any:
        if (module := f"{package}.{name}") in homes.values():
            return importlib.import_module(module)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})
