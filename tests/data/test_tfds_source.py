"""Tests TFDS data sets: small ones under the real names, read by the code for the real ones."""

import hashlib
import io
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tfds_data import numbers, picture, prepare
from ssljax.data import datasets, image_index, tfds_source
from ssljax.errors import UsageError

tfds = pytest.importorskip("tensorflow_datasets")
SHARED = Path(__file__).parents[2].parent / "shared/data/tfds"


def with_id(split, labels, digits=5):
    return [
        {"id": f"{split}_{i:0{digits}}", "image": picture(i), "label": int(label)}
        for i, label in enumerate(labels)
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """cifar10, svhn_cropped, stl10 and a data set with images of several sizes."""
    data_dir = tmp_path_factory.mktemp("tfds")
    image, text = tfds.features.Image(shape=(32, 32, 3)), tfds.features.Text()
    names = [f"class {c}" for c in range(10)]
    prepare(
        data_dir, "cifar10", "3.0.2",
        {"id": text, "image": image, "label": tfds.features.ClassLabel(names=names)},
        {"train": with_id("train", np.arange(60) % 10), "test": with_id("test", [3, 1, 2])},
    )  # fmt: skip
    digits = tfds.features.ClassLabel(num_classes=10)
    prepare(
        data_dir, "svhn_cropped", "3.1.0", {"id": text, "image": image, "label": digits},
        {"train": with_id("train", np.arange(20) % 10, 6), "test": with_id("test", [0, 9, 1], 6),
         "extra": with_id("extra", [5] * 12, 6)},
    )  # fmt: skip

    def large(n, label):
        return [{"image": picture(i, 96), "label": label(i)} for i in range(n)]

    prepare(
        data_dir, "stl10", "1.0.0",
        {"image": tfds.features.Image(shape=(96, 96, 3)), "label": digits},
        {"train": large(50, lambda i: i % 10), "test": large(3, lambda i: i),
         "unlabelled": large(40, lambda i: -1)},
    )  # fmt: skip
    prepare(
        data_dir, "made_pets", "0.1.0", {"image": tfds.features.Image(), "label": digits},
        {"train": [{"image": np.full((9 + i, 12, 3), 9 * i, np.uint8), "label": i}
                   for i in range(10)],
         "validation": large(2, lambda i: i)},
    )  # fmt: skip
    return data_dir


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def test_cifar_is_in_the_order_of_its_ids(prepared):
    data = datasets.cifar10(str(prepared))
    assert numbers(data.images) == list(range(60))
    assert data.labels.tolist() == [i % 10 for i in range(60)]
    np.testing.assert_array_equal(data.images[7], picture(7))
    assert (numbers(data.test_images), data.test_labels.tolist()) == ([0, 1, 2], [3, 1, 2])
    assert data.class_names[2] == "class 2"
    assert data.images.dtype == np.uint8


def test_svhn_has_the_published_numbers_of_the_digits_and_extra_last(prepared):
    data = datasets.svhn(str(prepared))
    assert numbers(data.images) == [*range(20), *range(12)]
    # `labels -= 1` for labels 1..10, where 10 is the digit 0
    assert data.labels[:11].tolist() == [9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert data.test_labels.tolist() == [9, 8, 0]
    assert data.class_names == tuple("1234567890")
    assert numbers(datasets.svhn_noextra(str(prepared)).images) == list(range(20))


def test_stl10_is_in_original_order_without_ids_and_ends_with_images_without_labels(prepared):
    data = datasets.stl10(str(prepared))
    assert numbers(data.images) == [*range(50), *range(40)]
    assert data.labels.tolist() == [i % 10 for i in range(50)] + [-1] * 40
    assert numbers(data.test_images) == [0, 1, 2]


def test_the_order_of_keys_is_tfdss():
    # facts.md: the first record that TFDS reads from the real CIFAR-10 is train_16399.
    digests = [hashlib.md5(f"train{i}".encode()).hexdigest() for i in range(50000)]
    assert int(np.argmin(digests)) == 16399
    order = tfds_source._original_order("train", 50000, [], keyed_by_index=True)
    assert order[16399] == 0


def test_tfds_images_of_several_sizes_are_resized_and_tested_on_validation(prepared):
    data = datasets.tfds("made_pets", str(prepared), 16)
    assert data.images.shape == (10, 16, 16, 3)
    assert sorted(data.images[:, 8, 8, 0]) == [9 * i for i in range(10)]
    assert len(data.test_images) == 2
    with pytest.raises(
        UsageError, match=r"config.image_size is 0, .* made_pets have several sizes"
    ):
        datasets.tfds("made_pets", str(prepared), 0)


def test_the_second_read_needs_no_tfds(prepared, monkeypatch):
    first = datasets.cifar10(str(prepared))
    assert (prepared / "ssljax/cifar10_train_0.npz").exists()
    monkeypatch.setattr(tfds_source, "prepared", lambda *args: pytest.fail("read again"))
    for before, after in zip(first[:4], datasets.cifar10(str(prepared))[:4], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("damage", ["one byte", "half of it", "an empty file"])
def test_a_damaged_cache_is_rebuilt(prepared, damage, capsys):
    first = datasets.cifar10(str(prepared))
    path = prepared / "ssljax/cifar10_train_0.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {"one byte": content, "half of it": content[:90_000], "an empty file": b""}[damage]
    )
    np.testing.assert_array_equal(datasets.cifar10(str(prepared)).images, first.images)
    assert f"the cache {path} is damaged" in capsys.readouterr().out
    datasets.cifar10(str(prepared))
    assert "damaged" not in capsys.readouterr().out
    assert [p.name for p in path.parent.glob("*cifar10*")] == [path.name]


def test_other_prepared_files_make_the_cache_stale(prepared, tmp_path, monkeypatch):
    copied = shutil.copytree(prepared, tmp_path / "copy")
    datasets.cifar10(str(copied))
    file = next(copied.glob("cifar10/3.0.2/*train*"))
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(tfds_source, "prepared", lambda *args: pytest.raises(StopIteration))
    with pytest.raises(AttributeError):  # it was read again, and the source here is not a builder
        datasets.cifar10(str(copied))


def test_a_cache_goes_with_a_copy_of_the_folder(prepared, tmp_path, monkeypatch):
    first, (train, test, _) = (
        datasets.cifar10(str(prepared)), image_index.of_tfds("cifar10", str(prepared))
    )  # fmt: skip
    copied = tmp_path / "copy"
    shutil.copytree(prepared, copied, copy_function=shutil.copyfile)  # with new modification times
    copied.chmod(0o555)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    np.testing.assert_array_equal(datasets.cifar10(str(copied)).images, first.images)
    for here, there in zip(
        (train, test), image_index.of_tfds("cifar10", str(copied)), strict=False
    ):
        assert there.describe(0) == here.describe(0)
        assert there.files[0].startswith(str(copied))
        assert there.read(2) == here.read(2)


def test_a_read_only_folder_is_cached_at_the_users(prepared, tmp_path):
    beside = prepared / "ssljax/x.npz"
    assert tfds_source.cache_files(str(prepared), "x.npz") == [beside]
    prepared.chmod(0o555)
    try:
        first, last = tfds_source.cache_files(str(prepared), "x.npz")
    finally:
        prepared.chmod(0o755)
    assert first == beside  # the cache of a copy
    assert last.parent.parent == tmp_path / "xdg/ssljax"
    (remote,) = tfds_source.cache_files("gs://bucket/tfds", "x.npz")
    assert remote.parent.parent == last.parent.parent
    assert remote != last


UNUSUAL = {"train": [0, 2, 1, -1], "unlabelled": [3, 0], "test": [-1, -1, -1],
           "val": [2, -1, 0], "extra": [1]}  # fmt: skip


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    """A data set whose labels are plain integers, without labels in its split `test`."""
    data_dir = tmp_path_factory.mktemp("unusual")
    splits, number = {}, 0
    for split, labels in UNUSUAL.items():
        splits[split] = [{"image": picture(number + i), "label": y} for i, y in enumerate(labels)]
        number += len(labels)
    features = {"image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                "label": tfds.features.Scalar(np.int64)}  # fmt: skip
    prepare(data_dir, "unusual", "1.0.0", features, splits)
    return str(data_dir)


def test_labels_that_are_numbers_and_splits_of_other_names_are_read(unusual, capsys):
    data = datasets.tfds("unusual", unusual, 0)
    labels = dict(zip(numbers(data.images), data.labels.tolist(), strict=True))
    assert labels == {0: 0, 1: 2, 2: 1, 3: -1, 4: -1, 5: -1}
    assert dict(zip(numbers(data.test_images), data.test_labels, strict=True)) == {9: 2, 11: 0}
    assert data.class_names == ("0", "1", "2")
    note = "note: tfds:unusual has splits that are not read: extra, test (without labels)\n"
    assert capsys.readouterr().out == note

    train, test, classes = image_index.of_tfds("unusual", unusual)
    pixels = [np.asarray(Image.open(io.BytesIO(train.read(i)))) for i in range(6)]
    assert dict(zip(numbers(np.array(pixels)), train.labels.tolist(), strict=True)) == labels
    assert sorted(test.labels.tolist()) == [0, 2]
    assert classes == ["0", "1", "2"]
    assert capsys.readouterr().out == note


def test_a_missing_data_set_without_network_gets_one_line(tmp_path, monkeypatch):
    def no_network(*args):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(tfds_source, "getproxies", dict)
    with pytest.raises(UsageError, match=r"cifar100 is not in .* no network, .*toronto") as caught:
        datasets.cifar100(str(tmp_path))
    assert "tfds.load('cifar100', data_dir=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failing_download_gets_one_line(tmp_path, monkeypatch):
    def fail(self, **options):
        raise ConnectionError("two\nlines")

    monkeypatch.setattr(tfds_source, "_require_hosts", lambda builder: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UsageError, match="could not prepare it: ConnectionError: two lines. Prep"):
        datasets.cifar100(str(tmp_path))


@pytest.mark.parametrize("name", ["no_such_set", "cifar10:9.9.9", "cifar10/large"])
def test_an_unknown_tfds_name_gets_one_line(prepared, name):
    with pytest.raises(
        UsageError, match=f"config.dataset {name}: TFDS has no such data set"
    ) as caught:
        datasets.tfds(name, str(prepared), 0)
    assert "\n" not in str(caught.value)


def test_a_data_set_larger_than_memory_is_refused_with_its_size(prepared, monkeypatch):
    monkeypatch.setattr("ssljax.data.memory.host_bytes", lambda: 100_000)
    with pytest.raises(UsageError, match="cifar10: 184.3 kB do not fit in memory, 100.0 kB"):
        tfds_source.read("cifar10", None, data_dir=str(prepared), image_size=32)


def test_without_tensorflow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UsageError, match="cifar10 needs TensorFlow Datasets, .* pip install"):
        datasets.cifar10(str(tmp_path))


def test_data_modules_do_not_import_tensorflow():
    program = "import ssljax.data.load, sys; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


FOLD = np.concatenate([np.arange(100) * 10 + c for c in range(10)])


def test_stl10_folds_are_found_and_checked(tmp_path):
    from ssljax.data import stl10_folds

    labels = np.concatenate([np.arange(5000) % 10, np.full(50, -1)])
    with pytest.raises(UsageError, match=r"needs .*stl10_fold_indices.txt: .* fold_indices.txt of"):
        stl10_folds.read(1, data_dir=str(tmp_path), labels=labels)
    lines = [" ".join(map(str, FOLD + 10 * seed)) for seed in range(10)]
    extracted = tmp_path / "downloads/extracted/TAR_GZ.acoates_stl10_binaryX/stl10_binary"
    extracted.mkdir(parents=True)
    (extracted / "fold_indices.txt").write_text("\n".join(lines) + "\n")
    fold = stl10_folds.read(3, data_dir=str(tmp_path), labels=labels)
    np.testing.assert_array_equal(fold, FOLD + 30)
    with pytest.raises(UsageError, match="is its fold, 10; allowed: 0 to 9"):
        stl10_folds.read(10, data_dir=str(tmp_path), labels=labels)
    with pytest.raises(UsageError, match="another order than the published"):
        stl10_folds.read(3, data_dir=str(tmp_path), labels=np.sort(labels))
    (tmp_path / "stl10_fold_indices.txt").write_text("1 2\n")
    with pytest.raises(UsageError, match="holds no fold 3"):
        stl10_folds.read(3, data_dir=str(tmp_path), labels=labels)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared copy of CIFAR-10 beside the checkout")
@pytest.mark.slow
def test_the_shared_cifar10(tmp_path):
    data = datasets.cifar10(str(SHARED))
    assert data.images.shape == (50000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [5000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
