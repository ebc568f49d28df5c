"""The options that several commands share; their words become typed values, folders and models here."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

if TYPE_CHECKING:
    from fer_lab.models.method import Method


# Where trainings of the reader's own are recorded; the word "book" names the book's store instead.
OWN_RESULTS, BOOK = Path("runs/results"), Path("book")
# torch's generators tell no larger seeds apart.
LARGEST_SEED = 2**32 - 1
MOST_FACES = 10_000_000


def _free(fits: Callable[[Path], bool], what: str) -> Callable[[Path | None], Path | None]:
    """A callback that refuses what is there and does not fit, and what lies below a file."""

    def check(path: Path | None) -> Path | None:
        if path is None:
            return None
        if path.exists() and not fits(path):
            raise BadParameter(f"{path} exists and is something else; expected {what}")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise BadParameter(f"{path} would lie in {above}, which is a file; expected {what}")
        return path

    return check


# The file is written over: it is no folder, pipe or device. The folder may be made.
to_write, to_fill = _free(Path.is_file, "a file to write"), _free(Path.is_dir, "a folder to write into")


def to_read(path: Path | None) -> Path | None:
    """A regular file: a pipe would be waited for, and a device read without end."""
    if path is not None and not path.is_file():
        raise BadParameter(f"{path} is no file; expected one to read")
    return path


def _known_split(name: str) -> str:
    from fer_lab.data.faces import SPLITS

    if name and name not in SPLITS:
        raise BadParameter(f"expected one of {', '.join(SPLITS)}, got {name!r}")
    return name


def to_make(path: Path) -> Path:
    """A folder that does not exist yet, or is empty."""
    if path.is_dir() and any(path.iterdir()):
        raise BadParameter(f"{path} is not empty; expected a folder to make")
    return _free(Path.is_dir, "a folder to make")(path) or path


def _figure_to_write(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise BadParameter(f"figures are PNG files, got {path.name!r}; let the name end in .png")
    return to_write(path)


MaybePath = Path | None
Words = list[str] | None
WEIGHTS = "A run's folder, a .safetensors file, or a bundled model such as dan or synthetic/dan."
DATASETS = "ferplus, rafdb, affectnet, sfew or folder"
Dataset = Annotated[str, Option(help=f"synthetic, {DATASETS}.")]
DatasetName = Annotated[str, Argument(help=f"{DATASETS}.")]
DatasetFolder = Annotated[Path, Argument(help="Folder of the data set.")]
PARAMETER_HELP = "name=value, of the cell tagged parameters. A wrong name lists all, a repeated one is a grid."
ROOT_HELP = "Folder of the data set; of several, a folder of them."
DataRoot = Annotated[MaybePath, Option(envvar="FER_DATA", help=ROOT_HELP, show_default=False)]
Rule = Annotated[str, Option(help="Label rule of FER+: largest, majority or votes.")]
Classes = Annotated[int | None, Option(min=2, max=8, help="7 or 8. Default: what the data set has.")]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave unreadable images out, and count them.")]
FACES_ORDER = "For folder with class folders 1, 2, …: the data set whose numbers they are, such as rafdb."
FacesOrder = Annotated[str, Option("--faces-order", help=FACES_ORDER)]
FacesOrOrder = Annotated[str, Option("--faces-order", "--order", help=FACES_ORDER)]
TestShare = Annotated[float, Option(min=0, max=1, help="For folder without splits: share tested on, like 0.2.")]
TRAIN_SHARE = "Of a data set: the share of every class's training faces to keep, such as 0.1. Default: all."
TrainShare = Annotated[float, Option(min=0, max=1, help=TRAIN_SHARE, show_default=False)]
LabelOrder = Annotated[str, Option(help="Data set whose label order an authors' checkpoint uses.")]
Seed = Annotated[int, Option(min=0, max=LARGEST_SEED, help="Seed of every random draw.")]
COUNT_HELP = "Faces to render, default 4000; or to keep of a data set, default all."
FaceCount = Annotated[int | None, Option("--faces", min=1, max=MOST_FACES, help=COUNT_HELP)]
FaceSeed = Annotated[
    int, Option("--faces-seed", min=0, max=LARGEST_SEED, help="Seed of the renderer, or of the faces kept.")
]
FaceSize = Annotated[
    int | None, Option("--faces-size", min=8, max=1024, help="Side in pixels. Default: the model's.")
]
Knobs = Annotated[Words, Option("--knob", help="name=value of the renderer. A wrong name lists all knobs.")]
Options = Annotated[Words, Option("--option", help="name=value of the model. `fer-lab models` lists all.")]
ReportedSplit = Annotated[
    str, Option(callback=_known_split, help="Default: test for synthetic; else valid, or test.")
]
Csv = Annotated[MaybePath, Option(callback=to_write, help="Also write a table to this CSV file.")]
Drawing = Annotated[MaybePath, Option(callback=_figure_to_write, help="Also draw it into this PNG.")]
Json = Annotated[MaybePath, Option(callback=to_write, help="Also write the answers to this JSON file.")]
WhichModels = Annotated[str, Option(help="Which models, such as baseline,dan. Default: all.")]
WhichSizes = Annotated[str, Option(help="Which sizes. poster also has small and base.")]


def listed(text: str) -> list[str]:
    """ "00, 02" → ["00", "02"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str, option: str, example: str, low: int, high: int) -> list[int]:
    numbers = [int(part) if part.isdecimal() else low - 1 for part in listed(text)]
    if not all(low <= number <= high for number in numbers):
        raise BadParameter(
            f"expected whole numbers such as {example}, of {low:,} to {high:,}, got {text!r}", param_hint=option
        )
    return numbers


