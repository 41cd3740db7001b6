"""Tests folders of images generated here, and everything that can be wrong with one."""

import os

import numpy as np
import pytest
from PIL import Image

from ssljax.data import datasets, folder, images, overview
from ssljax.data.load import load
from ssljax.errors import UsageError


def write(path, level=0, size=(12, 10), mode="RGB"):
    """Writes an image file with one grey level; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (level, 0, 255 - level)).convert(mode)
    image.save(path)
    return path


@pytest.fixture
def pets(tmp_path):
    """Two classes of three images, two unlabelled ones, one for validation and two for testing."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(3):
            write(tmp_path / f"train/{name}/{i}.png", 100 * c + i)
        write(tmp_path / f"test/{name}/0.bmp", 200 + c)
    write(tmp_path / "unlabeled/deep/down/b.png", 51)
    write(tmp_path / "unlabeled/a.png", 50)
    write(tmp_path / "valid/dog/0.png", 150)
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_paths(pets):
    data = datasets.folder(str(pets), 0)
    assert data.images.shape == (9, 10, 12, 3)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102, 50, 51, 150]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, 1]
    assert data.num_valid == 1
    assert data.test_images[:, 0, 0, 0].tolist() == [200, 201]
    assert data.test_labels.tolist() == [0, 1]
    assert data.class_names == ("cat", "dog")


def test_images_of_any_size_become_squares(pets):
    write(pets / "train/cat/3.jpg", 90, size=(31, 17))
    data = datasets.folder(str(pets), 8)
    assert data.images.shape == (10, 8, 8, 3)
    assert abs(int(data.images[3, 4, 4, 0]) - 90) < 4  # JPEG


def test_resizing_keeps_the_middle_and_the_proportions():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255  # the middle third is a square
    assert images.fit(image, 5).min() > 200
    assert images.fit(image[..., :1], 5).shape == (5, 5, 1)


def test_several_sizes_need_an_image_size(pets):
    odd = write(pets / "unlabeled/odd.png", size=(7, 7))
    with pytest.raises(UsageError, match=f"config.image_size is 0, but {odd} has 7×7 pixels and"):
        datasets.folder(str(pets), 0)


def test_grey_files_have_one_channel(tmp_path):
    write(tmp_path / "train/a/0.png", 77, mode="L")
    write(tmp_path / "train/b/0.png", 78, mode="1")
    assert datasets.folder(str(tmp_path), 0).images.shape == (2, 10, 12, 1)


def test_mixed_channels_become_rgb_with_a_warning_that_counts(pets, capsys):
    write(pets / "train/cat/grey.png", mode="L")
    write(pets / "test/cat/clear.png", mode="RGBA")
    assert datasets.folder(str(pets), 0).images.shape[-1] == 3
    assert "warning: 2 of 13 images were converted to RGB" in capsys.readouterr().out


def test_a_photograph_is_turned_upright(tmp_path):
    picture = Image.new("RGB", (4, 2))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotated by 90°
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert images.read(tmp_path / "a.jpg")[0].shape == (4, 2, 3)


def test_usual_spellings_of_the_parts_are_read(pets, capsys):
    usual = datasets.folder(str(pets), 0)
    for part, other in (
        ("train", "Training"), ("unlabeled", "unlabelled"), ("valid", "val"), ("test", "TEST")
    ):  # fmt: skip
        (pets / part).rename(pets / other)
    assert_same(datasets.folder(str(pets), 0), usual)
    (pets / "val").rename(pets / "validation")
    assert_same(datasets.folder(str(pets), 0), usual)
    assert capsys.readouterr().out == ""
    write(pets / "unlabeled/c.png", 52)  # the spelling used here, beside another one
    assert len(datasets.folder(str(pets), 0).images) == 8
    assert f"{pets} has entries that are not read: unlabelled\n" in capsys.readouterr().out


