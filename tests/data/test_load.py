"""Tests names, conventions and split files on small user data sets."""

import json

import numpy as np
import pytest

from ssljax.data import datasets, split_file
from ssljax.data.load import labeled_validation, load
from ssljax.data.splits import Split, fingerprint
from ssljax.errors import UsageError


@pytest.fixture
def file(tmp_path):
    """30 labelled images of 3 classes, 20 without labels, no test images."""
    images = np.zeros((50, 8, 8, 3), np.uint8)
    path = tmp_path / "pets.npz"
    np.savez(path, train_images=images[:30], train_labels=np.arange(30) % 3,
             unlabeled_images=images[30:])  # fmt: skip
    return path


def test_a_name_composes_and_images_without_labels_come_last(file):
    _, split = load(f"npz:{file}.1@6-9", unlabeled="exclude_labeled")
    assert len(split.labeled) == 6
    assert split.valid.max() < 30
    assert split.unlabeled[-20:].tolist() == [*range(30, 50)]
    assert len(split.unlabeled) == 50 - 6 - 9


def test_all_takes_every_label(file):
    data, split = load(f"npz:{file}.1@all-3", unlabeled="all")
    assert split.labeled.tolist() == [*range(30)]
    assert len(split.unlabeled) == 47
    assert len(labeled_validation(data, split)) == 3


def test_strict_validation_images_are_never_labelled(file):
    _, loose = load(f"npz:{file}.0@6-9", unlabeled="all")
    _, strict = load(f"npz:{file}.0@6-9", unlabeled="strict")
    assert set(loose.valid) & set(loose.labeled)
    assert not set(strict.valid) & set(strict.labeled)
    assert sorted([*strict.unlabeled, *strict.valid]) == [*range(50)]


def test_balanced_labels_are_drawn_where_labels_are_drawn(tmp_path):
    path, images = tmp_path / "uneven.npz", np.zeros((30, 8, 8, 3), np.uint8)
    np.savez(path, train_images=images, train_labels=np.repeat([0, 1, 2], [20, 7, 3]))
    options = {"unlabeled": "strict", "labels_per_class": "balanced"}
    data, split = load(f"npz:{path}.1@11-4", **options)
    assert np.bincount(data.labels[split.labeled]).tolist() == [4, 4, 3]
    data, natural = load(f"npz:{path}.1@11-4", unlabeled="strict")
    assert np.bincount(data.labels[natural.labeled]).tolist() == [7, 3, 1]
    refused = "config.labels_per_class is 'balanced'; allowed: natural, as "
    for name, file, reason in (
        (f"npz:{path}.1@all-4", "", "config.dataset npz:.* takes every label"),
        (f"npz:{path}.1@11-4", "a.json", "the images of config.split_file are given"),
        ("imagenet128116.1", "", "the folds of imagenet are plain random ones"),
    ):
        with pytest.raises(UsageError, match=refused + reason):
            load(name, path=file, **options)


def test_published_sets_are_not_balanced_anew(tmp_path, monkeypatch):
    def stl10():
        labels = np.repeat(np.arange(10), 100)
        images = np.zeros((1000, 8, 8, 3), np.uint8)
        folds = {100: lambda seed: np.arange(0, 1000, 10)}
        names = tuple("0123456789")
        return datasets.Dataset(images, labels, images, labels, 10, names, folds=folds)

    monkeypatch.setattr(stl10, "__module__", datasets.__name__)
    monkeypatch.setattr(datasets, "stl10", stl10)
    options = {"unlabeled": "all", "labels_per_class": "balanced"}
    with pytest.raises(UsageError, match="natural, as stl10 has published sets of 100 labels"):
        load("stl10.1@100-0", **options)
    assert len(load("stl10.1@50-0", **options)[1].labeled) == 50


