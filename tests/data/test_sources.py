"""Tests the sources of images for prediction: folders, files, patterns, arrays."""

import struct
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from ssljax.data import sources
from ssljax.errors import UsageError


def load(source, position):
    """Returns the pixels of one image."""
    (loaded,) = source.batches(len(source.names))
    if position in loaded.problems:
        raise UsageError(loaded.problems[position])
    return loaded.images[list(loaded.positions).index(position)]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for i, name in enumerate(
        ["a b.png", "=f.png", 'quo"te,comma.png', "deep/er/ünï.png", "l\nb.png"]
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40 + 7 * i, 50, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def test_one_file_a_pattern_and_an_archive_are_sources(folder, tmp_path):
    shape = (8, 8, 3)
    assert sources.from_path(str(folder / "a b.png"), shape).names == ["a b.png"]
    assert sources.from_path(f"{folder}/**/ü*.png", shape).names == ["ünï.png"]
    assert len(sources.from_path(f"{folder}/*.png", shape).names) == 4
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.savez(tmp_path / "x.npz", images=pixels, labels=[1, 2])
    source = sources.from_path(str(tmp_path / "x.npz"), shape)
    assert source.names == ["0", "1"]
    np.testing.assert_array_equal(load(source, 1), pixels[1])


def test_a_photo_is_fitted_as_in_training(tmp_path):
    upright = np.zeros((30, 20, 3), np.uint8)
    upright[:15] = 200
    turned = Image.fromarray(upright).rotate(-90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 8  # the stored image must be rotated to the left
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    source = sources.from_path(str(tmp_path), (10, 10, 3))
    np.testing.assert_array_equal(load(source, 0), load(source, 1))
    assert load(source, 0)[0].min() == 200
    assert load(source, 0)[-1].max() == 0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "--images=.*nowhere: no image found; allowed: a folder"),
        ("empty", "--images=.*empty: no image found"),
        ("*.tiff", "no image found"),
        ("wrong.npz", r"uint8 \[3, 8, 8\]; allowed: uint8 \[N, 8, 8, 3\]"),
        ("none.npz", r"uint8 \[0, 8, 8, 3\]; allowed"),
        ("two.npz", "holds a, b; allowed: one array, or one called images"),
        ("damaged.npz", "cannot be read as an .npz"),
        ("pickled.npz", "cannot be read as an .npz without pickles"),
    ],
)
def test_what_is_no_source_is_one_line(where, message, tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "wrong.npz", images=np.zeros((3, 8, 8), np.uint8))
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.savez(tmp_path / "pickled.npz", images=np.array([{}], object))
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match=message):
        sources.from_path(str(tmp_path / where), (8, 8, 3))


def test_colours_do_not_fit_a_model_of_grey_images(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    Image.new("L", (8, 8), 100).save(tmp_path / "grey.png")
    source = sources.from_path(str(tmp_path), (8, 8, 1))
    assert load(source, 0).shape == (8, 8, 1)
    with pytest.raises(UsageError, match=r"red.png has colours; the model takes grey images"):
        load(source, 1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_a_batch_at_a_time(order, save, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 4), np.uint8)
    save(tmp_path / "grey.npz", np.asarray(pixels, order=order))
    source = sources.from_path(tmp_path / "grey.npz", (4, 4, 1))
    found = list(source.batches(3))
    assert [loaded.images.shape for loaded in found] == [(3, 4, 4, 1), (3, 4, 4, 1), (1, 4, 4, 1)]
    assert [name for loaded in found for name in loaded.names] == source.names == [*"0123456"]
    np.testing.assert_array_equal(np.concatenate([x.images for x in found])[..., 0], pixels)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_that_only_the_checksum_shows_is_named(save, tmp_path):
    path = tmp_path / "x.npz"
    save(path, images=np.zeros((9, 4, 4, 3), np.uint8))
    with zipfile.ZipFile(path) as archive:
        crc = archive.getinfo("images.npy").CRC
    damaged = path.read_bytes().replace(struct.pack("<L", crc), struct.pack("<L", crc ^ 1))
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match="x.npz cannot be read as an .npz .*CRC"):
        list(sources.from_path(path, (4, 4, 3)).batches(2))


def test_whoever_ends_early_waits_for_no_further_image(folder, monkeypatch):
    loaded = []

    def read(path):
        loaded.append(path)
        time.sleep(0.01 if len(loaded) > 100 else 0)
        return np.zeros((8, 8, 3), np.uint8), "RGB"

    monkeypatch.setattr(sources.images, "read", read)
    monkeypatch.setattr(sources, "_TOGETHER", 1)
    many = sources.of([folder / "a b.png"] * 5000, (8, 8, 3))
    batches = many.batches(100)
    assert next(batches).images.shape == (100, 8, 8, 3)
    batches.close()
    assert 100 <= len(loaded) < 180
