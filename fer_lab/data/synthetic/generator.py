"""Whole sets of rendered faces: who is in them, what they do, how the pictures were taken, and the knobs.

The knobs have the papers' names for the problems of expression recognition: inter-class similarity, intra-class
variance and scale sensitivity (POSTER, arXiv 2204.04083), class imbalance and label noise. Each knob changes
one thing: with the same seed, people, poses and lights stay the same.
"""

import hashlib
import json
import math
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fer_lab._progress import progress
from fer_lab.data.expressions import CANONICAL, class_names
from fer_lab.data.faces import FaceSet
from fer_lab.data.synthetic.action_units import NUMBERS, expression_units
from fer_lab.data.synthetic.anatomy import Identity, Nuisance
from fer_lab.data.synthetic.drawing import Rendering, render

# Raise it when the same seed gives other pictures: fingerprints and shipped weights depend on it.
VERSION = 2
# Number of faces in a chunk; each chunk has its own seed.
CHUNK = 64
# Training faces of RAF-DB's basic set (Li & Deng, CVPR 2017). RAF-DB has no contempt, so contempt gets the
# count of the rarest class.
RAFDB_COUNTS = dict(zip(CANONICAL, (2524, 4772, 1290, 1982, 705, 717, 281, 281), strict=True))
# Share of the people in the validation split, and in the test split.
HELD_OUT = 0.15
PICTURE_ATTRIBUTES = ("roll", "yaw", "pitch", "scale", "occlusion", "blur", "noise", "grey")
TABLES = tomllib.loads(Path(__file__).with_name("knobs.toml").read_text(encoding="utf-8"))
# Units that EMFACS lists in brackets: the share of faces that show them.
OPTIONAL = {("happiness", 25): 0.65, ("disgust", 10): 0.7, ("disgust", 4): 0.5, ("sadness", 17): 0.5}


@dataclass(frozen=True)
class Knob:
    """A setting of `SyntheticFaces`: its default, its range (both ends included) and what it means."""

    default: float | tuple[float, float]
    low: float
    high: float
    meaning: str


KNOBS = {
    name: Knob(**row | {"default": tuple(d) if isinstance(d := row["default"], list) else d})
    for name, row in TABLES["knobs"].items()
}


def check_knobs(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all `KNOBS`, given or default; ValueError for an unknown knob, or a value out of its range."""
    if unknown := sorted(set(knobs) - set(KNOBS)):
        raise ValueError(f"unknown knob {', '.join(unknown)}; expected some of {', '.join(KNOBS)}")
    values = {}
    for name, knob in KNOBS.items():
        value = knobs.get(name, knob.default)
        pair = isinstance(knob.default, tuple)
        numbers = tuple(value) if pair and isinstance(value, list | tuple) else (value,)
        fits = len(numbers) == 1 + pair and all(
            isinstance(v, int | float) and not isinstance(v, bool) and knob.low <= v <= knob.high
            for v in numbers
        )
        if not fits or list(numbers) != sorted(numbers):
            wanted = "(smallest, largest) within" if pair else "a number in"
            raise ValueError(
                f"{name} must be {wanted} {knob.low:g}…{knob.high:g} ({knob.meaning}), got {value!r}"
            )
        values[name] = tuple(map(float, numbers)) if pair else float(value)
    return values


def _generator(*key: int | str) -> torch.Generator:
    """A separate generator for every key, such as (seed, "labels") or (seed, 3)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def class_counts(n: int, classes: Sequence[str], imbalance: float) -> list[int]:
    """Divide n faces among the classes, by RAF-DB's counts to the power `imbalance` and largest remainders."""
    weights = np.array([RAFDB_COUNTS[name] for name in classes], dtype=float) ** imbalance
    share = n * weights / weights.sum()
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: n - counts.sum()]] += 1
    return counts.tolist()


def _uniform(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=g)


def _normal(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g).clamp(-2, 2)