def assert_same(found, expected):
    for a, b in zip(found[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    found, expected = found._replace(files=()), expected._replace(files=())
    assert found[4:] == expected[4:]


LITTER = (
    "labels.csv", "extra/0.png", ".git/0.png", "train/Thumbs.db", "train/.DS_Store",
    "train/.ipynb_checkpoints/0.png", "train/@eaDir/cat/0.png", "train/cat/notes.txt",
    "train/cat/sheet.pdf", "train/cat/.0.png", "train/cat/figure.eps", "unlabeled/film.mpg",
)  # fmt: skip


def test_what_is_passed_over_is_named_in_one_line(pets, capsys):
    usual = datasets.folder(str(pets), 0)
    (pets / "test/emu").mkdir()
    os.mkfifo(pets / "train/cat/pipe.png")
    for name in LITTER:
        (pets / name).parent.mkdir(parents=True, exist_ok=True)
        (pets / name).write_bytes(b"x")
    assert_same(datasets.folder(str(pets), 0), usual)
    assert capsys.readouterr().out == (
        f"warning: {pets} has entries that are not read: extra, labels.csv, .git, test/emu, "
        "train/Thumbs.db, … (of 14)\n"
    )


def test_a_class_that_is_called_as_a_part_is_read_with_a_warning(pets, capsys):
    write(pets / "train/unlabelled/0.png")
    assert datasets.folder(str(pets), 0).num_classes == 3
    says = capsys.readouterr().out
    assert f"{pets}/train/unlabelled is read as a class" in says
    assert f"move it to {pets}/unlabeled\n" in says


CAFE = ("caf\u00e9", "cafe\u0301")  # é as one character, and as e and a combining accent


def test_both_forms_of_unicode_are_one_class(tmp_path):
    for form, (part, level) in zip((*CAFE, CAFE[1]), (("train", 1), ("train", 2), ("test", 3)),
                                   strict=True):  # fmt: skip
        write(tmp_path / part / form / "0.png", level)
    write(tmp_path / "train/dog/0.png", 4)
    data = datasets.folder(str(tmp_path), 0)
    assert len(data.class_names) == 2
    assert sorted(data.images[data.labels == 0, 0, 0, 0]) == [1, 2]
    assert data.test_labels.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9", "caf\\xe9"), (b"a\nb", "a\\nb"), (b"\x1b[31m", "\\x1b[31m"), (b"$_$", "$_$")],
)
def test_names_that_no_line_holds_are_escaped(tmp_path, name, shown, capsys):
    for other in (b"dog", name):
        write(tmp_path / "train" / os.fsdecode(other) / "0.png")
    (tmp_path / "train" / os.fsdecode(name) / "notes.txt").touch()
    data, split = load(f"folder:{tmp_path}.0@all-1", unlabeled="all")
    assert sorted(data.class_names) == sorted(("dog", shown))
    says = capsys.readouterr().out
    assert f"{tmp_path} has entries that are not read: train/{shown}/notes.txt\n" in says
    assert shown in overview.table(data, split)
    assert overview.contact_sheet(data, split).height == 2 * 32


def damage(pets, what):
    """Introduces one error into the folder."""
    cat = pets / "train/cat"
    if what == "unreadable":
        (cat / "9.png").write_bytes(b"no image")
    elif what == "truncated":
        path = cat / "0.png"
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif what == "16 bits":
        Image.fromarray(np.full((10, 12), 40000, np.uint16)).save(cat / "9.png")
    elif what == "missing":
        (cat / "9.png").symlink_to(pets / "nowhere.png")
    elif what == "loop":
        (pets / "unlabeled/deep/again").symlink_to(pets / "unlabeled")
    elif what == "link to itself":
        (cat / "9.png").symlink_to(cat / "9.png")
    elif what == "empty class":
        (pets / "train/emu").mkdir()
        (pets / "train/emu/a.heic").touch()
    elif what == "only in test":
        write(pets / "test/emu/0.png")
    elif what == "only in valid":
        write(pets / "valid/emu/0.png")
    elif what == "no class":
        write(pets / "train/0.png")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unreadable", r"image .*train/cat/9.png cannot be read: cannot identify"),
        ("truncated", r"image .*train/cat/0.png cannot be read: .*truncated"),
        ("16 bits", r"image .*train/cat/9.png cannot be read: .* mode I;16; allowed: 8 bits"),
        ("missing", r"train/cat/9.png is a link that leads to no file"),
        ("loop", r"unlabeled/deep/again is a symlink loop: it leads back to .*unlabeled"),
        ("link to itself", r"train/cat/9.png is a link that leads to no file"),
        ("empty class", r"train/emu has no images, which every class needs; it has: a.heic$"),
        ("only in test", r"test/emu is a class that train does not have; allowed: cat, dog"),
        ("only in valid", r"valid/emu is a class that train does not have; allowed: cat, dog"),
        ("no class", r"train/0.png is not in a class folder"),
    ],
)
def test_a_bad_folder_gets_one_line(pets, what, message):
    damage(pets, what)
    with pytest.raises(UsageError, match=message) as caught:
        folder.read(pets, image_size=8)
    assert "\n" not in str(caught.value)


def test_a_folder_without_train_or_classes_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="there is no folder .*train"):
        datasets.folder(str(tmp_path), 0)
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="train has no classes"):
        datasets.folder(str(tmp_path), 0)


def test_a_linked_folder_that_is_no_loop_is_followed(pets, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write(other / "c.png", 52)
    (pets / "unlabeled/other").symlink_to(other)
    assert len(datasets.folder(str(pets), 0).images) == 10


def test_more_images_than_fit_in_memory_are_refused_with_their_size(pets, monkeypatch):
    monkeypatch.setattr("ssljax.data.memory.host_bytes", lambda: 2000)
    with pytest.raises(UsageError, match="11 images: 4.0 kB do not fit in memory, 2.0 kB"):
        datasets.folder(str(pets), 0)
