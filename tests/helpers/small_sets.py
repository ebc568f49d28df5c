"""Tiny data sets in the layouts that the real ones come in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fer_lab.data.expressions import ORDERS, numbers_of
from fer_lab.data.layouts import Listing

SFEW_FOLDERS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)


def picture(path: Path, value: int, size: tuple[int, int] = (12, 12)) -> None:
    """A picture of one grey value (JPEG keeps a flat one within a level)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def votes_for(label: int, count: int = 10) -> list[int]:
    return [count if i == label else 0 for i in range(10)]


def ferplus_row(name: str, votes: list[int]) -> str:
    return f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}\n'


def write_ferplus(root: Path, extra: dict[str, list[int]] | None = None) -> Path:
    """One face a class in FER2013Train and FER2013Valid, grey value 10·class (+5 in Valid), and `extra`."""
    for folder, offset in (("FER2013Train", 0), ("FER2013Valid", 5)):
        rows = {f"fer{offset}{label}.png": votes_for(label) for label in range(8)}
        for label, name in enumerate(rows):
            picture(root / folder / name, 10 * label + offset)
        if extra and not offset:
            for name in extra:
                picture(root / folder / name, 200)
            rows |= extra
        text = "".join(ferplus_row(name, votes) for name, votes in rows.items())
        (root / folder / "label.csv").write_text(text)
    return root


def write_kaggle(root: Path, quoted: bool = False) -> Path:
    """fer2013.csv of ten 48×48 faces and fer2013new.csv; face 8 has no name, face 9 is not a face."""
    root.mkdir(parents=True, exist_ok=True)
    pixels, labels = ["emotion,pixels,Usage"], ["Usage,Image name,neutral,happiness,surprise,sadness"]
    labels[0] += ",anger,disgust,fear,contempt,unknown,NF"
    for i in range(18):
        usage = "Training" if i < 10 else "PublicTest"
        face = " ".join([str(i)] * 2303 + ["255"])
        pixels.append(f'0,"{face}",{usage}' if quoted else f"0,{face},{usage}")
        votes = votes_for(i if i < 10 else i - 10)
        labels.append(f"{usage},{'' if i == 8 else f'fer{i:07d}.png'},{','.join(map(str, votes))}")
    (root / "fer2013.csv").write_text("\n".join(pixels) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(labels) + "\n")
    return root


def write_rafdb(root: Path, each: int = 1) -> Path:
    """`each` faces a class and split; the grey value is 20 × RAF-DB's own label, which counts from 1."""
    lines = []
    for split in ("train", "test"):
        for number, own in enumerate(list(range(1, 8)) * each, 1):
            lines.append(f"{split}_{number:05d}.jpg {own}")
            grey = 20 * own + (split == "test")
            picture(root / "Image" / "aligned" / f"{split}_{number:05d}_aligned.jpg", grey)
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def write_affectnet(root: Path, each: int = 1) -> Path:
    """`each` faces a label and split, 0…7, 8 (none); annotations are text in train_set, numbers in val_set."""
    for folder in ("train_set", "val_set"):
        (root / folder / "annotations").mkdir(parents=True)
        for number, own in enumerate(list(range(9)) * each):
            picture(root / folder / "images" / f"{number}.jpg", 20 * own)
            value = np.array(str(own)) if folder == "train_set" else np.array(own)
            np.save(root / folder / "annotations" / f"{number}_exp.npy", value)
    return root


def write_affectnet_lists(root: Path) -> Path:
    """training.csv with a header line and validation.csv without; labels 0…10, pictures for 0…7."""
    for name, header in (("training.csv", True), ("validation.csv", False)):
        lines = [AFFECTNET_HEADER] if header else []
        for own in range(11):
            file = f"{name[:2]}/{own}.jpg"
            lines.append(f"{file},0,0,12,12,1.0;2.0,{own},0.1,-0.2")
            if own < 8:
                picture(root / "Manually_Annotated_Images" / file, 20 * own)
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def write_sfew(root: Path, each: int = 1) -> Path:
    """`each` faces a class in Train and Val; the grey value is 20 × the place in SFEW's order."""
    for split in ("Train", "Val"):
        for own, folder in enumerate(SFEW_FOLDERS):
            for scene in range(1, each + 1):
                picture(root / split / folder / f"scene {scene}.png", 20 * own + (split == "Val"))
    return root


def write_folder(root: Path, classes: tuple[str, ...], splits: tuple[str, ...] = ("train", "val")) -> Path:
    """One face a class and split; the grey value is 20 × the place in `classes`."""
    for split in splits:
        for i, name in enumerate(classes):
            picture(root / split / name / "a.png", 20 * i)
    return root


def write_numbered(root: Path, order: str, splits: tuple[str, ...], each: int = 1) -> Path:
    """`each` faces a split and class, in folders named by the set's numbers; the first is 20 × it in grey."""
    for split in splits:
        for number in numbers_of(order):
            for i in range(each):
                picture(root / split / str(number) / f"{split}_{number}_{i}.png", 20 * number + i)
    return root


def write_fer2013(root: Path) -> Path:
    """icml_face_data.csv, blanks in its header, labels 0…6 in Training and PublicTest, grey 9 × label."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{own},{usage},{' '.join([str(9 * own)] * 2304)}"
        for usage in ("Training", "PublicTest")
        for own in range(7)
    ]
    (root / "icml_face_data.csv").write_text("emotion, Usage, pixels\n" + "\n".join(rows) + "\n")
    return root


def expected(order: str, count: int = 7) -> dict[int, str]:
    """A data set's own label → class name."""
    return dict(enumerate(ORDERS[order][:count]))


def named(listing: Listing) -> dict[str, str]:
    """File → class name."""
    files = [listing.sources[row].name for row in listing.rows]
    return {file: listing.classes[label] for file, label in zip(files, listing.labels, strict=True)}


def counts(listing: Listing) -> dict[str, int]:
    """Split → faces."""
    return {split: int((listing.splits == split).sum()) for split in np.unique(listing.splits)}


def breaking(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A function that replaces a text once in a file below the folder that it gets."""

    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change
