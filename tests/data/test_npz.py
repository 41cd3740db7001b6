"""Tests the user's .npz files, and everything that can be wrong with one."""

import io
import zipfile

import numpy as np
import pytest

from ssljax.data import datasets
from ssljax.errors import UsageError


def arrays(**changes):
    """The arrays of a valid file: 6 grey images of 3 classes, 2 unlabelled and 2 test images."""
    pixels = np.arange(10 * 5 * 4).reshape(10, 5, 4).astype(np.uint8)
    return {
        "train_images": pixels[:6],
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "unlabeled_images": pixels[6:8],
        "test_images": pixels[8:],
        "test_labels": np.array([2, 0], np.uint8),
    } | changes


def write(path, **changes):
    np.savez(path, **{name: x for name, x in arrays(**changes).items() if x is not None})
    return str(path)


def test_the_arrays_are_the_files(tmp_path):
    data = datasets.npz(write(tmp_path / "a.npz"))
    good = arrays()
    np.testing.assert_array_equal(data.images[:6, ..., 0], good["train_images"])
    np.testing.assert_array_equal(data.images[6:, ..., 0], good["unlabeled_images"])
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, -1, -1]
    np.testing.assert_array_equal(data.test_images[..., 0], good["test_images"])
    assert data.test_labels.tolist() == [2, 0]
    assert data.num_classes == 3


SPELT = {  # as in MedMNIST, and other spellings
    "images": "train_images", "Labels": "train_labels", "unlabelled_images": "unlabeled_images",
    "images_val": "valid_images", "val_labels": "valid_labels", "TEST_images": "test_images",
    "labels_test": "test_labels",
}  # fmt: skip


def test_usual_spellings_are_read_and_what_is_passed_over_is_named(tmp_path, capsys):
    good = arrays(valid_images=arrays()["train_images"][:2], valid_labels=np.array([[2], [1]]))
    path = tmp_path / "a.npz"
    np.savez(path, ids=np.arange(3), **{name: good[ours] for name, ours in SPELT.items()})
    data = datasets.npz(str(path))
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, -1, -1, 2, 1]
    assert data.num_valid == 2
    np.testing.assert_array_equal(data.images[8:, ..., 0], good["valid_images"])
    assert data.test_labels.tolist() == [2, 0]
    assert f"warning: {path} has arrays that are not read: ids" in capsys.readouterr().out


def test_other_names_are_listed(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3), y_train=np.zeros(3))
    with pytest.raises(UsageError, match="no train_images; it has: x_train, y_train; allowed: tr"):
        datasets.npz(str(tmp_path / "a.npz"))


def test_only_the_training_arrays_are_needed(tmp_path):
    nothing = dict(unlabeled_images=None, test_images=None, test_labels=None)
    data = datasets.npz(write(tmp_path / "a.npz", **nothing))
    assert data.images.shape == (6, 5, 4, 1)
    assert data.test_images.shape == (0, 5, 4, 1)


BAD = [
    (dict(train_images=None), "has no train_images; it has: train_labels"),
    (dict(test_labels=None), "only one of test_images and test_labels"),
    (dict(train_labels=np.zeros(5, int)), r"train_labels is \[5\]; allowed: \[6\]"),
    (dict(test_labels=np.zeros(1, int)), r"test_labels is \[1\]; allowed: \[2\]"),
    (dict(train_labels=np.eye(6)), r"train_labels is \[6, 6\]; allowed: \[6\]"),
    (dict(train_labels=np.array([0, 1, -1, 0, 1, 2])), "train_labels holds -1; allowed: from 0"),
    (dict(test_labels=np.array([0, 3])), "test_labels holds 3; allowed: 0 to 2, the classes"),
    (dict(train_labels=np.array([0, 1, np.nan, 0, 1, 2])), "holds nan .* whole numbers"),
    (dict(train_labels=np.array([0, 1, np.inf, 0, 1, 2])), "holds inf .* whole numbers"),
    (dict(train_labels=np.array([0, 1, 1.5, 0, 1, 2])), "holds 1.5 .* whole numbers"),
    (dict(train_labels=np.array(list("abcabc"))), "holds a .* whole numbers"),
    (dict(train_labels=np.array([0, 1, 3, 0, 1, 3])), "no image of class 2 of 4"),
    (
        dict(train_labels=np.array([0, 1, 10**12, 0, 1, 2])),
        "no image of class 3 of 1,000,000,000,001",
    ),
    (dict(train_labels=np.array([0, 1, 2, 0, 1, 1e300])), r"train_labels holds 1e\+300"),
    (dict(valid_images=np.zeros((1, 5, 4), np.uint8)), "only one of valid_images and valid_labels"),
    (dict(train_images=np.zeros((6, 0, 4), np.uint8)), r"train_images is empty, \[6, 0, 4, 1\]"),
    (dict(train_images=np.zeros((6, 5, 4), np.float32)), r"float32 \[6, 5, 4, 1\]; allowed: uint8"),
    (dict(train_images=np.zeros((6, 5, 4, 2), np.uint8)), r"uint8 \[6, 5, 4, 2\]; allowed"),
    (dict(train_images=np.zeros((0, 5, 4), np.uint8)), "train_images is empty"),
    (dict(test_images=np.zeros((2, 8, 8), np.uint8)), r"allowed: images of \[5, 4, 1\]"),
    (dict(train_labels=np.array([0, 1, None, 0, 1, 2], object)), "without pickles: Object arrays"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_array_is_named(tmp_path, changes, message):
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(UsageError, match=message) as caught:
        datasets.npz(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 700, -30])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "a.npz"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="a.npz cannot be read as an .npz"):
        datasets.npz(str(path))


def huge():
    """An array that declares 30 TB but has 100 bytes."""
    file = io.BytesIO()
    shape = (10**9, 100, 100, 3)
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + bytes(100)


@pytest.mark.parametrize(
    ("member", "at", "value", "message"),
    [
        (huge(), 0, ord("P"), "train_images.npy declares 30,000.0 GB, but has 0.1 kB"),
        (b"", 8, 1, "is encrypted"),
        (b"", 10, 99, "compression method is not supported"),
    ],
    ids=["terabytes", "encrypted", "another compression"],
)
def test_an_archive_that_cannot_be_read_whole_is_refused_before(
    tmp_path, member, at, value, message
):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", member)
        archive.writestr("train_labels.npy", member)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\1\2") + at] = value  # in the directory at the end of the archive
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"a.npz cannot be read .*{message}"):
        datasets.npz(str(path))


def test_arrays_that_memory_does_not_hold_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz")
    monkeypatch.setattr("ssljax.data.memory.host_bytes", lambda: 100)
    with pytest.raises(UsageError, match="a.npz: 0.2 kB do not fit in memory, 0.1 kB"):
        datasets.npz(path)


def test_a_missing_file_and_another_format_are_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere.npz cannot be read .* No such file"):
        datasets.npz(str(tmp_path / "nowhere.npz"))
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UsageError, match="a.npy cannot be read as an .npz"):
        datasets.npz(str(tmp_path / "a.npy"))


def test_whole_floats_are_labels(tmp_path):
    labels = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    assert datasets.npz(write(tmp_path / "a.npz", train_labels=labels)).labels.dtype == np.int64
