"""A real JupyterLab on the book's notebooks, and a real browser before it.

Without Python's playwright or a Chromium these tests are skipped; with FER_LAB_BROWSER=required, as in
continuous integration, they fail instead.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fer_lab.book.parameters import lay_out

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Every cell stays in the page, and nothing pops up over it.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def missing(reason: str) -> None:
    """Skip, or fail where the tests are required."""
    if os.environ.get("FER_LAB_BROWSER") == "required":
        pytest.fail(f"FER_LAB_BROWSER=required, but {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Attributes:
        url: without a token.
        token: what it asks for.
        folder: where its notebooks lie.
    """

    url: str
    token: str
    folder: Path

    def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        """Status and body of a request, with the right token if none is given."""
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""


@pytest.fixture(scope="session")
def chromium():
    """Path of the browser."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        missing("the Python package playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or missing(f"there is none of {', '.join(BROWSERS)}")


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    """JupyterLab on its own port, with a token, on a copy of the book; asked once, so that it is warm."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "book"
    lay_out(folder)
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {key: str(home / name) for key, name in places.items()}
    environment |= {"FER_LAB_QUIET": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "JUPYTER_TOKEN": server.token}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True"]  # so that a test can set the theme
    with open(home / "log.txt", "w+") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 90
            while True:
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    pytest.fail(f"JupyterLab did not start:\n{log.read()[-3000:]}")
                try:
                    if server.get("/lab")[0] == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.3)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    """Folder of what the tests saw and measured: FER_LAB_SCREENSHOTS, or one that pytest keeps for a while."""
    if chosen := os.environ.get("FER_LAB_SCREENSHOTS"):
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return Path(chosen)
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # One browser for all: Playwright starts once in a process. Its camera shows a test picture.
        args = ["--no-sandbox", "--disable-dev-shm-usage", "--use-fake-device-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        yield browser
        browser.close()


@contextmanager
def new_page(browser, lab, picture):
    """An empty page with the token on a small screen; its end is kept, and its scripts raise nothing."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_default_timeout(60_000)
    page.goto(f"{lab.url}/login?token={lab.token}&next=%2Fapi%2Fstatus")
    yield page
    page.screenshot(path=picture)
    context.close()
    assert faults == []


@pytest.fixture
def page(browser, lab, screenshots, request):
    """An empty page with the token, for one test."""
    with new_page(browser, lab, screenshots / f"{request.node.name}.png") as page:
        yield page


@pytest.fixture(scope="module")
def module_page(browser, lab, screenshots, request):
    """An empty page with the token, for all tests of a file."""
    with new_page(browser, lab, screenshots / f"{request.module.__name__}.png") as page:
        yield page