def sample_units(
    labels: torch.Tensor, classes: Sequence[str], knobs: Mapping[str, Any], g: torch.Generator
) -> torch.Tensor:
    """Unit intensities [B,U,2] of faces that show the classes `labels` [B].

    Each face starts from its class's prototype at a random strength. Intra-class variance makes units weaker,
    stronger, uneven between the sides, absent or additional. Inter-class similarity moves the face towards a
    prototype with which it is often confused.
    """
    n, u = len(labels), len(NUMBERS)
    alike, varied = knobs["inter_class_similarity"], knobs["intra_class_variance"]
    own = torch.stack([expression_units(name) for name in classes])[labels]
    confused = (TABLES["confused"][name] for name in classes)
    rivals = torch.stack([torch.stack(list(map(expression_units, two))) for two in confused])
    rival = rivals[labels, (_uniform(g, n) < 0.5).long()]
    for (name, number), share in OPTIONAL.items():
        absent = _uniform(g, n) > 1 - (1 - share) * min(1.0, 2 * varied)
        if name in classes:
            own[absent & (labels == classes.index(name)), NUMBERS.index(number)] = 0
    flip = _uniform(g, n) < 0.5
    own[flip], rival[flip] = own[flip].flip(2), rival[flip].flip(2)

    toward = 0.75 * alike * _uniform(g, n, 1, 1)
    strength = (1 - 0.6 * varied * _uniform(g, n, 1, 1)) * (1 - 0.35 * alike)
    waver = 1 + 0.25 * varied * _normal(g, n, u, 1)
    uneven = 1 + 0.15 * varied * _normal(g, n, u, 2)
    kept = _uniform(g, n, u, 1) >= 0.1 * varied
    added = (_uniform(g, n, u, 1) < 0.1 * varied) * 0.3 * _uniform(g, n, u, 1)
    shown = ((1 - toward) * own + toward * rival) * strength * waver * kept
    return ((shown + added) * uneven).clamp(0, 1)


def sample_nuisance(n: int, knobs: Mapping[str, Any], g: torch.Generator) -> Nuisance:
    """Draw how n pictures were taken."""

    def either(*shape: int) -> torch.Tensor:
        return 2 * _uniform(g, n, *shape) - 1

    plain = Nuisance.none(n)
    low, high = knobs["scale_range"]
    mix = knobs["lighting"]
    # Light comes more often from above than from below.
    light = torch.stack([either(), -0.35 + 0.65 * either()], 1)
    backdrop = 0.18 + 0.7 * _uniform(g, n, 1, 1) + 0.12 * either(2, 3) + 0.08 * either(2, 1)
    covered = _uniform(g, n) < knobs["occlusion"]
    # Occluders come more often from below or from the side than from above.
    angle = math.pi * (0.1 + 0.8 * _uniform(g, n))
    place = torch.stack([angle.cos() * 0.55, angle.sin() * 0.55], 1)
    tone = 0.2 + 0.5 * _uniform(g, n, 1) + 0.12 * either(3)
    return Nuisance(
        roll=knobs["rotation"] * either(),
        yaw=knobs["head_turn"] * either(),
        pitch=knobs["head_turn"] / 2 * either(),
        scale=low + (high - low) * _uniform(g, n),
        shift=knobs["shift"] * either(2),
        light=plain.light + mix * (light - plain.light),
        ambient=plain.ambient + mix * 0.22 * either(),
        contrast=1 + mix * 0.25 * either(),
        brightness=mix * 0.12 * either(),
        background=plain.background + knobs["background"] * (backdrop.clamp(0.04, 0.96) - plain.background),
        occlusion=covered * (0.28 + 0.24 * _uniform(g, n)),
        occluder=torch.cat([place, math.pi * either(1), tone], 1),
        # Half of the pictures are sharp.
        blur=knobs["blur"] * either().clamp(min=0),
        noise=knobs["noise"] * _uniform(g, n),
        grey=(_uniform(g, n) < knobs["grey"]).float(),
        gaze=0.4 * either(2) * torch.tensor([1.0, 0.5]),
        seed=torch.randint(0, 2**31, (n,), generator=g),
    )


def sample_people(n: int, knobs: Mapping[str, Any], seed: int) -> Identity:
    """Draw n people whose spread follows `intra_class_variance`: all the same at 0, extreme beyond 0.5."""
    varied = knobs["intra_class_variance"]
    people = Identity.sample(n, seed, spread=2 * varied if varied < 0.5 else 0.75 + 0.5 * varied)
    bounded = ("age", "softness", "skin_tone", "freckles", "lipstick", "ears")
    return people.replace(**{key: getattr(people, key).clamp(0, 1) for key in bounded})


