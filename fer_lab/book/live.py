"""The explorer as one HTML page that needs no server, no install and no network: networks run in the browser.

The renderer does not run there. The page has pictures of four people with each action unit and each expression
in steps, drawn beforehand. One unit of the upper and one of the lower face are put together by adding what each
changes. That is exact where the two do not meet, and worst for the nose wrinkler (AU9), which draws the brows
along. Nothing that a reader shows to the page leaves it.
"""

import base64
import gzip
import html
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fer_lab._files import atomic_path
from fer_lab.data.augmentation import prepare
from fer_lab.data.photographs import FRAMES
from fer_lab.data.synthetic import PROTOTYPES, UNITS, action_units, expression_units, render
from fer_lab.models.export import FromBytes, to_onnx
from fer_lab.models.method import TITLES
from fer_lab.models.qcs import PLACES, QCS
from fer_lab.models.weights import model_card
from fer_lab.runs.run import open_model

# What the page runs: ONNX Runtime for the networks, jsfeat to find faces. Package of npm → files of it.
PACKAGES = {
    "onnxruntime-web@1.30.0": ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    "jsfeat@0.0.8": ("build/jsfeat-min.js", "cascades/bbf_face.js"),
}
MODELS = ("synthetic/baseline", "synthetic/qcs", "ferplus/dan")
PEOPLE = (11, 19, 13, 26)  # seeds of identities
STEPS = 4  # pictures between no movement and all of it
SIDE = 112  # of a picture, in pixels
UPPER = (1, 2, 4, 5, 6, 7)  # units of the upper face; what they change hardly meets what the others change
SHEET = {"columns": 10, "quality": 85}


class _WithPlaces(FromBytes):
    """QCS with one more output, in which distances say which places of two faces are alike: [B,3,49,d]."""

    model: QCS

    def __init__(self, model: QCS):
        super().__init__(model)
        self.outputs = [*self.outputs, "places"]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        parts = model.base(model.tokens(prepare(images, self.side, model.color_order)))[1].split(PLACES, dim=1)
        modules, _ = model._cross_parts()
        alike = [cross.qk(x) for cross, x in zip(modules, parts, strict=True)]
        return *super().forward(images), torch.stack(alike, 1)


def sheet(person: int) -> tuple[bytes, list[str]]:
    """The pictures of one person as WebP, some columns a row, and what each of them shows, such as "AU12 3"."""
    names, units = ["neutral"], [action_units({})[0]]
    shown = {f"AU{unit.number}": action_units({unit.number: 1.0})[0] for unit in UNITS}
    shown |= {name: expression_units(name) for name in PROTOTYPES if name != "neutral"}
    for name, full in shown.items():
        for step in range(1, STEPS + 1):
            names.append(f"{name} {step}")
            units.append(full * step / STEPS)
    faces = render(torch.stack(units), person, None, SIDE).images.permute(0, 2, 3, 1).numpy()
    columns = SHEET["columns"]
    rows = -(-len(faces) // columns)
    tiles = np.zeros((rows * columns, SIDE, SIDE, 3), np.uint8)
    tiles[: len(faces)] = faces
    whole = tiles.reshape(rows, columns, SIDE, SIDE, 3).swapaxes(1, 2).reshape(rows * SIDE, columns * SIDE, 3)
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "WEBP", quality=SHEET["quality"], method=6)
    return file.getvalue(), names


def fetch(folder: Path) -> dict[str, bytes]:
    """The files of `PACKAGES` by name, from a folder that `npm pack` fills where it lacks them.

    Raises ValueError where npm is missing, or could not download a package.
    """
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for package, members in PACKAGES.items():
        archive = folder / (package.replace("@", "-") + ".tgz")
        if not archive.exists():
            npm = shutil.which("npm")
            if not npm:
                raise ValueError(
                    f"{package} comes from npm, and npm is not installed (Debian: apt-get install npm)"
                )
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                done = subprocess.run([npm, "pack", package], cwd=fresh, capture_output=True, text=True)
                made = list(Path(fresh).glob("*.tgz"))
                if done.returncode or not made:
                    raise ValueError(f"npm could not download {package}: {done.stderr.strip()[-300:]}")
                made[0].replace(archive)
        with tarfile.open(archive) as opened:
            for member in members:
                found = opened.extractfile(f"package/{member}")
                if found is None:
                    raise ValueError(f"{archive} has no {member}; remove it and build again")
                files[Path(member).name] = found.read()
    return files


def build_live(out: Path, packages: Path) -> int:
    """Write the page → its size in bytes; `packages` is the folder of `fetch`.

    Raises ValueError as `fetch` does, and ImportError where the extra `onnx` is not installed.
    """
    blobs = fetch(packages)
    about: dict[str, Any] = {
        "side": SIDE, "steps": STEPS, "columns": SHEET["columns"], "upper": UPPER,
        "units": {f"AU{unit.number}": unit.name.replace("_", " ") for unit in UNITS},
        "expressions": list(PROTOTYPES), "people": [], "models": [], "frame": FRAMES["ferplus"],
    }  # fmt: skip
    for person in PEOPLE:
        blobs[f"person{person}"], about["sprites"] = sheet(person)
        about["people"].append(f"person{person}")
    for name in MODELS:
        model = open_model(name)
        inner = _WithPlaces(model) if isinstance(model, QCS) else FromBytes(model)
        blobs[name], _ = to_onnx(inner, inner.side, inner.outputs, half=True, card=model_card(model))
        source = "drawn faces" if name.startswith("synthetic") else "grey photographs (FER+)"
        title = TITLES[model.name]
        card = {"name": name, "title": title, "learned": source, "classes": model.classes, "size": inner.side}
        about["models"].append(card)
    here = Path(__file__).parent
    page = (here / "live.html").read_text(encoding="utf-8")
    data = "\n".join(
        f'<script type="application/octet-stream" data-name="{html.escape(name)}">'
        f"{base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()}</script>"
        for name, content in blobs.items()
    )
    code = (here / "live.js").read_text(encoding="utf-8")
    page = page.replace("<!-- data -->", data).replace("/* code */", code)
    page = page.replace("/* about */", json.dumps(about).replace("</", "<\\/"))
    with atomic_path(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out.stat().st_size
