"""Data and run directories on remote storage, through fsspec: `gs://`, `s3://`, `file://`, ….

A run always trains in a local directory. Where its home is remote, the directory is copied from
there before and back to there while and after it trains.
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

_SOURCE = ".source"  # in a copied directory: where it is from; written last
_SEAL = "manifest.json"  # of a checkpoint: what has none is not whole
_OWN = ("lock", _SOURCE)  # files that mean something on this machine only


def is_remote(path: str) -> bool:
    """Whether a path names another storage than the local file system's."""
    return "://" in path


def local(workdir: str) -> Path:
    """Where a run directory is worked on: itself, or for a remote one a folder of this machine.

    Raises:
      UsageError: a remote one leads out of its storage.
    """
    if not is_remote(workdir):
        return Path(paths.expand(workdir, "workdir"))
    if ".." in PurePosixPath(workdir).parts:
        raise UsageError(f"--workdir is {workdir}; allowed: a URL without ..")
    return Path(paths.expand("~/.cache/ssljax/runs", "workdir")) / workdir.replace(
        "://", "/"
    ).strip("/")


def opened(workdir: Path | str) -> Path:
    """A run directory to read: itself, or of a remote one a copy of its newest state.

    Raises:
      UsageError: it cannot be read.
    """
    directory = local(str(workdir))
    if is_remote(str(workdir)):
        Mirror(str(workdir), directory, "--workdir").pull()
    return directory


def copy_in(url: str, directory: Path, field: str) -> None:
    """Copies a remote directory to `directory`, all of it or nothing; once is enough.

    Several processes of one host may ask at once: the first copies, the others wait.

    Raises:
      UsageError: there is none, it cannot be read, or `directory` holds something else.
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
        except Exception as error:  # each storage raises its own
            raise UsageError(f"{field} {url} cannot be copied: {_reason(error)}") from error


def _names(storage: Any, path: str) -> list[str]:
    """The files below a remote directory, relative to it.

    Raises:
      ValueError: a name leads out of the directory, as names in buckets and archives may.
    """
    names = [file.removeprefix(path).lstrip("/") for file in storage.find(path)]
    for name in names:
        if ".." in PurePosixPath(name).parts:
            raise ValueError(f"the name {name!r} leads out of the directory")
    return [name for name in names if name and not name.endswith("/")]  # those stand for folders


def _copy(storage: Any, path: str, names: list[str], directory: Path, also: dict[str, str]) -> None:
    """Makes `directory` of remote files and some texts, all at once; replaces what is there."""
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
    """A remote copy of a local run directory, from which the run can go on at any time.

    A checkpoint counts once its manifest is there, which is copied last.
    """

    def __init__(self, url: str, workdir: Path, field: str):
        self._url, self._workdir, self._field = url, workdir, field
        self.name = f"{field} {url}"
        self._copied: dict[str, tuple[int, int]] = {}  # name -> size, time of change
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        try:
            self._storage, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{field} is {url}: {_reason(error)}") from error

    def pull(self) -> None:
        """Copies the remote run to the local directory, if it is further than the one there.

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
            # What was under way when its machine was lost is left out.
            kept = [n for n in names if not n.startswith("checkpoints/") or _step(n) in whole]
            self._workdir.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._storage, self._path, kept, self._workdir, {})
        except Exception as error:
            raise UsageError(f"{self._field} {self._url}: {_reason(error)}") from error

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the remote copy; {}: there is none.

        Raises:
          UsageError: it cannot be read.
        """
        path = f"{self._path}/{name}"
        try:
            return parse_json(self._storage.cat_file(path)) if self._storage.exists(path) else {}
        except Exception as error:
            raise UsageError(f"{self._field} {self._url}: {name}: {_reason(error)}") from error

    def push_in_background(self) -> None:
        """Begins to copy what has changed, unless that is under way; a failure is only told."""
        if self._running is None or self._running.done():
            self._running = self._thread.submit(self._try_to_push)

    def _try_to_push(self) -> None:
        try:
            self._push()
        except Exception as error:
            LOG.warning(
                f"warning: {self._field} {self._url}: {_reason(error)}; {self._workdir} has all"
            )

    def push(self, kind: object, *_: object) -> None:
        """Copies what has changed at the end of a run, which may be an exception of this `kind`.

        Raises:
          RunError: it cannot be written; only told where the run has failed itself.
        """
        self._thread.shutdown()
        if kind is not None:
            return self._try_to_push()
        try:
            self._push()
        except Exception as error:
            raise RunError(
                f"{self._field} {self._url} cannot be written: {_reason(error)}; {self._workdir} "
                "has all"
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
    """The steps whose checkpoints are whole."""
    return {_step(name) for name in names if name.endswith(f"/{_SEAL}")}


def _step(name: str) -> int:
    """The step whose checkpoint a file belongs to, 0: none."""
    folder, _, rest = name.partition("/")
    step = rest.partition("/")[0]
    return int(step) if folder == "checkpoints" and step.isdigit() else 0


def _files(workdir: Path) -> list[Path]:
    """What a run directory holds, without what is unfinished or this machine's."""
    return [
        path
        for path in workdir.rglob("*")
        if path.is_file()
        and path.name not in _OWN
        and not any(".partial" in part for part in path.relative_to(workdir).parts)
    ]


def _reason(error: Any) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
