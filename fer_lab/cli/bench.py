"""The group `fer-lab bench`: speed, memory and agreement on this machine."""

from typing import Annotated, Any

from typer import Option

from fer_lab.cli.options import Csv, DataRoot, Dataset, Drawing, WhichModels, WhichSizes, listed
from fer_lab.cli.output import print_table


def bench_models(
    models: WhichModels = "",
    sizes: WhichSizes = "tiny,paper",
    modes: Annotated[str, Option(help="train, inference or both.")] = "train,inference",
    paths: Annotated[
        str, Option(help="plain: float32, eager. default: fastest without a wait. compiled: torch.compile.")
    ] = "plain,default",
    csv: Csv = None,
    figure: Drawing = None,
) -> None:
    """Images per second, milliseconds per step, memory and FLOPs of every model."""
    from fer_lab.bench import models as speed

    table = speed.bench_models(listed(models) or None, listed(sizes), listed(modes), paths=listed(paths))
    print_table(table, csv, figure, "bench_table_figure")


def bench_losses(
    batch: Annotated[int, Option(min=2, max=65_536, help="Faces in a step.")] = 512,
    classes: Annotated[int, Option(min=2, max=1024, help="Number of classes, and so of centers.")] = 8,
    dim: Annotated[int, Option(min=1, max=65_536, help="Dimensions of the embedding.")] = 512,
    csv: Csv = None,
) -> None:
    """Cost of each metric loss, forward and backward, relative to a training step of the paper-size network."""
    from fer_lab.bench import losses

    print_table(losses.bench_losses(batch, classes, dim), csv)


def bench_data(dataset: Dataset = "synthetic", data_root: DataRoot = None, csv: Csv = None) -> None:
    """Faces per second through rendering, reading and augmentation; memory of larger sets."""
    from fer_lab.bench import data

    real: dict[str, Any] = {} if dataset == "synthetic" else {"dataset": dataset, "root": data_root}
    print_table(data.bench_data(**real), csv)


def bench_growth(csv: Csv = None, figure: Drawing = None) -> None:
    """How the time grows with the number of faces, of classes and of pixels, on one thread."""
    from fer_lab.bench import growth

    print_table(growth.bench_growth(), csv, figure, "growth")


def device_table(
    models: WhichModels = "",
    sizes: WhichSizes = "tiny,paper",
    device: Annotated[str, Option(help="cuda or mps; auto is the best one here.")] = "auto",
    csv: Csv = None,
) -> None:
    """How far a GPU's logits, losses and gradients are from the processor's, as shares of theirs."""
    from fer_lab.bench import bench_device

    print_table(bench_device(listed(models) or None, listed(sizes), device=device), csv)


def onnx_table(models: WhichModels = "", sizes: WhichSizes = "tiny,paper", csv: Csv = None) -> None:
    """ONNX Runtime against PyTorch on one thread: difference, and images a second of processor time."""
    from fer_lab.bench import bench_onnx

    print_table(bench_onnx(listed(models) or None, listed(sizes)), csv)
