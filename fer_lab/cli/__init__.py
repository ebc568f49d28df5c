"""The command line: `fer-lab` or `python -m fer_lab`.

Text is parsed in this folder and nowhere below: a command turns words into typed values, makes one call, and
prints. Errors are reported in one line on stderr. The exit code is 2 if the fault lies in what the command was
given (an option, a path, a file) and 1 if the work failed on the way. FER_LAB_DEBUG=1 in the environment shows
the traceback instead. A command imports the packages that it needs, since some take seconds.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer import BadParameter, Option

from fer_lab.cli import bench, book, data, measure, train, weights
from fer_lab.cli.output import fail, say, shown

# The class behind every complaint about a word on the command line. Typer exports only one of its children.
UsageError: Any = BadParameter.__base__
# Faults in what a command was given; another OSError is one of the machine.
WRONG_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)

# What `fer-lab --help` lists, in its order; a group has commands of its own.
COMMANDS: dict[str, Callable[..., None]] = {
    "reproduce": book.reproduce,
    "notebooks": book.notebooks,
    "info": measure.info,
    "models": weights.models,
    "train": train.train,
    "landmarks": train.landmarks,
    "convert": weights.convert_checkpoint,
    "trunk": weights.trunk_file,
    "evaluate": measure.evaluate,
    "predict": measure.predict,
    "results": measure.results,
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "data": (
        "Check a data set, cache it, crop faces from photographs, or render faces.",
        {"crop": data.crop, "check": data.check, "cache": data.cache, "render": data.render},
    ),
    "bench": (
        "Measure speed and memory on this machine.",
        {
            "models": bench.bench_models,
            "losses": bench.bench_losses,
            "data": bench.bench_data,
            "growth": bench.bench_growth,
            "device": bench.device_table,
            "onnx": bench.onnx_table,
        },
    ),
    "export": (
        "Take a model, or the explorer, to where there is no Python.",
        {"onnx": weights.export_to_onnx, "page": weights.export_page},
    ),
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The workbook for facial expression recognition: run it, train models, measure them, look at faces.",
)
for name, work in COMMANDS.items():
    app.command(name)(work)
for name, (text, commands) in GROUPS.items():
    group = typer.Typer(no_args_is_help=True)
    for inner, work in commands.items():
        group.command(inner)(work)
    app.add_typer(group, name=name, help=text)


def _print_version(asked: bool) -> None:
    if asked:
        from fer_lab import __version__

        say(f"fer_lab {__version__}")
        raise typer.Exit


@app.callback()
def start(
    context: typer.Context,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    _version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What every command has; its help is that of `app`."""
    if quiet:
        context.with_resource(contextlib.redirect_stdout(io.StringIO()))
        before = {name: value for name, value in os.environ.items() if name == "FER_LAB_QUIET"}
        os.environ["FER_LAB_QUIET"] = "1"
        context.call_on_close(lambda: (os.environ.pop("FER_LAB_QUIET"), os.environ.update(before)))


def main() -> None:
    """Run the command line; what goes wrong is reported in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"{shown(f'note: {message}')}\n"
    try:
        _check_words(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == 130:  # Ctrl-C
            say("interrupted; run the same command again to resume where that is possible", err=True)
        sys.exit(code or 0)
    except UsageError as error:
        if not error.format_message():  # no command: the help was printed
            sys.exit(2)
        fail(f"{error.format_message()} (--help lists what there is)", 2)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("FER_LAB_DEBUG") == "1":
            raise
        hint = '; pip install "fer_lab[book]" brings it' * isinstance(error, ModuleNotFoundError)
        fail(f"{error}{hint}", 2 if isinstance(error, WRONG_INPUT) else 1)


def _check_words(words: Sequence[str]) -> None:
    """Refuse what no option means: nothing, as of a shell's variable without a value, and control characters.

    A file that is there may have any name, and a value for a notebook any character.
    """
    for word in words:
        if not word:
            raise ValueError("an empty word on the command line; leave the option out, or give it a value")
        if not word.isprintable() and not os.path.lexists(word) and "=" not in word:
            raise ValueError(f"{word!r} has characters that cannot be printed; give a name without them")
