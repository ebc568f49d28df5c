"""HSE-FaceRes out of a TensorFlow.js graph: made ones of random weights, and the real one where it is."""

import base64
import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from fer_lab import cli
from fer_lab.data.augmentation import prepare
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.experiments import Training, ferplus
from fer_lab.models import create_model
from fer_lab.models.authors import start_from_weights
from fer_lab.models.authors.faceres import END, read_graph, write_trunk
from fer_lab.models.trunks import FaceRes

SAME = base64.b64encode(b"SAME").decode()
# Channels and stride of the 13 pairs of a depth-wise and a 1×1 convolution.
PAIRS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class Graph:
    """A graph in the format of TensorFlow.js, and what it computes."""

    def __init__(self, fused=False, stored="float32"):
        generator = np.random.default_rng(0)
        self.nodes, self.numbers, self.layers = [{"name": "input_1", "op": "Placeholder"}], {}, []
        self.end, self.fused, self.stored = "input_1", fused, stored
        self._convolve(generator, (3, 3, 3, 32), 2)
        channels = 32
        for width, stride in PAIRS:
            self._convolve(generator, (3, 3, channels, 1), stride)
            self._convolve(generator, (1, 1, channels, width), 1)
            channels = width
        self._node("Mean", END, "axes")
        self.numbers["axes"] = np.array([1, 2], np.int32)

    def _node(self, op, name, *constants, **attributes):
        self.nodes.append({"name": name, "op": op, "input": [self.end, *constants], "attr": attributes})
        self.end = name

    def _convolve(self, generator, shape, stride):
        name, depthwise = f"layer{len(self.layers)}", shape[3] == 1
        width, inputs = (shape[2], 9) if depthwise else (shape[3], np.prod(shape[:3]))
        kernel = self._rounded(generator.normal(0, (2 / inputs) ** 0.5, shape))
        scale, bias = (self._rounded(generator.uniform(low, 1.5, width)) for low in (0.5, -0.5))
        self.numbers |= {f"{name}/kernel": kernel, f"{name}/scale": scale, f"{name}/bias": bias}
        attributes = {"strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}}, "padding": {"s": SAME}}
        if self.fused and not depthwise:
            scale = np.ones(width)
            steps = [base64.b64encode(step).decode() for step in (b"BiasAdd", b"Relu6")]
            attributes["fused_ops"] = {"list": {"s": steps}}
            self._node("_FusedConv2D", name, f"{name}/kernel", f"{name}/bias", **attributes)
        else:
            self.numbers |= {"six": np.float32(6), "zero": np.float32(0)}
            self._node("DepthwiseConv2dNative" if depthwise else "Conv2D", name, f"{name}/kernel", **attributes)
            self._node("Mul", f"{name}/mul", f"{name}/scale")
            self._node("AddV2", f"{name}/add", f"{name}/bias")
            self._node("Relu", f"{name}/relu")
            self._node("Minimum", f"{name}/min", "six")
            self._node("Maximum", f"{name}/max", "zero")
        self.layers.append((kernel, scale, bias, stride, depthwise))

    def _rounded(self, array):
        return array.astype("float16" if self.stored == "float16" else "float32").astype("float32")

    def __call__(self, x):
        """[B,3,S,S] → [B,1024], padded as TensorFlow does: what is odd goes right and below."""
        x = x.double()
        for kernel, scale, bias, stride, depthwise in self.layers:
            weight = torch.from_numpy(kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))).double()
            total = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
            x = F.pad(x, (total // 2, total - total // 2) * 2)
            x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)
            scale, bias = (torch.from_numpy(np.array(one)).double().view(-1, 1, 1) for one in (scale, bias))
            x = (x * scale + bias).clamp(0, 6)
        return x.mean((2, 3)).float()

    def write(self, folder, change=None):
        entries, blobs = [], []
        for name, array in self.numbers.items():
            entry = {"name": name, "shape": list(np.shape(array)), "dtype": str(array.dtype)}
            if self.stored == "float16" and array.dtype == np.float32:
                entry["quantization"] = {"dtype": "float16"}
                array = array.astype("<f2")
            elif self.stored == "uint8" and array.dtype == np.float32 and array.size > 1:
                low, step = float(array.min()), float(np.ptp(array)) / 255
                entry["quantization"] = {"dtype": "uint8", "min": low, "scale": step}
                array = np.round((array - low) / step).astype(np.uint8)
            entries.append(entry)
            blobs.append(array.tobytes())
        data = b"".join(blobs)
        manifest = [{"paths": ["a.bin", "b.bin"], "weights": entries}]
        graph = copy.deepcopy({"modelTopology": {"node": self.nodes}, "weightsManifest": manifest})
        if change:
            change(graph)
        folder.mkdir(exist_ok=True)
        (folder / "a.bin").write_bytes(data[:1000])
        (folder / "b.bin").write_bytes(data[1000:])
        (folder / "model.json").write_text(json.dumps(graph))
        return folder / "model.json"


@pytest.fixture(scope="module")
def graph():
    return Graph()


@pytest.fixture(scope="module")
def file(graph, tmp_path_factory):
    return graph.write(tmp_path_factory.mktemp("graph"))


def loaded(path, size=224, grids=(7,)):
    trunk = FaceRes(size, grids).eval()
    own = {name: value for name, value in read_graph(path).items() if name in trunk.net.state_dict()}
    trunk.net.load_state_dict(own, strict=False)
    return trunk


def authors_input(pictures):
    """uint8 RGB [B,3,S,S] → BGR, less the mean."""
    return pictures.flip(1).float() - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)


