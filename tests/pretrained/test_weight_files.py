import hashlib
import pickle
import re
import sys
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ssljax.errors import UsageError
from ssljax.pretrained import weight_files

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    return path


def test_safetensors_are_read_as_float32_with_their_checksum(file):
    found = weight_files.read(str(file))
    np.testing.assert_array_equal(found.tensors["a.weight"], TENSORS["a.weight"])
    assert {x.dtype for x in found.tensors.values()} == {np.dtype(np.float32)}
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_bfloat16_is_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    values = np.array([1.5, -2, 0.25], ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"x": values}, path)
    found = weight_files.read(str(path)).tensors["x"]
    assert (found.dtype, found.tolist()) == (np.float32, [1.5, -2, 0.25])


def test_npz_files_are_read(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"params/embedding/kernel": np.ones((2, 2))})
    assert [*weight_files.read(str(path)).tensors] == ["params/embedding/kernel"]


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "pytorch_model.bin"])
def test_a_pickle_is_not_opened_and_the_line_says_how_it_is_converted(tmp_path, name):
    class Harmful:
        def __reduce__(self):
            return (exit, (3,))

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UsageError, match="is a pickle of PyTorch.*weights_only=True") as error:
        weight_files.read(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nested", ["model", "state_dict", None])
def test_the_conversion_of_a_pickle_gives_plain_names(nested, tmp_path, monkeypatch):
    """Run as the line has it, with a stand-in for PyTorch."""

    class Tensor(list):
        clone = contiguous = lambda self: Tensor(self)

    weights, saved = {"module.a": Tensor([1]), "b": Tensor([2])}, {}
    file, loads = tmp_path / "weights.pth", []
    file.touch()
    torch, safe = ModuleType("torch"), ModuleType("safetensors.torch")
    torch.load = lambda *args, **options: (
        loads.append((args, options)) or ({nested: weights} if nested else weights)
    )
    safe.save_file = lambda tensors, path: saved.update({path: tensors})
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "safetensors.torch", safe)
    monkeypatch.setattr(safetensors, "torch", safe, raising=False)
    with pytest.raises(UsageError) as error:
        weight_files.read(str(file))
    exec(re.search(r'python -c "(.*)"$', str(error.value))[1], {})
    assert loads == [(("weights.pth",), {"map_location": "cpu", "weights_only": True})]
    assert saved == {"weights.safetensors": {"a": [1], "b": [2]}}


def test_an_npz_with_a_pickle_in_it_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(UsageError, match="cannot be read as an .npz without pickles"):
        weight_files.read(str(path))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("weights.msgpack", "config.init_from is weights.msgpack; allowed: a .safetensors file"),
        ("gone.safetensors", "config.init_from gone.safetensors is not there"),
        ("http://x/y.safetensors", "config.init_from is http://x/y.safetensors; allowed: a .safe"),
        ("hf://timm", "config.init_from is hf://timm; allowed: hf://<owner>/<name>"),
        ("hf://a/b/pytorch_model.bin", "allowed: files .safetensors and .npz"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(where, message):
    with pytest.raises(UsageError, match=message):
        weight_files.read(where)


def test_a_damaged_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UsageError, match="cannot be read as .safetensors"):
        weight_files.read(str(file))


def test_without_the_extra_it_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UsageError, match=r"needs the extra pretrained: pip install"):
        weight_files.read(str(file))


class TestHub:
    """A hub that is a cache on this machine, as `huggingface_hub` lays it out."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize("name", ["model.safetensors", "open_clip_model.safetensors"])
    def test_a_cached_file_is_read(self, name, cache):
        folder = cache / "models--timm--vit" / "snapshots" / ("0" * 40)
        folder.mkdir(parents=True)
        (cache / "models--timm--vit" / "refs").mkdir()
        (cache / "models--timm--vit" / "refs" / "main").write_text("0" * 40)
        safetensors.numpy.save_file(TENSORS, folder / name)
        assert [*weight_files.read("hf://timm/vit").tensors] == ["a.weight", "b"]
        assert [*weight_files.read(f"hf://timm/vit/{name}").tensors] == ["a.weight", "b"]

    def test_offline_the_line_says_where_it_looked(self, cache):
        with pytest.raises(UsageError) as error:
            weight_files.read("hf://timm/vit_tiny")
        assert (
            f"cannot be reached, and its cache, {cache}/models--timm--vit_tiny, has no "
            "model.safetensors and no open_clip_model.safetensors"
        ) in str(error.value)
        assert "\n" not in str(error.value)
