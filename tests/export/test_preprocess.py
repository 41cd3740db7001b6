"""Tests that `preprocess.json` and the README of an export describe the same preprocessing, bit for
bit, as in training and `--mode=predict`."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.trained_models import model
from ssljax.data import images, sources
from ssljax.errors import UsageError
from ssljax.export import preprocess, readme
from ssljax.export.preprocess import Preprocess


def pixels(height, width):
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 4), np.uint8
    )


def picture(mode, height=41, width=67):
    """Returns a smooth picture, which JPEG changes little."""
    small = Image.fromarray(pixels(6, 8)[..., : 4 if mode in ("RGBA", "LA") else 3])
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


FILES = {
    "wide.png": lambda path: picture("RGB", 23, 150).save(path),
    "high.png": lambda path: picture("RGB", 95, 17).save(path),
    "small.png": lambda path: picture("RGB", 5, 7).save(path),
    "grey.png": lambda path: picture("L").save(path),
    "black and white.png": lambda path: picture("1").save(path),
    "alpha.png": lambda path: picture("RGBA").save(path),
    "grey, alpha.png": lambda path: picture("LA").save(path),
    "palette.png": lambda path: picture("P").save(path),
    "palette, alpha.png": lambda path: picture("P").save(path, transparency=bytes(range(200))),
    "one colour transparent.png": lambda path: picture("RGB").save(path, transparency=(1, 2, 3)),
    "palette.gif": lambda path: picture("P").save(path, transparency=7),
    "frames.gif": lambda path: picture("P").save(
        path, save_all=True, append_images=[picture("P").rotate(90)]
    ),
    "photo.jpg": lambda path: picture("RGB", 61, 90).save(path, quality=90),
    "grey.jpg": lambda path: picture("L").save(path),
    "cmyk.jpg": lambda path: picture("CMYK").save(path),
    **{
        f"turned {n}.{end}": lambda path, n=n: picture("RGB", 33, 80).save(path, exif=exif(n))
        for n in (3, 5, 6, 8)
        for end in ("jpg", "png", "webp")
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name, save in FILES.items():
        save(folder / name)
    return folder


def reader(known):
    """Returns the function in the README of an export."""
    code = preprocess.section(known).split("\n\n")[1:]
    lines = "\n\n".join(code).splitlines()
    assert all(line.startswith("    ") or not line for line in lines)
    names = {}
    exec("\n".join(line[4:] for line in lines), names)
    return names["read"]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", FILES)
def test_the_lines_of_pillow_do_what_training_does(name, dtype, folder):
    read = reader(Preprocess((16, 16, 3), dtype, False))
    trained_on = images.fit(images.read(folder / name)[0], 16)
    found = read(folder / name)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, trained_on)
    np.testing.assert_array_equal(found, predicted(folder / name, (16, 16, 3)))


def predicted(path, shape, stream=False):
    """Returns the input that `--mode=predict` passes to the model."""
    (loaded,) = sources.from_path(path, shape, stream=stream).batches(1)
    return loaded.images[0]


@pytest.mark.parametrize("name", ["wide.png", "photo.jpg", "turned 6.jpg"])
def test_a_plain_resize_would_not_do(name, folder):
    read = reader(Preprocess((16, 16, 3), "uint8", False))
    with Image.open(folder / name) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        plain = np.asarray(upright.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.abs(plain.astype(int) - read(folder / name)).max() > 10


@pytest.mark.parametrize("name", ["grey.png", "grey, alpha.png", "grey.jpg", "black and white.png"])
def test_a_model_of_grey_images_takes_one_channel(name, folder):
    found = reader(Preprocess((16, 16, 1), "uint8", False))(folder / name)
    assert found.shape == (16, 16, 1)
    np.testing.assert_array_equal(found, predicted(folder / name, (16, 16, 1)))
    np.testing.assert_array_equal(found, images.fit(images.read(folder / name)[0][..., :1], 16))


def test_images_that_are_refused_are_refused_in_both(folder, tmp_path):
    read = reader(Preprocess((16, 16, 1), "uint8", False))
    with pytest.raises(ValueError, match="has colours"):
        read(folder / "wide.png")
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UsageError, match="allowed: 8 bits per channel"):
        images.read(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        read(tmp_path / "deep.png")
    as_it_is = reader(Preprocess((23, 150, 3), "uint8", False))
    np.testing.assert_array_equal(
        as_it_is(folder / "wide.png"), predicted(folder / "wide.png", (23, 150, 3))
    )
    with pytest.raises(ValueError, match=r"has \(17, 95\) pixels"):
        as_it_is(folder / "high.png")


def test_a_stream_s_crops_are_tensorflow_s(folder):
    shape = (16, 16, 3)
    read = reader(Preprocess(shape, "uint8", True))
    source = sources.from_path(folder, shape, stream=True)
    (loaded,) = source.batches(len(FILES))
    assert not loaded.problems
    for name, image in zip(loaded.names, loaded.images, strict=True):
        np.testing.assert_array_equal(read(folder / name), image, err_msg=name)


@pytest.mark.parametrize("config", [{}, {"stream": True}, {"dataset": "imagenet128116.1"}])
@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16, 1), (20, 10, 3)])
def test_what_is_written_is_read(config, shape, tmp_path):
    recorded = {"model": "convnet", "method": "fixmatch", "dataset": "digits.1@40-0"} | config
    trained = dataclasses.replace(model("convnet")[0], image_shape=shape, config=recorded)
    known = preprocess.of(trained, "float32")
    assert known == Preprocess(shape, "float32", bool(config))
    (tmp_path / "preprocess.json").write_text(json.dumps(preprocess.record(known)))
    assert preprocess.read(tmp_path) == known
    text = readme.readme(trained, "onnx", known, ["model.onnx"], "passed")
    assert preprocess.lines(known).splitlines()[-1] in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": None}, "preprocess.json cannot be read: input is 'None'"),
        (
            {"input": {"dtype": "uint8", "shape": [8, 8]}},
            r"input.shape is \[8, 8\]; allowed: \[null",
        ),
        (
            {"input": {"dtype": "int8", "shape": [None, 8, 8, 3]}},
            "input.dtype is int8; allowed: uint8",
        ),
        ({"orientation": "none"}, "orientation is none; allowed: exif"),
        ({"fit": {"crop": "none"}}, "fit is {'crop': 'none'}; allowed: {'crop': 'central_square'"),
    ],
)
def test_what_this_version_does_not_do_is_refused(change, message, tmp_path):
    record = preprocess.record(Preprocess((8, 8, 3), "uint8", False))
    (tmp_path / "preprocess.json").write_text(json.dumps(record | change))
    with pytest.raises(UsageError, match=message):
        preprocess.read(tmp_path)
