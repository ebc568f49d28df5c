"""Counts what is done to the workbook here: `make faults` prints a row a kind of fault.

Every module says its kind, `pytestmark = pytest.mark.fault("kind")`; a test is a case, and a case that fails is
something lost.
"""

import os
import time
from collections import Counter

import pytest


@pytest.fixture(autouse=True)
def _kind(request, record_property):
    record_property("fault", request.node.get_closest_marker("fault").args[0])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))


# Not a hook at the session's start: where all of tests/ is run, that is over before this file is read.
BEGAN = time.monotonic()


def pytest_terminal_summary(terminalreporter):
    cases, lost, skipped = Counter(), Counter(), Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            kind = dict(report.user_properties).get("fault") if hasattr(report, "user_properties") else None
            if kind is None:
                continue
            cases[kind] += 1
            lost[kind] += outcome in ("failed", "error")
            skipped[kind] += outcome == "skipped"
    if not cases:
        return
    seconds = time.monotonic() - BEGAN
    write = terminalreporter.write_line
    terminalreporter.section("faults")
    write(f"{'kind':34} {'cases':>6} {'survived':>9} {'lost':>6}")
    for kind in sorted(cases):
        survived = cases[kind] - lost[kind] - skipped[kind]
        note = f"   ({skipped[kind]} cannot be tried here)" if skipped[kind] else ""
        write(f"{kind:34} {cases[kind]:6} {survived:9} {lost[kind]:6}{note}")
    total = sum(cases.values())
    survived = total - sum(lost.values()) - sum(skipped.values())
    took = f"in {seconds:.0f} s on {os.cpu_count()} cores"
    write(f"{'all':34} {total:6} {survived:9} {sum(lost.values()):6}   {took}")
