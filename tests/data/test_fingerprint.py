"""Tests fingerprints of data; `run/test_run_directory.py` tests their use."""

import json

import numpy as np

from ssljax.data import datasets, fingerprint, image_index, splits, streaming


def test_the_record_of_the_digits():
    assert json.loads(json.dumps(fingerprint.record(datasets.digits()))) == {
        "image_shape": [8, 8, 1],
        "class_names": list("0123456789"),
        "fingerprint": {"train": "a3e3e6587953579b", "test": "94ec480d5d2f724d"},
    }


def test_order_and_memory_layout(monkeypatch):
    data = datasets.digits()
    monkeypatch.setattr(fingerprint, "_ROWS", 100)
    fortran = data._replace(images=np.asfortranarray(data.images), labels=data.labels[:])
    assert fingerprint.record(fortran) == fingerprint.record(data)
    reversed_ = data._replace(images=data.images[::-1], labels=data.labels[::-1])
    assert (
        fingerprint.record(reversed_)["fingerprint"]["train"]
        != (fingerprint.record(data)["fingerprint"]["train"])
    )


def test_of_a_stream_names_sizes_and_labels_count(tmp_path):
    def prints(*files):
        index = image_index.of_files([(tmp_path / name, c) for name, c in files])
        data = streaming.StreamedDataset(index, index, 2, ("a", "b"), 16)
        return fingerprint.record(data)["fingerprint"]["train"]

    first = prints(("x.png", 0), ("y.png", 1))
    assert first == prints(("x.png", 0), ("y.png", 1))
    assert len({first, prints(("x.png", 1), ("y.png", 0)), prints(("z.png", 0), ("y.png", 1))}) == 3


def test_a_name_without_its_place():
    for name, expected in (
        ("folder:/v.3@home/pets.1@4-0", "folder:.1@4-0"),
        ("npz:a.npz.2@all-5", "npz:.2@all-5"),
        ("tfds:pets.1@4-0", "tfds:pets.1@4-0"),
        ("cifar10.3@250-0", "cifar10.3@250-0"),
        ("imagenet128116.1", "imagenet128116.1"),
    ):
        assert splits.without_place(name) == expected


def test_seeds_count_up_in_the_name_alone():
    for name, expected in (
        ("folder:/v.3@home/pets.1@4-0", "folder:/v.3@home/pets.3@4-0"),
        ("digits.9@all-5", "digits.11@all-5"),
        ("imagenet128116.1", "imagenet128116.1"),
    ):
        assert splits.with_later_seed(name, 2) == expected
