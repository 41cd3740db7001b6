"""Reads named tensors from `.safetensors` and `.npz` files, also from the Hugging Face Hub.

Files are not trusted: those with pickled Python objects are refused, because reading one can run
any code.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssljax import paths
from ssljax.data import arrays, memory
from ssljax.errors import UsageError

PyTree = Any
FIELD = "config.init_from"
ALLOWED = (
    "a .safetensors file, an .npz of big_vision or AugReg, a run directory, or "
    "hf://<owner>/<name>[/<file>]"
)
_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?")
# Names of weight files in repositories of the hub, in the order of the search.
_NAMES = ("model.safetensors", "open_clip_model.safetensors")
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
# Many files, such as those of MAE and USB, have the weights under a key; in some, tensors share
# memory.
_CONVERSION = (
    "import torch, safetensors.torch as s; "
    "w = torch.load({source!r}, map_location='cpu', weights_only=True); "
    "w = w.get('model', w.get('state_dict', w)); "
    "s.save_file({{k.removeprefix('module.'): v.clone().contiguous() for k, v in w.items()}}, "
    "{made!r})"
)


class Weights(NamedTuple):
    """Named tensors of a network, from a file or a run."""

    tensors: Mapping[str, np.ndarray]
    name: str  # path or URL, as given by the user
    sha256: str  # checksum of the file, or of the tensors
    is_ours: bool = False  # whether they have the names of our networks
    class_names: tuple[str, ...] = ()  # the classes of the last layer; (): unknown
    step: int | None = None  # the step of the run


def read(where: str) -> Weights:
    """The tensors of a file; floats of 16 bits become float32.

    Args:
      where: a path, or `hf://<owner>/<name>[/<file>][@<revision>]`.

    Raises:
      UsageError: the file does not exist, is damaged, does not fit in memory, or has another type.
    """
    path = _downloaded(where) if where.startswith("hf://") else _local(where)
    memory.require(f"{FIELD} {where}", path.stat().st_size, memory.host_bytes(), "memory")
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _npz(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights({name: _wide(x) for name, x in tensors.items()}, where, digest)


def _local(where: str) -> Path:
    path = Path(paths.expand(where, FIELD))
    if path.suffix in _PICKLES:
        made = path.with_suffix(".safetensors").name
        raise UsageError(
            f"{FIELD} {where} is a pickle of PyTorch, which can run any code and is not read; "
            f'if you trust it, convert it to .safetensors: python -c "'
            f'{_CONVERSION.format(source=path.name, made=made)}"'
        )
    if "://" in where or path.suffix not in (".safetensors", ".npz"):
        raise UsageError(f"{FIELD} is {where}; allowed: {ALLOWED}")
    if not path.is_file():
        raise UsageError(f"{FIELD} {where} is not there; allowed: {ALLOWED}")
    return path


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import ml_dtypes  # noqa: F401  gives NumPy the type of bfloat16 tensors
        import safetensors
    except ModuleNotFoundError as error:
        raise _missing(path.name, error) from error
    try:
        with safetensors.safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has its own class; NumPy raises for unknown types
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{FIELD} {path} cannot be read as .safetensors: {reason}") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    return arrays.read(path, arrays.names(path))


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def _downloaded(where: str) -> Path:
    """The path of a file of a hub repository, from the cache or the network.

    Raises:
      UsageError: the file is in neither.
    """
    match = _HUB.fullmatch(where)
    if match is None:
        raise UsageError(f"{FIELD} is {where}; allowed: hf://<owner>/<name>[/<file>][@<revision>]")
    repo, file, revision = match.groups()
    if file and Path(file).suffix not in (".safetensors", ".npz"):
        raise UsageError(f"{FIELD} is {where}; allowed: files .safetensors and .npz")
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise _missing(where, error) from error
    names, is_reached = [file] if file else _NAMES, True
    for name in names:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except LocalEntryNotFoundError:
            is_reached = False
        except EntryNotFoundError:
            continue
        except Exception as error:  # no such repository, no access, no disk: many kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"{FIELD} {where} cannot be downloaded: {reason}") from error
    if is_reached:
        raise UsageError(f"{FIELD} {where} has no {' and no '.join(names)}")
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    raise UsageError(
        f"{FIELD} {where}: the hub cannot be reached, and its cache, {folder}, has no "
        f"{' and no '.join(names)} ($HF_HOME says where the cache is)"
    )


def _missing(what: str, error: ModuleNotFoundError) -> UsageError:
    return UsageError(
        f"{FIELD}: {what} needs the extra pretrained: pip install -e '.[pretrained]' ({error})"
    )


def checksum(weights: PyTree) -> str:
    """SHA-256 of arrays in nested dicts: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten_dict(weights, sep="/").items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
