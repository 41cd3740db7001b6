"""Files of weights -> named tensors: `.safetensors`, `.npz`, and either from the Hugging Face Hub.

A file can be anybody's: none that holds pickled Python objects is opened, since reading one runs
whatever code it holds.
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
# Names of weights in repositories of the hub, in the order in which they are looked for.
_NAMES = ("model.safetensors", "open_clip_model.safetensors")
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
# Many keep the weights under a name, as MAE and USB do, and some share memory between tensors.
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
    name: str  # where they are, as it was given
    sha256: str  # of the file, or of the tensors
    is_ours: bool = False  # whether they are called as our networks' are
    class_names: tuple[str, ...] = ()  # that the last layer knows; (): unknown
    step: int | None = None  # of the run


def read(where: str) -> Weights:
    """The tensors of a file, unchanged but for those of 16 bits, which become float32.

    Args:
      where: a path, or `hf://<owner>/<name>[/<file>][@<revision>]`.

    Raises:
      UsageError: it is not there, is damaged, does not fit in memory, or is of another kind.
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
            f'where you trust it, make a .safetensors of it: python -c "'
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
    except Exception as error:  # of a class of its own, and NumPy's for types that it lacks
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{FIELD} {path} cannot be read as .safetensors: {reason}") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    return arrays.read(path, arrays.names(path))


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def _downloaded(where: str) -> Path:
    """The file of a repository of the hub, from the cache or the network.

    Raises:
      UsageError: it is in neither.
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
        f"{FIELD}: {what} needs the extra pretrained: pip install 'ssljax[pretrained]' ({error})"
    )


def checksum(weights: PyTree) -> str:
    """SHA-256 of arrays in nested dicts: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten_dict(weights, sep="/").items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
