"""Tests that output directories are complete or unchanged, and other files are untouched."""

import json
import os
import subprocess

import pytest

from ssljax.errors import RunError, UsageError
from ssljax.storage import checksums, output_directory
from ssljax.storage.files import partial_path


def names(path):
    return sorted(p.name for p in path.iterdir())


def write(output, text="new", then=lambda: None, **options):
    with output_directory.replaced(output, **options) as partial:
        (partial / "model").write_text(text)
        then()


def fail(error):
    raise error


def test_neighbours_of_somebody_else_stay(tmp_path):
    for name in ("x.old", "x.partial", "x.failed", "x.failed-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    write(tmp_path / "x")
    write(tmp_path / "x", "newer", overwrite=True)
    assert (tmp_path / "x/model").read_text() == "newer"
    with (
        pytest.raises(RunError),
        output_directory.replaced(tmp_path / "x", overwrite=True) as partial,
    ):
        raise RunError(output_directory.put_aside(partial, tmp_path / "x"))
    assert names(tmp_path) == ["x", "x.failed", "x.failed-2", "x.failed-3", "x.old", "x.partial"]
    assert names(tmp_path / "x.failed-3") == []
    assert len(list(tmp_path.glob("x.*/precious"))) == 4


def test_what_a_kill_leaves_is_removed_by_the_next_one(tmp_path):
    """Killed while writing, and between the two renames that replace the output."""
    partial = partial_path(tmp_path / "x")
    (partial / "variables").mkdir(parents=True)
    (partial / "half").touch()
    write(tmp_path / "x")
    assert (names(tmp_path), names(tmp_path / "x")) == (["x"], ["model"])
    (tmp_path / "x").rename(partial.with_name(f"{partial.name}.old"))
    with pytest.raises(UsageError, match="x is not empty"):
        write(tmp_path / "x", "newer")
    assert (tmp_path / "x/model").read_text() == "new"
    write(tmp_path / "x", "newer", overwrite=True)
    assert (names(tmp_path), (tmp_path / "x/model").read_text()) == (["x"], "newer")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_changes_nothing(error, tmp_path):
    write(tmp_path / "x")
    with pytest.raises(error):
        write(tmp_path / "x", "newer", lambda: fail(error), overwrite=True)
    assert (names(tmp_path), (tmp_path / "x/model").read_text()) == (["x"], "new")


def test_two_at_once_do_not_mix(tmp_path):
    with output_directory.replaced(tmp_path / "x") as partial:
        (partial / "model").write_text("first")
        with pytest.raises(UsageError, match="x is in use: another process writes it"):
            write(tmp_path / "x", "second")
    assert (tmp_path / "x/model").read_text() == "first"


def test_files_that_came_meanwhile_stay(tmp_path):
    write(tmp_path / "y", "precious")
    with pytest.raises(UsageError, match="x is not empty"):
        write(tmp_path / "x", then=lambda: (tmp_path / "y").rename(tmp_path / "x"))
    assert (names(tmp_path), (tmp_path / "x/model").read_text()) == (["x"], "precious")


def test_a_link_is_followed_and_a_planted_one_is_not(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "x").symlink_to("disk")
    write(tmp_path / "x")
    assert names(tmp_path / "disk") == ["model"]
    partial_path(tmp_path / "y").symlink_to("disk")
    with pytest.raises(UsageError, match="y.ssljax.partial cannot be made"):
        write(tmp_path / "y")
    assert names(tmp_path / "disk") == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file.* cannot be made: Not a directory"):
        write(tmp_path / "file" / "x")
    with pytest.raises(RunError, match="x cannot be written: its disk is full. Nothing has"):
        write(tmp_path / "x", then=lambda: fail(OSError(28, os.strerror(28))))
    assert names(tmp_path) == ["file"]


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables/x y").write_text("1")
    (tmp_path / "manifest.json").write_text(json.dumps({}))
    checksums.seal(tmp_path)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "manifest.json: OK\nvariables/x y: OK\n"
    (tmp_path / "variables/x y").write_text("2")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1