@pytest.mark.parametrize("unlabeled", ["exclude_labeled", "strict"])
def test_all_labels_and_a_validation_set(file, unlabeled):
    data, split = load(f"npz:{file}.1@all-7", unlabeled=unlabeled)
    assert sorted([*split.labeled, *split.valid]) == [*range(30)]
    assert np.bincount(data.labels[split.valid]).tolist() == [3, 2, 2]
    kept = 20 if unlabeled == "exclude_labeled" else 43
    assert len(split.unlabeled) == kept
    assert split.unlabeled[-20:].tolist() == [*range(30, 50)]
    with pytest.raises(
        ValueError, match="30 validation images .*; allowed with all labels: 0 to 29"
    ):
        load(f"npz:{file}.1@all-30", unlabeled=unlabeled)


def test_a_validation_on_what_is_trained_on_is_told(file, capsys):
    _, split = load(f"npz:{file}.1@all-7", unlabeled="all")
    assert set(split.valid) <= set(split.labeled)  # as in FixMatch
    assert "most validation images are labelled ones" in capsys.readouterr().out
    load(f"npz:{file}.1@6-9", unlabeled="all")
    assert capsys.readouterr().out == ""


def test_classes_without_a_label_are_named(file, capsys):
    load(f"npz:{file}.1@1-3", unlabeled="all")
    assert capsys.readouterr().out == (
        "warning: 2 of 3 classes have no labelled image and cannot be learned: 1, 2\n"
    )


def test_a_single_class_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((9, 8, 8), np.uint8),
             train_labels=np.zeros(9, int))  # fmt: skip
    with pytest.raises(UsageError, match="has one class, 0; allowed: from two classes up"):
        load(f"npz:{tmp_path}/a.npz.1@4-1", unlabeled="all")


def test_validation_images_without_labels_are_not_evaluated(file):
    data, split = load(f"npz:{file}.1@28-5", unlabeled="exclude_labeled")
    assert len(split.valid) == 5
    assert len(labeled_validation(data, split)) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("npz.1@4-1", "names 'npz'; allowed: npz:<…>"),
        ("npz:.1@4-1", "names 'npz:'; allowed: npz:<…>"),
        ("digits:x.1@4-1", "names 'digits:x'; allowed: digits"),
        ("mnist.1@4-1", "'mnist' does not exist; there are: cifar10, cifar100, cifar100_open20, "
                        "cifar100_open50, cifar100_open80, cifar10_open, digits, digits_open, "
                        "folder, npz, stl10, svhn, svhn_noextra, tfds; your own are"),
    ],
)  # fmt: skip
def test_a_bad_name_lists_what_there_is(name, message):
    with pytest.raises(UsageError, match=message):
        load(name, unlabeled="all")


def test_an_image_size_where_there_is_but_one_is_refused():
    with pytest.raises(UsageError, match="config.image_size is 9; allowed: 0, as digits has"):
        load("digits.1@40-100", unlabeled="all", image_size=9)


def test_own_validation_images_are_used_whole(tmp_path):
    from test_folder import write

    for name in ("a", "b"):
        for i in range(4):
            write(tmp_path / f"train/{name}/{i}.png")
        write(tmp_path / f"valid/{name}/0.png")
    data, split = load(f"folder:{tmp_path}.1@2-0", unlabeled="all")
    assert split.valid.tolist() == [8, 9]
    assert sorted(split.unlabeled) == [*range(8)]
    assert data.labels[split.valid].tolist() == [0, 1]
    with pytest.raises(UsageError, match="has 2 predefined ones; allowed: -0"):
        load(f"folder:{tmp_path}.1@2-1", unlabeled="all")


def write_split(path, **lists):
    split = dict(labeled=[5, 0, 1], unlabeled=[40, 2, 3], valid=[8]) | lists
    path.write_text(json.dumps(split))
    return str(path)


