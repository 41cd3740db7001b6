import os

import pytest

from ssljax import paths
from ssljax.errors import UsageError


def test_the_home_directory_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.expand("~/runs", "--workdir") == "/home/me/runs"
    assert paths.expand("a/~/b", "--workdir") == "a/~/b"
    assert paths.expand("gs://bucket/~", "--workdir") == "gs://bucket/~"


@pytest.mark.parametrize("path", ["~/runs", "~nobody_of_this_name/runs"])
def test_without_a_home_directory_the_field_is_named(path, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as if $HOME were not set
    with pytest.raises(UsageError, match=f"--workdir is {path}, but no such home directory"):
        paths.expand(path, "--workdir")


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place, reason in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file/below/it", "is a file"),
        ("/proc/nowhere/run", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(UsageError, match=f"--output {place} cannot be made.*{reason}"):
            paths.require_writable(place, "--output")
    monkeypatch.chdir(tmp_path)
    for place in (".", "new/er", tmp_path):
        paths.require_writable(place, "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