@pytest.mark.parametrize(("fused", "stored"), [(False, "float32"), (True, "float32"), (False, "float16")])
def test_the_network_computes_what_the_graph_does(tmp_path, fused, stored):
    graph = Graph(fused, stored)
    pictures = SyntheticFaces(n=2, size=224, seed=1).images
    with torch.no_grad():
        ours = loaded(graph.write(tmp_path))(prepare(pictures, 224)).mean((2, 3))
    true = graph(authors_input(pictures))
    assert true.std() > 0.01
    assert (ours - true).abs().max() < 1e-4


def test_numbers_of_eight_bits_are_read(graph, tmp_path):
    exact, coarse = graph.write(tmp_path / "a"), Graph(stored="uint8").write(tmp_path / "b")
    a, b = (read_graph(path)["blocks.3.0.conv_pw.weight"] for path in (exact, coarse))
    assert 0 < (a - b).abs().max() <= (a.max() - a.min()) / 255


def test_learning_on_starts_where_the_graph_ends(file):
    """Without the statistics that are put back, BatchNorm in training mode would give other features."""
    faces = prepare(SyntheticFaces(n=64, size=56, seed=5).images, 56)
    trunk = loaded(file, 56)
    with torch.no_grad():
        before, after = trunk.eval()(faces), trunk.train()(faces)
    assert np.corrcoef(before.flatten(), after.flatten())[0, 1] > 0.95


@pytest.mark.parametrize(("size", "grid"), [("tiny", 112), ("paper", 224)])
def test_grids_are_the_networks_own(size, grid):
    trunk = FaceRes({"tiny": 56, "paper": 224}[size], (28, 14, 7)).eval()
    seen = []
    for module in trunk.net.blocks:
        module.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        taps = trunk.taps(torch.randn(2, 3, trunk.image_size, trunk.image_size))
    assert [tap.shape[-1] for tap in taps] == [28, 14, 7]
    assert {28, 14, 7} <= set(seen)
    with pytest.raises(ValueError, match="expected images"):
        trunk(torch.randn(2, 3, 100, 100))


@pytest.mark.parametrize("method", ["baseline", "dan", "triplet_center", "poster", "qcs", "dcs"])
def test_every_method_starts_from_it(file, tmp_path, method):
    out = tmp_path / "faceres.safetensors"
    write_trunk(file, out)
    model = create_model(method, 7, trunk="faceres")
    said = start_from_weights(model, out)
    assert "tensors loaded" in said
    state = read_graph(file)
    own = model.trunk.net.state_dict()
    assert torch.equal(own["blocks.2.0.conv_dw.weight"], state["blocks.2.0.conv_dw.weight"])
    assert torch.equal(own["blocks.2.0.bn1.running_var"], state["blocks.2.0.bn1.running_var"])
    assert model.eval()(torch.randn(2, 3, 56, 56)).shape == (2, 7)
    with pytest.raises(ValueError, match="--option trunk=faceres"):
        start_from_weights(create_model(method, 7), out)
    with pytest.raises(ValueError, match="order"):
        start_from_weights(model, out, "rafdb")