def name_values(words: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """["lr=0.1"] → [("lr", "0.1")]."""
    pairs = []
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise BadParameter(f"expected name=value, got {word!r}", param_hint=option)
        pairs.append((name, value))
    return pairs


def typed(words: Sequence[str] | None, option: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """["lr=0.1"] → {"lr": 0.1}, each value in the type of its default. The call refuses unknown names."""
    from fer_lab.book.parameters import native, read_literal

    names = [name for name, _ in name_values(words, option)]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadParameter(f"{', '.join(twice)} has several values; give one", param_hint=option)
    return {
        name: read_literal(value) if defaults.get(name) is None else native(name, value, defaults[name])
        for name, value in name_values(words, option)
    }


def typed_knobs(words: Sequence[str] | None) -> dict[str, Any]:
    from fer_lab.data.synthetic import KNOBS

    return typed(words, "--knob", {name: knob.default for name, knob in KNOBS.items()})


def other_faces(words: Sequence[str] | None, classes: int | None) -> dict[str, Any]:
    """["london=DIR"] → {"london": the description of its faces}; a name of no data set is a folder's."""
    from fer_lab.data import FaceRequest
    from fer_lab.data.layouts import LAYOUTS

    found = {}
    for word in words or ():
        name, _, folder = word.partition("=")
        if not (name.isidentifier() and folder and Path(folder).is_dir()) or name in found:
            raise ValueError(f"--also takes NAME=FOLDER, each name once, the folder there; got {word!r}")
        kind = name if name in LAYOUTS else "folder"
        found[name] = FaceRequest(dataset=kind, root=Path(folder), classes=classes)
    return found


def two_files(csv: Path | None, json: Path | None, read: Sequence[Path] = ()) -> None:
    """Refuse one file for two tables, and a file for a table that is read."""
    if taken := [str(path) for path in (csv, json) if path and path.resolve() in {f.resolve() for f in read}]:
        raise ValueError(f"{', '.join(taken)} is one of the pictures; name another file for the table")
    if csv and json and csv.resolve() == json.resolve():
        raise ValueError(f"--csv and --json both name {csv}; name two files")


def store_folder(folder: Path) -> Path:
    """The results store that is meant; `book` is the book's, which an installed package does not let change."""
    from fer_lab.runs import results_folder

    return results_folder() if folder == BOOK else folder


def open_weights(weights: Path) -> "tuple[Method, str, str]":
    """A model in eval mode, the name it goes by, and the data set that trained it ("" if nothing tells)."""
    from fer_lab.explorer.photo_overlay import trained_on
    from fer_lab.models.weights import SHIPPED, is_shipped_name, shipped_models
    from fer_lab.runs import open_model
    from fer_lab.runs.run import weights_file

    file = weights_file(weights)
    if not file.exists() and not weights.exists():
        bundled = ", ".join(f"{kind}/{name}" for kind in SHIPPED for name in shipped_models(kind))
        raise FileNotFoundError(f"{weights} does not exist, and is no bundled model; those are {bundled}")
    name = f"{file.parent.name}/{file.stem}" if is_shipped_name(weights) else str(weights)
    return open_model(weights), name, trained_on(weights)
