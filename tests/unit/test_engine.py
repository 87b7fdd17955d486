"""Networks on microscope images: the same answers from every runtime, or the slower one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from dicom_node.errors import ModelError
from dicom_node.infer import openvino, parity
from dicom_node.infer.bundle import Bundle
from dicom_node.infer.engine import Engine, released
from support.bundles import seal
from support.image_bundles import HEADS, clear_bundle, day_and_night, image_bundle, network
from support.source import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and OpenVINO warn of what is meant


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of torch that wait for each other are slow where others compute too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models = tmp_path_factory.mktemp("models")
    image_bundle(models)
    return Bundle("cells", models, "cpu")


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Engine:
    return Engine(bundle, runtime="torch")


@pytest.fixture(scope="module")
def fast(bundle: Bundle) -> Engine:
    return Engine(bundle, runtime="openvino", precision="f32", threads=2)


def images(count: int, seed: int = 11, size_px: int = 64) -> Any:
    return parity.drawn(count, size_px, seed)


def test_openvino_says_what_torch_says(reference: Engine, fast: Engine) -> None:
    """In float32 probabilities agree within 1e-4, classes and Grad-CAM maps too."""
    seen = images(50)

    ours, theirs = reference.explain(seen), fast.explain(seen)

    assert (reference.choice.runtime, fast.choice.runtime) == ("torch", "openvino")
    found = parity.compare(ours, theirs)
    assert found.probability <= 1e-4
    assert found.same_class == 1.0
    assert found.heat <= 1e-2
    assert len(set(parity.classes(ours[0]))) == 4


def test_an_image_s_answer_is_its_own(fast: Engine) -> None:
    """Not that of its neighbours, of its place in the batch, or of how many came with it."""
    seen = images(23)
    whole = fast.explain(seen)

    alone = [fast.explain(seen[at : at + 1]) for at in range(len(seen))]

    assert np.array_equal(whole[0], np.concatenate([logits for logits, _ in alone]))
    assert np.array_equal(whole[1], np.concatenate([maps for _, maps in alone]))


@pytest.mark.parametrize("which", ["reference", "fast"])
def test_streams_keep_order_and_batches(which: str, request: pytest.FixtureRequest) -> None:
    """Batches of any length, also none, come back under their tags, and their memory may be used again."""
    engine: Engine = request.getfixturevalue(which)
    seen, lengths = images(40), (7, 0, 1, 16, 3, 13)
    buffer = np.empty((16, 64, 64, 3), np.uint8)

    def batches() -> Any:
        start = 0
        for length in lengths:
            buffer[:length] = seen[start : start + length]
            yield start, buffer[:length]
            buffer[:] = 0
            start += length

    found = list(engine.stream(batches()))

    assert [(tag, len(outputs[0])) for tag, outputs in found] == [
        (sum(lengths[:at]), length) for at, length in enumerate(lengths)
    ]
    together = np.concatenate([outputs[0] for _, outputs in found])
    assert np.allclose(together, engine.run(seen), atol=1e-4)


def test_a_stream_left_early_leaves_the_engine_usable(fast: Engine) -> None:
    """A cancelled job's requests are waited for, and the next job's answers are its own."""
    seen = images(12)
    expected = fast.run(seen)

    for _ in fast.stream((None, images(8, seed)) for seed in range(5)):
        break

    assert np.array_equal(expected, fast.run(seen))


def test_bf16_is_taken_where_the_processor_has_it(tmp_path: Path) -> None:
    """Within 0.01 of the reference's probabilities; a processor without it is a skip."""
    if not openvino.has_bf16():
        pytest.skip("this processor has no bfloat16")

    clear_bundle(tmp_path)
    bundle = Bundle("clear", tmp_path, "cpu")
    reference, engine = Engine(bundle, runtime="torch"), Engine(bundle, threads=2)
    seen, _ = day_and_night(24, seed=3)

    assert (engine.choice.runtime, engine.choice.precision) == ("openvino", "bf16")
    assert parity.compare((reference.run(seen),), (engine.run(seen),)).probability <= 0.01


def test_bf16_is_passed_over_aloud_without_a_processor_for_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for bf16 on an older processor: float32, an event, and the reason in the results."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name\t: An old one\nflags\t\t: fpu sse4_2 avx2 avx512f\n")
    assert not openvino.has_bf16(cpu)
    monkeypatch.setattr("dicom_node.infer.openvino.has_bf16", lambda: False)

    with capture_logs() as said:
        engine = Engine(bundle, precision="bf16", threads=2)

    assert engine.choice.precision == "f32"
    assert "this processor has no bfloat16" in engine.algorithm().runtime
    assert any(str(one["event"]).startswith("engine.no_bfloat") for one in said)


