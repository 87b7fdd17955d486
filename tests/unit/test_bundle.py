"""Bundles: checked before use, data only, the same answer every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.errors import ModelError
from dicom_node.infer.bundle import Bundle, bundle_digests
from dicom_node.infer.configuration import check
from dicom_node.infer.manifest import WEIGHTS
from support.bundles import EVALUATOR, FILTER, copied, seal, uterine_bundles


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uterine_bundles(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_bundle_is_called_in_one_line(models: Path) -> None:
    """`Bundle(name).infer(array)` gives one probability per slice."""
    image = np.random.default_rng(0).random((5, 64, 80)).astype(np.float32)

    answer = Bundle(FILTER, models).infer(image)

    assert (5, 1) == answer.shape
    assert ((answer > 0) & (answer < 1)).all()


def test_the_same_input_gives_the_same_output(models: Path) -> None:
    """Also from another instance of the bundle."""
    image = np.random.default_rng(1).random((3, 64, 64)).astype(np.float32)

    first, second = Bundle(FILTER, models).infer(image), Bundle(FILTER, models).infer(image)

    assert first.tobytes() == second.tobytes()


def test_folding_batch_norm_changes_nothing(models: Path) -> None:
    """The folded network says what the network says, to rounding."""
    import torch
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    bundle = Bundle(FILTER, models)
    plain = mobilenet_v2(num_classes=1, width_mult=0.35)
    plain.load_state_dict(load_file(models / FILTER / WEIGHTS))
    batch = bundle.preprocess(np.random.default_rng(2).random((4, 96, 96)).astype(np.float32))

    with torch.inference_mode():
        expected = plain.eval()(batch)

    assert torch.allclose(expected, bundle.forward(batch), atol=1e-4)


def test_no_slices_are_no_error(models: Path) -> None:
    """An empty batch gives an empty answer."""
    import torch

    bundle = Bundle(EVALUATOR, models)

    outputs, maps = bundle.explain(torch.zeros(0, 3, 112, 112))

    assert (0, 1) == tuple(outputs.shape)
    assert 0 == len(maps)


def test_digests_need_no_torch_and_follow_every_file(models: Path, tmp_path: Path) -> None:
    """Another threshold is another digest: results of the one are not results of the other."""
    folder = copied(models / FILTER, tmp_path)
    before = bundle_digests([FILTER], tmp_path)[FILTER]
    (folder / "configs" / "threshold.json").write_text('{"keep_from": 0.9}')
    seal(folder)

    after = bundle_digests([FILTER], tmp_path)[FILTER]

    assert before == bundle_digests([FILTER], models)[FILTER]
    assert before != after


def flip_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


def edit_config(folder: Path) -> None:
    path = folder / "configs" / "inference.json"
    path.write_text(path.read_text() + " ")


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def spoil_metadata(folder: Path) -> None:
    (folder / "configs" / "metadata.json").write_text("{")


def climb(folder: Path) -> None:
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["files"]["../../secret"] = "0" * 64
    path.write_text(json.dumps(metadata))


def pickle_weights(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(1)}, folder / WEIGHTS)
    seal(folder)


def foreign_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    seal(folder)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flip_weights, r"model\.safetensors is not the file its metadata names"),
        (edit_config, r"inference\.json is not the file its metadata names"),
        (remove_weights, r"models/model\.safetensors is missing"),
        (spoil_metadata, r"metadata\.json is not readable JSON"),
        (climb, r"'../../secret' is not in configs/ or models/"),
        (pickle_weights, "the weights do not fit the network"),
        (foreign_weights, "the weights do not fit the network"),
    ],
)
def test_a_damaged_bundle_is_not_used(
    models: Path, tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    """The error names the bundle and the file; weights are safetensors or nothing."""
    damage(copied(models / FILTER, tmp_path))

    with pytest.raises(ModelError, match=why) as error:
        Bundle(FILTER, tmp_path)

    assert FILTER in str(error.value)


@pytest.mark.parametrize("name", ["../models", "a/b", "", ".", "nowhere"])
def test_a_bundle_that_is_not_there_is_named(models: Path, name: str) -> None:
    """And a name is no path."""
    with pytest.raises(ModelError):
        bundle_digests([name], models)


@pytest.mark.parametrize(
    "config",
    [
        {"a": "$__import__('os').system('true')"},
        {"a": {"b": ["%/etc/passwd"]}},
        {"a": {"_target_": "os.system", "command": "true"}},
        {"a": {"_target_": "torch.load", "f": "x"}},
        {"a": {"_target_": "builtins.eval"}},
        {"a": {"_target_": "monai.transforms.io.array.os.system"}},
        {"a": {"_target_": "monai.transforms.Identity", "_mode_": "debug"}},
        {"a": {"_target_": "monai.transforms.Identity", "_requires_": "@b"}},
        {"a": {"_target_": ["os.system"]}},
        {"$a": 1},
    ],
)
def test_a_configuration_is_data(config: dict[str, Any]) -> None:
    """Expressions, macros, foreign classes and the debugger are refused before MONAI sees them."""
    with pytest.raises(ModelError, match=r"^here"):
        check(config, "here")


def test_references_and_known_classes_are_allowed() -> None:
    """`@` refers to another key; classes of the listed modules may be made."""
    check({"size": 3, "a": {"_target_": "monai.transforms.Resize", "spatial_size": "@size"}}, "here")
