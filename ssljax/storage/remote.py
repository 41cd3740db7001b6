"""Data and run directories on remote storage, through fsspec: `gs://`, `s3://`, `file://`, ….

A run always trains in a local directory. If the run directory is remote, it is copied to a local
one before training, and back during and after training.
"""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ssljax import paths
from ssljax.errors import RunError, UsageError
from ssljax.log import LOG
from ssljax.storage import flock
from ssljax.storage.files import SUMS, parse_json

_SOURCE = ".source"  # in a copied directory: the URL it was copied from; written last
_SEAL = "manifest.json"  # in a checkpoint: without it, the checkpoint is incomplete
_OWN = ("lock", _SOURCE)  # files that are meaningful on this machine only


def is_remote(path: str) -> bool:
    """Whether a path is on storage other than the local file system."""
    return "://" in path


def local(workdir: str) -> Path:
    """Returns the local path of a run directory: itself, or a local folder for a remote one.

    Raises:
      UsageError: a remote path contains `..`.
    """
    if not is_remote(workdir):
        return Path(paths.expand(workdir, "workdir"))
    if ".." in PurePosixPath(workdir).parts:
        raise UsageError(f"--workdir is {workdir}; allowed: a URL without ..")
    return Path(paths.expand("~/.cache/ssljax/runs", "workdir")) / workdir.replace(
        "://", "/"
    ).strip("/")


def opened(workdir: Path | str) -> Path:
    """Returns a run directory for reading: itself, or a copy of the newest state of a remote one.

    Raises:
      UsageError: it cannot be read.
    """
    directory = local(str(workdir))
    if is_remote(str(workdir)):
        Mirror(str(workdir), directory, "--workdir").pull()
    return directory


def copy_in(url: str, directory: Path, field: str) -> None:
    """Copies a remote directory to `directory`, atomically and only once.

    If several processes of one host call this, the first one copies and the others wait.

    Raises:
      UsageError: there is none, it cannot be read, or `directory` has other contents.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("w", encoding="utf-8") as lock:
        flock.exclusive(lock.fileno())
        if (directory / _SOURCE).exists():
            if (source := (directory / _SOURCE).read_text("utf-8")) == url:
                return
            raise UsageError(f"{field} is {url}, but {directory} was copied from {source}")
        if directory.exists() and any(directory.iterdir()):
            raise UsageError(f"{field} is {url}, but {directory} has other files already")
        try:
            storage, path = fsspec.core.url_to_fs(url)
            names = _names(storage, path)
            if not names:
                raise FileNotFoundError("there is nothing")
            _copy(storage, path, names, directory, {_SOURCE: url})
        except Exception as error:  # each storage backend raises its own types
            raise UsageError(f"{field} {url} cannot be copied: {_reason(error)}") from error


def _names(storage: Any, path: str) -> list[str]:
    """Returns the files below a remote directory, relative to it.

    Raises:
      ValueError: a name points outside the directory, as is possible in buckets and archives.
    """
    names = [file.removeprefix(path).lstrip("/") for file in storage.find(path)]
    for name in names:
        if ".." in PurePosixPath(name).parts:
            raise ValueError(f"the name {name!r} points outside the directory")
    return [name for name in names if name and not name.endswith("/")]  # skips folder entries


def _copy(storage: Any, path: str, names: list[str], directory: Path, also: dict[str, str]) -> None:
    """Creates `directory` atomically from remote files and texts, replacing an existing one."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in names:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        storage.get_file(f"{path}/{name}", str(partial / name))
    for name, text in also.items():
        (partial / name).write_text(text, "utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


class Mirror:
    """A remote copy of a local run directory, from which the run can be resumed at any time.

    A checkpoint is complete once its manifest has been copied, which is copied last.
    """

    def __init__(self, url: str, workdir: Path, field: str):
        self._url, self._workdir, self._field = url, workdir, field
        self.name = f"{field} {url}"
        self._copied: dict[str, tuple[int, int]] = {}  # name -> size, modification time
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        try:
            self._storage, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{field} is {url}: {_reason(error)}") from error

    def pull(self) -> None:
        """Copies the remote run to the local directory, if it is further advanced.

        Raises:
          UsageError: it cannot be read.
        """
        try:
            names = _names(self._storage, self._path) if self._storage.exists(self._path) else []
            whole = _sealed(names)
            local = _sealed(
                [p.relative_to(self._workdir).as_posix() for p in _files(self._workdir)]
            )
            begun = (self._workdir / "config.json").exists()
            if "config.json" not in names or (
                begun and max(local, default=0) >= max(whole, default=0)
            ):
                return
            # Checkpoints whose upload was interrupted are skipped.
            kept = [n for n in names if not n.startswith("checkpoints/") or _step(n) in whole]
            self._workdir.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._storage, self._path, kept, self._workdir, {})
        except Exception as error:
            raise UsageError(f"{self._field} {self._url}: {_reason(error)}") from error

    def read(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the remote copy; {}: there is none.

        Raises:
          UsageError: it cannot be read.
        """
        path = f"{self._path}/{name}"
        try:
            return parse_json(self._storage.cat_file(path)) if self._storage.exists(path) else {}
        except Exception as error:
            raise UsageError(f"{self._field} {self._url}: {name}: {_reason(error)}") from error

    def push_in_background(self) -> None:
        """Starts copying changed files, unless a copy is running; a failure is only logged."""
        if self._running is None or self._running.done():
            self._running = self._thread.submit(self._try_to_push)

    def _try_to_push(self) -> None:
        try:
            self._push()
        except Exception as error:
            LOG.warning(
                f"warning: {self._field} {self._url}: {_reason(error)}; all files are in "
                f"{self._workdir}"
            )

    def push(self, kind: object, *_: object) -> None:
        """Copies changed files at the end of a run, which may have failed with an error of `kind`.

        Raises:
          RunError: they cannot be written; only logged if the run itself has failed.
        """
        self._thread.shutdown()
        if kind is not None:
            return self._try_to_push()
        try:
            self._push()
        except Exception as error:
            raise RunError(
                f"{self._field} {self._url} cannot be written: {_reason(error)}; all files "
                f"are in {self._workdir}"
            ) from error

    def _push(self) -> None:
        found = {p.relative_to(self._workdir).as_posix(): p for p in _files(self._workdir)}
        for name in sorted(found, key=lambda name: (name.endswith(_SEAL), name != SUMS, name)):
            state = found[name].stat()
            version = state.st_size, state.st_mtime_ns
            if self._copied.get(name) != version:
                target = f"{self._path}/{name}"
                self._storage.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                self._storage.put_file(str(found[name]), target)
                self._copied[name] = version
        kept = {_step(name) for name in found}
        for name in _names(self._storage, self._path):
            if name.startswith("checkpoints/") and _step(name) not in kept:
                self._storage.rm_file(f"{self._path}/{name}")


def _sealed(names: list[str]) -> set[int]:
    """Returns the steps whose checkpoints are complete."""
    return {_step(name) for name in names if name.endswith(f"/{_SEAL}")}


def _step(name: str) -> int:
    """Returns the step of the checkpoint that a file belongs to, 0: none."""
    folder, _, rest = name.partition("/")
    step = rest.partition("/")[0]
    return int(step) if folder == "checkpoints" and step.isdigit() else 0


def _files(workdir: Path) -> list[Path]:
    """Returns the files of a run directory, except incomplete and machine-specific ones."""
    return [
        path
        for path in workdir.rglob("*")
        if path.is_file()
        and path.name not in _OWN
        and not any(".partial" in part for part in path.relative_to(workdir).parts)
    ]


def _reason(error: Any) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