def test_a_split_file_decides(file, tmp_path):
    path = write_split(tmp_path / "split.json")
    data, split = load(f"npz:{file}.9@30-0", unlabeled="all", path=path)
    assert [part.tolist() for part in split] == [[5, 0, 1], [40, 2, 3], [8]]
    (tmp_path / "again.json").write_text(json.dumps(split_file.record(split, names=data.names())))
    again, _ = split_file.read(tmp_path / "again.json", data.labels, data.class_names, data.names())
    assert fingerprint(again) == fingerprint(split)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (dict(labeled=[0, 50]), "labeled has a number twice, or one outside 0 to 49"),
        (dict(labeled=[0, 0]), "labeled has a number twice"),
        (dict(valid=[-1]), "valid has a number twice, or one outside 0 to 49"),
        (dict(labeled=[0, 30]), "each must have a label"),
        (dict(labeled=[]), "labeled must name an image"),
        (dict(labeled=[0.5]), "labeled is not a list of whole numbers"),
        (dict(labeled=["a"]), "labeled is not a list of whole numbers"),
        (dict(labeled=[[0], [1]]), "labeled is not a list of whole numbers"),
        (dict(labeled=[[0], 1]), "cannot be read"),
        (dict(labeled=None), "cannot be read"),
        (dict(hash="0"), "were changed after its hash 0 was written"),
    ],
)
def test_a_bad_split_file_gets_one_line(file, tmp_path, lists, message):
    path = write_split(tmp_path / "split.json", **lists)
    with pytest.raises(UsageError, match=message) as caught:
        load(f"npz:{file}.1@6-1", unlabeled="all", path=path)
    assert f"config.split_file {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
def test_a_damaged_split_file_gets_one_line(file, tmp_path, content):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="config.split_file .* cannot be read"):
        load(f"npz:{file}.1@6-1", unlabeled="all", path=str(path))
    with pytest.raises(UsageError, match="config.split_file nowhere.json cannot be read"):
        load(f"npz:{file}.1@6-1", unlabeled="all", path="nowhere.json")


def test_the_record_is_the_split_and_its_hash():
    split = Split(np.array([1]), np.array([3, 2]), np.array([], int))
    assert split_file.record(split, names="abcd") == {
        "hash": fingerprint(split), "labeled": [1], "unlabeled": [3, 2], "valid": [],
        "names_hash": "f729ae0cbcc8241e",
    }  # fmt: skip


def test_a_file_for_other_images_is_refused(tmp_path):
    path = tmp_path / "split.json"
    split = Split(np.array([0]), np.array([3, 2]), np.array([1]))
    files = ["train/a/1.png", "train/b/1.png", "unlabeled/1.png", "unlabeled/2.png"]
    path.write_text(json.dumps(split_file.record(split, names=files)))
    labels = np.array([0, 1, -1, -1])
    found, _ = split_file.read(path, labels, ("a", "b"), files)
    assert found.valid.tolist() == [1]
    for others in (files[:3], [*files, "unlabeled/3.png"], [*files[:3], "unlabeled/3.png"]):
        known = labels[: len(others)]
        with pytest.raises(UsageError, match="written for other images: some were added, removed"):
            split_file.read(path, known, ("a", "b"), others)
    streamed = ["a/1.png", "b/1.png", "more/1.png", "more/2.png"]
    assert split_file.read(path, labels, ("a", "b"), streamed)[0].labeled.tolist() == [0]


def test_labels_that_people_gave_are_read_with_the_split(tmp_path):
    labels, names = np.array([0, 1, -1, -1]), ("cat", "dog")
    split = Split(np.array([0, 2]), np.array([0, 1, 2, 3]), np.array([1]))
    files = list("abcd")
    record = split_file.record(split, {2: "dog"}, parent="41d0", names=files)
    assert record["parent"] == "41d0"
    assert record["labels"] == {"2": "dog"}
    path = tmp_path / "split.json"
    path.write_text(json.dumps(record))
    found, added = split_file.read(path, labels, names, files)
    assert added == {2: "dog"}
    assert found.labeled.tolist() == [0, 2]

    path.write_text(json.dumps(record | {"labels": {"2": "cat"}}))
    with pytest.raises(UsageError, match="its labels were changed after its labels_hash"):
        split_file.read(path, labels, names, files)
    record.pop("labels_hash")
    for wrong in ({"4": "dog"}, {"2": "fox"}, {"-1": "dog"}):
        path.write_text(json.dumps(record | {"labels": wrong}))
        with pytest.raises(UsageError, match=r"labels has .*; allowed: images 0 to 3, and the cl"):
            split_file.read(path, labels, names, files)
    without = split_file.record(split, names=files)
    path.write_text(json.dumps(without))
    with pytest.raises(UsageError, match="each must have a label"):
        split_file.read(path, labels, names, files)
