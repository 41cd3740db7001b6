"""Tests files that are written atomically, and whose later changes are detected."""

import errno
import os
import threading

import pytest

from ssljax.errors import RunError, UsageError
from ssljax.storage import files

VALUE = {"lr": 0.03, "names": ["cat", "dög"], "steps": 1200}


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    files.write_text(path, "old")
    with files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(TypeError), files.replacing(path) as file:
        file.writelines([b"half", None])
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_what_a_kill_leaves_is_used_again_and_is_no_link(tmp_path):
    partial = files.partial_path(tmp_path / "a")
    partial.write_text("a long half of a file")
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    (tmp_path / "precious").write_text("precious")
    partial.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        files.write_text(tmp_path / "a", "newer")
    assert (tmp_path / "precious").read_text() == "precious"


def test_two_writers_wait_for_each_other(tmp_path):
    path = tmp_path / "a"

    def write(letter):
        for _ in range(8):
            files.write_text(path, letter * 100_000)
            found.append(path.read_text())

    found = []
    threads = [threading.Thread(target=write, args=letter) for letter in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    assert {*found} <= {letter * 100_000 for letter in "xyz"}
    assert names(tmp_path) == ["a"]


def flips(content):
    """Yields `content` with one bit of each byte changed, and truncated."""
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1 << i % 8
        yield bytes(changed)
        yield content[:i]


@pytest.mark.parametrize("damaged", ["a.json", files.SUMS])
def test_no_damage_is_read_as_something_else(damaged, tmp_path):
    files.write_sealed(tmp_path / "b.json", {})
    files.write_sealed(tmp_path / "a.json", VALUE)
    content, messages = (tmp_path / damaged).read_bytes(), []
    for changed in flips(content):
        (tmp_path / damaged).write_bytes(changed)
        try:
            assert files.read_json(tmp_path / "a.json") == VALUE
        except UsageError as error:
            messages.append(str(error))
    assert len(messages) >= (2 * len(content) if damaged == "a.json" else 10)
    assert all("a.json" in message and "\n" not in message for message in messages)


def test_a_file_that_was_changed_on_purpose_can_be_told_of_or_accepted(tmp_path):
    files.write_sealed(tmp_path / "a.json", {"seed": 1})
    (tmp_path / "a.json").write_text('{"seed": 2}')
    with pytest.raises(UsageError, match=r"a.json has changed since .* remove its line from SHA"):
        files.read_json(tmp_path / "a.json")
    told = []
    assert files.read_json(tmp_path / "a.json", told.append) == {"seed": 2}
    assert told == [f"{tmp_path}/a.json has changed since it was written"]
    (tmp_path / files.SUMS).unlink()  # as in directories of older versions
    assert files.read_json(tmp_path / "a.json") == {"seed": 2}


def test_a_kill_between_the_sums_and_the_file_leaves_a_version_that_is_known(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_sealed(path, {"seed": 1})
    write_bytes = files.write_bytes

    def killed(at, content):
        if at == path:
            raise KeyboardInterrupt
        write_bytes(at, content)

    for seed in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_bytes", killed)
            with pytest.raises(KeyboardInterrupt):
                files.write_sealed(path, {"seed": seed})
        assert files.read_json(path) == {"seed": 1}
    files.write_sealed(path, {"seed": 4})
    assert files.read_json(path) == {"seed": 4}


def test_sums_of_two_writers_are_both_there(tmp_path):
    def write(letter):
        for seed in range(6):
            files.write_sealed(tmp_path / f"{letter}.json", {"seed": seed})

    threads = [threading.Thread(target=write, args=letter) for letter in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for letter in "xyz":
        assert files.read_json(tmp_path / f"{letter}.json") == {"seed": 5}
    assert {*files.recorded_sums(tmp_path)} == {"x.json", "y.json", "z.json"}


@pytest.mark.parametrize("content", [b"[]", b"null", b"5", b"[" * 100_000, b"\xff", b"", b"{"])
def test_what_holds_no_object_is_refused(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"a.json cannot be read"):
        files.read_json(tmp_path / "a.json")


def error_of(number, *names):
    return OSError(number, os.strerror(number), *map(str, names))


def test_what_the_system_refuses_is_one_line(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "data"
    for error, message in (
        (error_of(errno.ENOSPC), "its disk is full. The previous checkpoint is intact"),
        (RuntimeError("UNKNOWN: No space left on device [w]"), "its disk is full"),
        (error_of(errno.EROFS, run / "lock"), "run/lock: Read-only file system"),
        (error_of(errno.EACCES, files.partial_path(run)), "Permission denied"),
        (error_of(errno.EIO), "Input/output error"),
    ):
        with (
            pytest.raises(RunError, match=f"run cannot be written: .*{message}"),
            files.telling_of_storage(run),
        ):
            raise error
    with pytest.raises(FileNotFoundError), files.telling_of_storage(run):
        raise error_of(errno.ENOENT, elsewhere)
    with pytest.raises(UsageError), files.telling_of_storage(run):
        raise UsageError("x") from error_of(errno.EROFS, run)
