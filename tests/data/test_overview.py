"""Tests the table and the contact sheet."""

import json

import numpy as np
from PIL import Image

from ssljax import fonts
from ssljax.data import memory, overview
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.storage import files


def made():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((1, 64, 64, 3), 20, "u1")
    labels = np.array([0, 1] * 4 + [-1] * 4)
    data = Dataset(images, labels, images[:3], np.array([1, 1, 0]), 2, ("cat", "a long name"))
    return data, Split(np.array([0, 1, 3]), np.arange(12), np.array([6, 7]))


def test_the_table_counts_each_class():
    lines = overview.table(*made()).splitlines()
    cells = {line[:13].strip(): line[13:].split() for line in lines[:5]}
    assert cells["class"] == ["labelled", "unlabelled", "validation", "test"]
    assert cells["cat"] == ["1", "4", "1", "1"]
    assert cells["a long name"] == ["2", "4", "1", "2"]
    assert cells["without label"] == ["0", "4", "0", "0"]
    assert cells["total"] == ["3", "12", "2", "3"]
    assert lines[5].startswith("images: uint8 of 64×64×3; 147.5 kB on each device, 36.9 kB of test")
    assert lines[6] == f"split hash: {overview.fingerprint(made()[1])}"


def test_the_contact_sheet_has_a_row_for_each_class():
    sheet = np.asarray(overview.contact_sheet(*made()))
    assert sheet.shape[0] == 2 * 32
    left = sheet.shape[1] - 2 * 32  # two images in the longest row
    assert sheet[16, left + 16].tolist() == [0, 0, 0]  # image 0
    assert sheet[48, left + 16].tolist() == [20, 20, 20]  # image 1
    assert sheet[48, left + 48].tolist() == [60, 60, 60]  # image 3
    assert sheet[16, left + 48].tolist() == [255, 255, 255]
    assert sheet[:32, :left].min() < 100  # the name


def test_the_contact_sheet_shows_grey_images_too():
    data, split = made()
    grey = data._replace(images=data.images[..., :1])
    assert overview.contact_sheet(grey, split).size == overview.contact_sheet(data, split).size


def test_the_contact_sheet_of_very_many_classes_shows_the_first():
    data, split = made()
    many = data._replace(num_classes=9000, class_names=tuple(map(str, range(9000))))
    assert overview.contact_sheet(many, split).height == 1000 * 32


def test_bytes_have_the_unit_that_suits_them():
    assert [memory.describe(n) for n in (5, 184_320_000, 3_123_456_789)] == [
        "0.0 kB", "184.3 MB", "3.1 GB"
    ]  # fmt: skip


def test_the_contact_sheet_says_which_images_it_shows(tmp_path):
    data, split = made()
    named = data._replace(files=tuple(f"train/{i} ✈.jpg" for i in range(15)))
    files.write_picture(tmp_path / "labelled.png", overview.contact_sheet(named, split))
    with Image.open(tmp_path / "labelled.png") as picture:
        said = json.loads(picture.text["images"])
        assert said["left"] == picture.width - 2 * 32
    assert said["names"] == [["train/0 ✈.jpg"], ["train/1 ✈.jpg", "train/3 ✈.jpg"]]
    assert json.loads(overview.contact_sheet(data, split).info["images"])["names"] == [
        ["0"], ["1", "3"]
    ]  # fmt: skip


def test_a_name_that_the_font_cannot_write_is_a_number_on_the_contact_sheet():
    assert fonts.class_names(["✈", "日本", "é→", "犬"]) == ["✈", "class 1", "é→", "class 3"]
    data, split = made()
    sheets = [
        np.asarray(overview.contact_sheet(data._replace(class_names=names), split))
        for names in (("日本", "a long name"), ("class 0", "a long name"))
    ]
    np.testing.assert_array_equal(*sheets)