@dataclass(frozen=True)
class _Plan:
    """A set before it is drawn: labels [N], people and splits of all faces."""

    labels: torch.Tensor
    true_labels: torch.Tensor
    subjects: torch.Tensor
    splits: np.ndarray
    people: Identity


def _plan(n: int, seed: int, classes: tuple[str, ...], knobs: Mapping[str, Any]) -> _Plan:
    counts = torch.tensor(class_counts(n, classes, knobs["imbalance"]))
    order = torch.randperm(n, generator=_generator(seed, "order"))
    true_labels = torch.arange(len(classes)).repeat_interleave(counts)[order]

    # A few faces still need several people, or two of the splits would get none.
    count = min(n, max(7, round(n / knobs["faces_per_subject"])))
    subjects = (torch.arange(n) % count)[torch.randperm(n, generator=_generator(seed, "subjects"))]
    held = round(HELD_OUT * count)
    split_of = np.array(["test"] * held + ["valid"] * held + ["train"] * (count - 2 * held))
    splits = split_of[torch.randperm(count, generator=_generator(seed, "splits")).numpy()][subjects.numpy()]

    g = _generator(seed, "label noise")
    rank, step = torch.randperm(n, generator=g), torch.randint(1, len(classes), (n,), generator=g)
    training = torch.from_numpy(np.flatnonzero(splits == "train"))
    swapped = training[rank[training].argsort()[: round(knobs["label_noise"] * len(training))]]
    labels = true_labels.clone()
    labels[swapped] = (labels[swapped] + step[swapped]) % len(classes)
    faces_seed = torch.randint(0, 2**31, (), generator=_generator(seed, "people"))
    return _Plan(labels, true_labels, subjects, splits, sample_people(count, knobs, int(faces_seed)))


def _draw_chunk(
    index: int, plan: _Plan, seed: int, size: int, classes: tuple[str, ...], knobs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, Nuisance, Rendering]:
    """Rows in the set, units, nuisances and pictures of one chunk."""
    rows = torch.arange(index * CHUNK, min((index + 1) * CHUNK, len(plan.labels)))
    # The last chunk is padded: the last bit of an exponential depends on a value's place in its tensor, so
    # equal bytes need chunks of equal length.
    filled = torch.cat([rows, rows[-1:].expand(CHUNK - len(rows))])
    units = sample_units(plan.true_labels[filled], classes, knobs, _generator(seed, "units", index))
    how = sample_nuisance(CHUNK, knobs, _generator(seed, "nuisance", index))
    drawn = render(units, plan.people.take(plan.subjects[filled]), how, size)
    return rows, units, how, drawn


def set_fingerprint(n: int, seed: int = 0, size: int = 112, num_classes: int = 7, **knobs: Any) -> str:
    """The fingerprint of `SyntheticFaces` with these arguments, without drawing the faces."""
    settings = {"n": n, "seed": seed, "size": size, "num_classes": num_classes, **check_knobs(knobs)}
    return hashlib.sha256(json.dumps([VERSION, settings], sort_keys=True).encode()).hexdigest()[:16]


