"""JupyterLab as `make lab` starts it: on this machine alone, for who has the token; nothing turns that off."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import fer_lab

pytestmark = pytest.mark.fault("JupyterLab as started")
ROOT = Path(fer_lab.__file__).parent.parent
# What would open a server to others, or let anybody in; whatever its spelling.
OPENING = re.compile(
    r"--ip\b|\.ip\s*=|0\.0\.0\.0|--no-auth|(token|password|hashed_password)\s*=[ \t]*(''|\"\"|$)"
    r"|allow_(remote_access|unauthenticated_access|origin|password_change|root)|disable_check_xsrf"
    r"|--allow-root|JUPYTER_TOKEN|JUPYTER_ALLOW",
    re.MULTILINE,
)


def started_by_make() -> list[str]:
    """The words of `make lab`'s last line."""
    rule = re.search(r"^lab:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return shlex.split(rule[1].strip().splitlines()[-1])


def test_make_lab_passes_no_option_at_all():
    assert started_by_make() == ["$(BIN)/jupyter", "lab", "$(LAB)/00_start_here.ipynb"]


def test_nothing_that_ships_opens_the_server():
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "environment.yml"]
    files += [
        *ROOT.glob("fer_lab/**/*.py"),
        *ROOT.glob("notebooks/*.ipynb"),
        *ROOT.glob("**/jupyter*config*.*"),
    ]
    files = [path for path in files if ".venv" not in path.parts and "node_modules" not in path.parts]
    found = {
        str(path): match[0] for path in files if (match := OPENING.search(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "jupyter lab --ip=0.0.0.0",
        "jupyter lab --ServerApp.token=''",
        "c.ServerApp.token = ''",
        "lab --allow-root",
    ],
)
def test_what_would_open_it_is_recognised(line):
    assert OPENING.search(line)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, token) of a server that the words of `make lab` started, with nobody's own settings."""
    home = tmp_path_factory.mktemp("home")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    environment |= {key: str(home / name) for key, name in places.items()} | {
        "IPYTHONDIR": str(home / "ipython")
    }
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", home)
    # Without a window, on a free port; and containers know one user alone.
    words = [
        "-m",
        "jupyterlab",
        *started_by_make()[2:-1],
        "--no-browser",
        "--port=0",
        str(home / "00_start_here.ipynb"),
    ]
    words += ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with open(home / "log.txt", "w+") as log:
        process = subprocess.Popen([sys.executable, *words], cwd=home, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 90
            while not (said := re.search(r"http://[^/]+/lab\S*\?token=(\w+)", (home / "log.txt").read_text())):
                assert process.poll() is None, (home / "log.txt").read_text()[-2000:]
                assert time.monotonic() < until, (home / "log.txt").read_text()[-2000:]
                time.sleep(0.2)
            port = int(re.search(r"http://[^/]+:(\d+)/", said[0])[1])
            yield port, said[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            # Who is not let in is sent to the page that asks for the token.
            return 403 if "/login" in answer.url else answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path", ["lab", "api/contents", "api/kernels", "files/00_start_here.ipynb", "api/terminals"]
)
def test_nobody_comes_in_without_the_token(server, path):
    port, token = server
    url = f"http://127.0.0.1:{port}/{path}"
    assert len(token) >= 32
    assert status(url) == 403
    assert status(url, Authorization="token ") == 403
    assert status(f"{url}?token=") == 403
    assert status(url, Authorization=f"token {token[:-1]}") == 403
    assert status(url, Authorization=f"token {token}") == 200


def test_a_name_that_leads_here_is_not_let_in(server):
    """A page of elsewhere whose name was made to point at this machine says its own name."""
    port, token = server
    assert status(f"http://127.0.0.1:{port}/api/contents?token={token}", Host="attacker.example") == 403


def test_it_listens_on_this_machine_alone(server):
    port, _ = server
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would
        except OSError:
            pytest.skip("this machine has no other address than its own")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no other address than its own")
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex((address, port)) != 0