def test_the_command_writes_a_file_that_training_takes(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    done = run(cli.app, ["trunk", "faceres", str(file), "faceres.safetensors"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "VGGFace2" in done.output
    words = ["train", "baseline", "--faces", "64", "--set", "epochs=1", "--out", "run"]
    words += ["--option", "trunk=faceres", "--weights", "faceres.safetensors"]
    assert run(cli.app, words, catch_exceptions=False).exit_code == 0
    again = run(cli.app, ["trunk", "faceres", str(file), "faceres.safetensors"])
    assert isinstance(again.exception, FileExistsError)


def test_a_training_knows_the_trunk_by_its_download(file, tmp_path):
    here, there, other = (tmp_path / name / "faceres.safetensors" for name in ("here", "there", "other"))
    for out in (here, there, other):
        out.parent.mkdir()
    write_trunk(file, here)
    # On another machine the statistics' last bits differ.
    with safetensors.safe_open(here, "pt") as content:
        card = content.metadata()
    tensors = {name: tensor + 1e-7 for name, tensor in safetensors.torch.load_file(here).items()}
    safetensors.torch.save_file(tensors, there, metadata=card)
    write_trunk(Graph(stored="float16").write(tmp_path / "graph"), other)
    asked = [
        Training(model="baseline", options={"trunk": "faceres"}, weights=one) for one in (here, there, other)
    ]
    first, second, third = (one.to_json() for one in asked)
    assert first == second != third
    again = Training.from_json(first)
    assert again.to_json() == first
    assert "--weights faceres.safetensors" in again.command()


def test_the_rows_of_photographs_name_the_same_trunk(tmp_path):
    assert ferplus.face_trunk().keys() == ferplus.face_trunk(tmp_path / "faceres.safetensors").keys()
    with_it = [one for one in ferplus.face_trunk().values() if one.weights]
    assert len(with_it) == len(ferplus.face_trunk()) / 2
    for one in with_it:
        assert f'"weights": "{ferplus.FACE_TRUNK}"' in one.to_json()
        with pytest.raises(FileNotFoundError, match="no weights at faceres"):
            one.check()


def _without_numbers(graph):
    del graph["weightsManifest"]


def _unknown(graph):
    graph["modelTopology"]["node"][5]["op"] = "Elu"


def _outside(graph):
    graph["weightsManifest"][0]["paths"] = ["../a.bin", "b.bin"]


def _more_than_there_are(graph):
    graph["weightsManifest"][0]["weights"][0]["shape"] = [3, 3, 3, 32_000_000]


def _fewer_than_there_are(graph):
    graph["weightsManifest"][0]["weights"].pop()


def _circle(graph):
    graph["modelTopology"]["node"][1]["input"][0] = "layer0/mul"


def _wider(graph):
    graph["weightsManifest"][0]["weights"][0]["shape"] = [3, 3, 32, 3]


def _stride(graph):
    graph["modelTopology"]["node"][1]["attr"]["strides"]["list"]["i"] = ["1", "1", "1", "1"]


def _uncut(graph):
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    nodes["layer3/max"]["input"][0] = "layer3/relu"


def _text(graph):
    graph["weightsManifest"][0]["weights"] = "none"


FAULTS = {
    _without_numbers: "weightsManifest",
    _unknown: "Elu, which is unknown",
    _outside: "outside its folder",
    _more_than_there_are: "but there are",
    _fewer_than_there_are: "but there are",
    _circle: "circle",
    _wider: "no graph of HSE-FaceRes",
    _stride: "differ from convolution 1 on",
    _uncut: "26 are cut",
    _text: "no graph of HSE-FaceRes",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_another_graph_gets_one_line(graph, tmp_path, fault):
    path, out = graph.write(tmp_path / "graph", fault), tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match=FAULTS[fault]) as refused:
        write_trunk(path, out)
    assert "\n" not in str(refused.value)
    assert not out.exists()


NO_GRAPHS = [b"", b"[]", b"\xff\x00", b"[" * 100_000, b'{"modelTopology": {"node": [1]}}']


@pytest.mark.parametrize("content", NO_GRAPHS)
def test_what_is_no_graph_gets_one_line(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match="no graph of HSE-FaceRes"):
        read_graph(tmp_path / "model.json")
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "none.json")


@pytest.mark.skipif("FER_LAB_FACERES" not in os.environ, reason="FER_LAB_FACERES names no faceres-deep.json")
def test_the_real_graph_gives_what_tensorflow_js_gives():
    """Pooled features of two rendered faces, as TensorFlow.js 4.22 computed them from the same file."""
    pooled = np.load(Path(__file__).parents[2] / "golden" / "faceres.npz")["pooled"]
    pictures = SyntheticFaces(n=8, size=224, seed=3).images[:2]
    with torch.no_grad():
        ours = loaded(os.environ["FER_LAB_FACERES"])(prepare(pictures, 224)).mean((2, 3))
    assert np.abs(ours.numpy() - pooled).max() < 2e-5