def SyntheticFaces(n: int, seed: int = 0, size: int = 112, num_classes: int = 7, **knobs: Any) -> FaceSet:
    """Render n labelled faces; the same arguments give the same bytes on any number of threads.

    Besides the result, memory holds a few chunks, whatever n is. The set is named "synthetic". Its splits take
    about 70, 15 and 15 % of the people, and no subject crosses them. Every field is filled but files and votes.
    Raises ValueError for an unknown knob or one out of its range, n below 1, or a size below 32.

    Args:
        size: side in pixels, at least 32.
        num_classes: 2 to 8; the classes are the first canonical expressions.
        knobs: any of `KNOBS`, which holds their defaults, ranges and meanings.

    Example:
        >>> faces = SyntheticFaces(200, seed=1, size=56, occlusion=0.3)
    """
    knobs, classes = check_knobs(knobs), class_names(num_classes)
    for name, value, least in (("n", n, 1), ("size", size, 32), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    plan = _plan(n, seed, classes, knobs)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    regions = torch.empty(n, size, size, dtype=torch.uint8)
    landmarks = torch.empty(n, 68, 2)
    action_units = torch.empty(n, len(NUMBERS), 2)
    taken = {key: torch.empty(n) for key in PICTURE_ATTRIBUTES}

    def draw(index: int) -> None:
        rows, units, how, drawn = _draw_chunk(index, plan, seed, size, classes, knobs)
        k = len(rows)
        images[rows], regions[rows], landmarks[rows] = drawn.images[:k], drawn.regions[:k], drawn.landmarks[:k]
        action_units[rows] = units[:k]
        for key, column in taken.items():
            column[rows] = getattr(how, key)[:k]

    # An operation that torch splits over threads rounds differently. Each chunk therefore runs on one torch
    # thread, and Python threads take chunks.
    threads, chunks = torch.get_num_threads(), range(math.ceil(n / CHUNK))
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in progress(pool.map(draw, chunks), "rendering", total=len(chunks)):
                pass
    finally:
        torch.set_num_threads(threads)

    import pandas as pd

    people = pd.DataFrame(plan.people.table()).iloc[plan.subjects.numpy()].reset_index(drop=True)
    settings = {"n": n, "seed": seed, "size": size, "num_classes": num_classes, **knobs}
    return FaceSet(
        storage=images,
        labels=plan.labels,
        classes=classes,
        splits=plan.splits,
        subjects=plan.subjects,
        name="synthetic",
        fingerprint=set_fingerprint(**settings),
        true_labels=plan.true_labels,
        action_units=action_units,
        landmarks=landmarks,
        regions=regions,
        attributes=people.assign(**{key: column.numpy() for key, column in taken.items()}),
        knobs=settings,
    )


def redraw(faces: FaceSet, rows: Sequence[int] | torch.Tensor, units: torch.Tensor) -> Rendering:
    """Draw faces of a rendered set again: the same people, light, camera and noise, with other action units.

    With the face's own units the picture is the set's own, but for the last bit of some pixels. Raises
    ValueError for faces that `SyntheticFaces` did not render.

    Args:
        faces: as `SyntheticFaces` gives them, or a part of them.
        rows: positions in `faces` [M]; a face may come several times.
        units: float [M,U,2], intensities 0…1 in the order of `NUMBERS`.
    """
    if not faces.knobs or faces.action_units is None:
        raise ValueError(f"{faces.name} was not rendered, so nothing of it can be drawn again")
    settings = dict(faces.knobs)
    seed, classes = settings["seed"], class_names(settings["num_classes"])
    knobs = {name: settings[name] for name in KNOBS}
    places = faces.rows[torch.as_tensor(rows)]
    people = _plan(settings["n"], seed, classes, knobs)
    chunks, inside = (places // CHUNK).unique(return_inverse=True)
    taken = [sample_nuisance(CHUNK, knobs, _generator(seed, "nuisance", int(chunk))) for chunk in chunks]
    fields = {name: torch.cat([getattr(one, name) for one in taken]) for name in vars(taken[0])}
    how = Nuisance(**fields).take(inside * CHUNK + places % CHUNK)
    return render(units, people.people.take(people.subjects[places]), how, settings["size"])


def write_folder(faces: FaceSet, folder: str | Path) -> Path:
    """Write rendered faces as split/class/000123.png, and a table faces.csv, whose path it returns.

    The table has one row per face: file, label, true_label, subject, split, and a column for each action
    unit's left and right intensity (`AU12_left`, …); true labels and units are written if the set has them.
    The folder appears when it is complete. Raises ValueError if there is one that is not empty.
    """
    import pandas as pd

    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; give another one, or empty it first")
    names = [faces.classes[label] for label in faces.labels.tolist()]
    places = zip(faces.splits, names, strict=True)
    files = [f"{split}/{name}/{i:06d}.png" for i, (split, name) in enumerate(places)]
    table = pd.DataFrame({"file": files, "label": names})
    if faces.true_labels is not None:
        table["true_label"] = [faces.classes[label] for label in faces.true_labels.tolist()]
    table = table.assign(subject=faces.subjects.numpy(), split=faces.splits)
    if faces.action_units is not None:
        units = [f"AU{number}_{side}" for number in NUMBERS for side in ("left", "right")]
        table[units] = faces.action_units.flatten(1).numpy().round(4)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for parent in sorted({str(Path(file).parent) for file in files}):
            (part / parent).mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(progress(files, "writing")):
            Image.fromarray(faces.take([i])[0].permute(1, 2, 0).numpy()).save(part / file)
        table.to_csv(part / "faces.csv", index=False)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder / "faces.csv"