def test_a_wrong_conversion_is_not_used(
    bundle: Bundle, reference: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that mixes up two classes, or is off by a hundredth, is refused: torch answers."""
    honest = openvino.OpenVino.stream
    wrongs = {
        "names another class": lambda logits: logits[:, [1, 0, 2, 3]],
        "probabilities differ": lambda logits: logits * 1.01,
        "differ by more": lambda logits: logits * np.nan,
    }
    for why, wrong in wrongs.items():
        monkeypatch.setattr(
            openvino.OpenVino, "stream",
            lambda self, batches, wrong=wrong: ((t, (wrong(o[0]), *o[1:])) for t, o in honest(self, batches)),
        )  # fmt: skip

        with capture_logs() as said:
            engine = Engine(bundle, precision="f32", threads=2)

        assert engine.choice.runtime == "torch", why
        assert why in engine.choice.because or why == "differ by more"
        assert "engine.refused" in {one["event"] for one in said}
        assert np.array_equal(engine.run(images(5)), reference.run(images(5)))


def test_wrong_maps_are_not_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right answers with a heat map that points elsewhere are refused too."""
    honest = openvino.OpenVino.stream
    monkeypatch.setattr(
        openvino.OpenVino, "stream",
        lambda self, batches: ((t, (o[0], o[1][:, :, ::-1])) for t, o in honest(self, batches)),
    )  # fmt: skip

    engine = Engine(bundle, precision="f32", threads=2)

    assert engine.choice.runtime == "torch"
    assert "Grad-CAM" in engine.choice.because


def test_a_missing_openvino_is_no_failure(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference runs everywhere."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    engine = Engine(bundle, precision="f32")

    assert engine.choice.runtime == "torch"
    assert "OpenVINO is not installed" in engine.choice.because


def test_a_network_that_no_longer_says_what_was_released_is_not_used(tmp_path: Path) -> None:
    """The released answers stand in configs/parity.json; the same weights must still give them."""
    folder = image_bundle(tmp_path, kind="resnet18")
    said = released(Bundle("cells", tmp_path, "cpu"))
    (folder / parity.CONFIG).write_text(json.dumps(said))
    seal(folder)
    assert Engine(Bundle("cells", tmp_path, "cpu"), runtime="torch").choice.because == "asked for"

    said["logits"][3] = said["logits"][3][::-1]
    (folder / parity.CONFIG).write_text(json.dumps(said))
    seal(folder)

    with pytest.raises(ModelError, match="says other things here than when it was released"):
        Engine(Bundle("cells", tmp_path, "cpu"), runtime="torch")


def test_stored_cases_go_before_drawn_ones(tmp_path: Path) -> None:
    """A bundle may bring its own images for the gate; of another size they are refused."""
    from safetensors.numpy import save_file

    folder = image_bundle(tmp_path, kind="resnet18")
    save_file({"images": images(3)}, folder / parity.IMAGES)
    seal(folder)
    assert len(released(Bundle("cells", tmp_path, "cpu"))["logits"]) == 3

    save_file({"images": images(3, size_px=32)}, folder / parity.IMAGES)
    seal(folder)

    with pytest.raises(ModelError, match="not of 64 px"):
        Engine(Bundle("cells", tmp_path, "cpu"), runtime="torch")


@pytest.mark.parametrize("kind", HEADS)
def test_grad_cam_is_that_of_monai(kind: str) -> None:
    """For every class, one image at a time as MONAI is right, within 1e-5 of its normalised map."""
    import torch
    from monai.visualize import GradCAM

    from dicom_node.infer.graph import Graph
    from dicom_node.infer.image import ImageInput

    made = network(kind, 64).double().requires_grad_(True)
    image = ImageInput(64, 0.5, (0.5,) * 3, (0.5,) * 3, tuple("abcd"))
    target = HEADS[kind]["layer"]
    graph = Graph(made, image, HEADS[kind])
    seen = images(2)

    logits, maps = (output.detach().numpy() for output in graph(torch.from_numpy(seen)))

    cam = GradCAM(nn_module=made, target_layers=target)
    given = torch.from_numpy(seen).permute(0, 3, 1, 2).double() / 127.5 - 1
    for at in range(2):
        assert np.allclose(logits[at], made(given[at : at + 1]).detach().numpy(), atol=1e-9)
        for of_class in range(4):
            monai = cam.compute_map(given[at : at + 1], class_idx=of_class).detach().numpy()[0, 0]
            assert np.abs(normalised(maps[at, of_class]) - normalised(monai)).max() <= 1e-5


def normalised(heat: Any) -> Any:
    """0 to 1, as MONAI's default does; a flat map is 0."""
    spread = heat.max() - heat.min()
    return (heat - heat.min()) / spread if spread > 1e-12 else np.zeros_like(heat)


def test_a_head_that_does_not_pool_the_layer_is_refused(tmp_path: Path) -> None:
    """There the closed form would draw a wrong map without a word."""
    image_bundle(tmp_path, kind="resnet18", gradcam={"layer": "layer3", "head": "fc"})

    with pytest.raises(ModelError, match="needs the feature map that the head pools"):
        Engine(Bundle("cells", tmp_path, "cpu"), runtime="torch")


def test_loading_openvino_tells_nobody() -> None:
    """Its package reports its use over the network unless told otherwise: no name is looked up, no
    connection is made, also when a network is converted."""
    code = """
        import socket, sys, warnings
        warnings.simplefilter("ignore")
        asked = []
        sys.addaudithook(lambda event, facts: asked.append((event, facts))
            if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request") else None)
        from dicom_node.infer.openvino import openvino
        import torch
        openvino().convert_model(torch.nn.ReLU(), example_input=torch.zeros(1, 3))
        assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
        print(asked)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT,
        env={"PATH": "/usr/bin", "HOME": "/nonexistent"}, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert socket  # the hook's events are those of this module


def test_images_of_another_size_are_refused(fast: Engine) -> None:
    """Rather than cut or stretched in silence."""
    with pytest.raises(ModelError, match="wants uint8 images of 64 px"):
        fast.run(images(2, size_px=32))
