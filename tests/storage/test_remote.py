"""Tests copies to and from remote storage, simulated by a folder and fsspec's memory."""

import shutil
import zipfile

import fsspec
import numpy as np
import pytest

from helpers.tiny import build
from ssljax.errors import RunError, UsageError
from ssljax.run import loop, metrics
from ssljax.storage import remote


@pytest.fixture
def url():
    storage = fsspec.filesystem("memory")
    yield "memory://bucket/run"
    storage.rm("/bucket", recursive=True) if storage.exists("/bucket") else None


def files(url):
    storage, path = fsspec.core.url_to_fs(url)
    return {name.removeprefix(path).lstrip("/"): storage.cat(name) for name in storage.find(path)}


def local_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in remote._files(folder)}


class Outage(OSError):
    pass


def failing(monkeypatch, method, after):
    """Makes the memory storage fail at each call of `method` from number `after` on."""
    storage, calls = fsspec.filesystem("memory"), []
    works = getattr(type(storage), method)

    def call(self, *args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise Outage("connection reset")
        return works(self, *args, **kwargs)

    monkeypatch.setattr(type(storage), method, call)


@pytest.fixture
def data(url):
    """A data set of three files on remote storage."""
    storage, path = fsspec.core.url_to_fs("memory://bucket/data")
    for name in ("a", "sub/b", "sub/c"):
        storage.pipe(f"{path}/{name}", name.encode() * 1000)
    return "memory://bucket/data"


def test_data_is_copied_once_and_whole(data, tmp_path, monkeypatch):
    target = tmp_path / "data"
    with monkeypatch.context() as patch:
        failing(patch, "get_file", after=2)
        with pytest.raises(
            UsageError, match="data_url memory://bucket/data cannot be copied: Outage"
        ):
            remote.copy_in(data, target, "data_url")
    assert not target.exists()  # an incomplete data set is removed
    remote.copy_in(data, target, "data_url")
    assert (target / "sub/c").read_bytes() == b"sub/c" * 1000
    failing(monkeypatch, "get_file", after=0)
    remote.copy_in(data, target, "data_url")  # nothing is left to do


def archive(path, *names):
    """Returns the URL of a zip archive with these members."""
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, name)
    return f"zip://data::file://{path}"


@pytest.mark.parametrize("name", ["data/../../out", "data/sub/../../../out"])
def test_names_that_lead_out_of_the_directory_are_refused(tmp_path, name):
    url = archive(tmp_path / "a.zip", "data/a", name)
    with pytest.raises(UsageError, match=r"data_url .* the name '.*out' points outside"):
        remote.copy_in(url, tmp_path / "in/data", "data_url")
    with pytest.raises(UsageError, match=r"--workdir .* points outside"):
        remote.Mirror(url, tmp_path / "in/run", "--workdir").pull()
    assert [path.name for path in tmp_path.rglob("*out*")] == []
    with pytest.raises(UsageError, match=r"--workdir is gs://bucket/../run; allowed: a URL"):
        remote.local("gs://bucket/../run")


def test_what_stands_for_a_folder_is_no_file():
    class Bucket:  # consoles of object stores create such keys
        find = staticmethod(lambda path: [f"{path}/", f"{path}/sub/", f"{path}/sub/a"])

    assert remote._names(Bucket, "bucket/data") == ["sub/a"]


def test_a_directory_with_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="has other files already"):
        remote.copy_in(data, tmp_path, "data_url")
    remote.copy_in(data, tmp_path / "data", "data_url")
    with pytest.raises(UsageError, match="was copied from memory://bucket/data"):
        remote.copy_in("memory://bucket/other", tmp_path / "data", "data_url")


@pytest.mark.parametrize("url", ["memory://bucket/nothing", "gs://bucket/data", "zz://bucket"])
def test_what_cannot_be_copied_is_named(url, tmp_path):
    if url.startswith("gs"):
        pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match=f"data_url {url} cannot be copied"):
        remote.copy_in(url, tmp_path / "data", "data_url")


def test_the_run_directory_is_copied_out_after_the_end(config, url, tmp_path):
    loop.train(build(config, train_url=url), tmp_path / "run")
    assert files(url) == local_files(tmp_path / "run")
    assert {"config.json", "metrics.jsonl", "results.json"} <= files(url).keys()
    assert not any("lock" in name or "partial" in name for name in files(url))


def test_the_run_directory_is_copied_out_after_a_failure_too(config, url, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "summarize", None)
    monkeypatch.setattr(loop, "summarize", lambda *metric_sums: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.train(build(config, train_url=url), tmp_path / "run")
    assert files(url) == local_files(tmp_path / "run")
    assert "config.json" in files(url)


def test_a_storage_that_fails_at_the_end_is_told_and_nothing_is_lost(
    config, url, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        failing(patch, "put_file", after=5)
        with pytest.raises(
            RunError, match="train_url .* cannot be written: Outage.* all files are in"
        ):
            loop.train(build(config, train_url=url), tmp_path / "run")
    loop.train(build(config, train_url=url), tmp_path / "run")  # no training is left
    assert files(url) == local_files(tmp_path / "run")


def test_a_remote_run_goes_on_from_a_copy_that_was_cut_short(config, url, tmp_path, monkeypatch):
    """The machine is lost while the last checkpoint is copied; another one resumes."""
    loop.train(build(config), tmp_path / "whole")
    first = tmp_path / "first"
    loop.train(build(config), first, home=url)
    storage, path = fsspec.core.url_to_fs(url)
    storage.rm_file(f"{path}/checkpoints/12/manifest.json")
    storage.rm_file(f"{path}/results.json")

    second = tmp_path / "second"
    loop.train(build(config), second, home=url)
    assert files(url) == local_files(second)
    untimed = [
        [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]
        for rows in (metrics.read_rows(x / "metrics.jsonl") for x in (tmp_path / "whole", second))
    ]
    assert untimed[0] == untimed[1]
    assert (second / "results.json").read_text() == (first / "results.json").read_text()


def test_a_local_copy_that_is_behind_is_not_gone_on_from(config, url, tmp_path):
    run = tmp_path / "run"
    loop.train(build(config), run, home=url)
    shutil.rmtree(run / "checkpoints/12")
    remote.Mirror(url, run, "--workdir").pull()
    assert (run / "checkpoints/12/manifest.json").exists()
    assert np.all([local_files(run)[name] == content for name, content in files(url).items()])
