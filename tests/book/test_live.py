"""What the live page is made of: its pictures, and what it takes from npm."""

import io
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lab.book import live
from fer_lab.data.synthetic import NUMBERS, render


def test_a_sheet_has_each_unit_and_expression_in_steps():
    content, names = live.sheet(11)
    image = Image.open(io.BytesIO(content))
    assert len(names) == len(set(names)) == 1 + live.STEPS * (len(NUMBERS) + 7)
    assert image.size[0] == live.SHEET["columns"] * live.SIDE
    pixels = np.asarray(image.convert("RGB"), float)
    for name, units in (("neutral", {}), ("AU26 4", {26: 1.0}), ("AU12 2", {12: 0.5})):
        row, column = divmod(names.index(name), live.SHEET["columns"])
        tile = pixels[row * live.SIDE :, column * live.SIDE :][: live.SIDE, : live.SIDE]
        true = render(units, 11, None, live.SIDE).images[0].permute(1, 2, 0).numpy()
        assert np.abs(tile - true).mean() < 4  # of 255: what WebP rounds
    assert not np.array_equal(pixels[: live.SIDE, : live.SIDE], pixels[: live.SIDE, live.SIDE : 2 * live.SIDE])


def test_adding_what_two_units_change_is_nearly_what_the_renderer_draws():
    person, rest = live.PEOPLE[0], render({}, live.PEOPLE[0], None, live.SIDE).images.float()
    lower = [number for number in NUMBERS if number not in live.UPPER]
    alone = {number: render({number: 1.0}, person, None, live.SIDE).images.float() for number in NUMBERS}
    off = {}
    for upper in live.UPPER:
        for below in lower:
            both = render({upper: 1.0, below: 1.0}, person, None, live.SIDE).images.float()
            added = (alone[upper] + alone[below] - rest).clamp(0, 255)
            off[upper, below] = float((added - both).abs().mean() / (both - rest).abs().mean())
    # As shares of what the pair changes. The nose wrinkler draws the brows along.
    assert np.median(list(off.values())) < 0.01
    assert max(value for pair, value in off.items() if 9 not in pair) < 0.15
    assert max(off.values()) < 0.4


def test_npm_that_is_missing_or_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(live.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="comes from npm, and npm is not installed"):
        live.fetch(tmp_path)
    monkeypatch.setattr(live.shutil, "which", lambda name: "npm")
    failed = subprocess.CompletedProcess([], 1, "", "npm error no network")
    monkeypatch.setattr(live.subprocess, "run", lambda *words, **how: failed)
    with pytest.raises(ValueError, match=r"could not download onnxruntime-web.*no network"):
        live.fetch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_packages_that_are_there_are_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(live.shutil, "which", lambda name: pytest.fail("asked for npm"))
    for package, members in live.PACKAGES.items():
        with tarfile.open(tmp_path / (package.replace("@", "-") + ".tgz"), "w:gz") as archive:
            for member in members:
                entry = tarfile.TarInfo(f"package/{member}")
                entry.size = len(member)
                archive.addfile(entry, io.BytesIO(member.encode()))
    names = {
        member.rpartition("/")[2]: member.encode() for members in live.PACKAGES.values() for member in members
    }
    assert live.fetch(tmp_path) == names


def test_places_of_qcs_are_those_that_it_matches_by():
    from fer_lab import open_model
    from fer_lab.data.augmentation import prepare

    model = open_model("synthetic/qcs")
    images = torch.cat([render({12: 1.0}, one, None, 56).images for one in live.PEOPLE[:2]])
    with torch.no_grad():
        *_, places = live._WithPlaces(model)(images)
        first, second = prepare(images, 56)
        table = model.matches(first[None], second[None])[0]
    distance = torch.cdist(places[0], places[1])
    # Both say the same up to a constant, which centring takes off.
    centred = [one - one.mean(-1, keepdim=True) - one.mean(-2, keepdim=True) + one.mean((-2, -1), keepdim=True)
               for one in (table, -distance)]  # fmt: skip
    torch.testing.assert_close(*centred, rtol=1e-3, atol=1e-3)
