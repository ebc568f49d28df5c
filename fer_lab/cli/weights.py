"""Commands about models and files of weights: models, convert, trunk, export."""

import warnings
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from fer_lab.cli.options import WEIGHTS, LabelOrder, Options, to_fill, to_write, typed
from fer_lab.cli.output import say


def models(name: Annotated[str, Argument(help="One model. Default: all.")] = "") -> None:
    """List the models with sizes, recipes, options and bundled weights; for one, also what its recipes say."""
    from fer_lab.models.method import list_models, method_class, model_options
    from fer_lab.models.recipes import Recipe
    from fer_lab.models.weights import SHIPPED, read_card, shipped_models, shipped_weights

    usual = Recipe(epochs=1, batch_size=1).to_dict()
    for one in [name] if name else list_models():
        cls, options = method_class(one), model_options(one)
        say(one, f"  sizes    {', '.join(cls.sizes)}", f"  recipes  {', '.join(cls.recipes)}")
        say(f"  options  {', '.join(f'{key}={value}' for key, value in options.items()) or 'none'}")
        for title, recipe in cls.recipes.items() if name else ():
            special = {key: value for key, value in recipe.to_dict().items() if value != usual[key]}
            inner = special.pop("augmentation", {}).items()
            special |= {f"augmentation.{k}": v for k, v in inner if v != usual["augmentation"][k]}
            say(f"  recipe   {title}: {', '.join(f'{key}={value}' for key, value in special.items())}")
        for kind in (kind for kind in SHIPPED if one in shipped_models(kind)):
            score = read_card(shipped_weights(one, kind))["score"]["accuracy"]
            learned = "FER+ (grey photographs)" if kind == "ferplus" else "rendered faces"
            right = f"right on {100 * score:.1f} % of other faces"
            say(f"  weights  {kind}/{one}: learned from {learned}, {right}")


def convert_checkpoint(
    checkpoint: Annotated[Path, Argument(help="Checkpoint of the authors.")],
    out: Annotated[Path, Argument(callback=to_write, help=".safetensors file to write.")],
    model: Annotated[str, Option(help="Model that the checkpoint is of, such as dan.")],
    size: Annotated[str, Option(help="paper. poster also: small, base, large.")] = "paper",
    classes: Annotated[int, Option(min=2, max=1024, help="Number of classes of its head.")] = 7,
    option: Options = None,
    order: LabelOrder = "",
    guess_order: Annotated[
        tuple[str, Path] | None,
        Option(metavar="SET ROOT", help="Find the label order on the labelled faces of a data set."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Turn an authors' checkpoint into a file that evaluate, predict and the explorer open."""
    from fer_lab.data import load_faces
    from fer_lab.models.authors import convert, order_scores
    from fer_lab.models.method import create_model, model_options
    from fer_lab.models.weights import check_target

    if guess_order and order:
        raise BadParameter("give either --order or --guess-order")
    check_target(out, force=force)
    network = create_model(model, classes, size, **typed(option, "--option", model_options(model)))
    if guess_order:
        faces = load_faces(guess_order[0], guess_order[1], classes=7 if classes == 7 else None)
        faces = faces.split("train" if (faces.splits == "train").any() else faces.reported_split())
        (order, best), (second, other), *_ = order_scores(network, checkpoint, faces).items()
        say(
            f"label order guessed: {order}, {best:.1%} right on {faces.name}; next best {second}, {other:.1%} "
            f"({100 * (best - other):.1f} points less)"
        )
        if best - other < 0.1:
            warnings.warn("these are too close to trust the guess; --order names the order", stacklevel=1)
    say(convert(network, checkpoint, out, order=order, force=force), f"written: {out}")


def trunk_file(
    name: Annotated[str, Argument(help="Which one: faceres.")],
    graph: Annotated[Path, Argument(help="Its TensorFlow.js graph, a .json file.")],
    out: Annotated[Path, Argument(callback=to_write, help=".safetensors file to write.")],
    force: Annotated[bool, Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Make a trunk that has seen faces out of a download, for `train --option trunk=faceres --weights OUT`."""
    from fer_lab.models.authors.faceres import write_trunk

    if name != "faceres":
        raise BadParameter(f"no trunk {name!r} can be read; expected faceres", param_hint="NAME")
    write_trunk(graph, out, force=force)
    say(f"written: {out}", "its terms: VGGFace2's, research alone; see docs/data.md")


def export_to_onnx(
    run: Annotated[Path, Argument(help=WEIGHTS)],
    out: Annotated[Path, Argument(callback=to_write, help=".onnx file to write.")],
    half: Annotated[bool, Option("--half", help="Store the weights in 16 bits.")] = False,
) -> None:
    """Write a model as ONNX, and check that ONNX Runtime computes the same."""
    from fer_lab.models.export import export_onnx
    from fer_lab.runs import open_model

    difference = export_onnx(open_model(run), out, half=half)
    say(f"written: {out}, {out.stat().st_size / 1e6:.1f} MB; ONNX Runtime differs by {difference:.0e} at most")


def export_page(
    out: Annotated[Path, Argument(callback=to_write, help=".html file to write.")],
    packages: Annotated[
        Path, Option(callback=to_fill, help="Folder for what npm downloads, used again the next time.")
    ] = Path("runs/npm"),
) -> None:
    """Write the explorer as one page that runs in a browser, with no install and no network."""
    from fer_lab.book.live import build_live

    size = build_live(out, packages)
    say(f"written: {out}, {size / 1e6:.1f} MB; open it in a browser")
