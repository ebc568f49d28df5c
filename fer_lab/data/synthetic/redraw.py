"""The same picture with other muscles: a rendered face drawn again, all else equal."""

from collections.abc import Sequence

import torch

from fer_lab.data.expressions import class_names
from fer_lab.data.faces import FaceSet
from fer_lab.data.synthetic.anatomy import Nuisance
from fer_lab.data.synthetic.drawing import Rendering, render
from fer_lab.data.synthetic.generator import CHUNK, KNOBS, _generator, _plan, sample_nuisance


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
