"""Tests that TensorFlow and Pillow decode the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ssljax.data import images


def picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4), np.uint8)
    return Image.fromarray(pixels).convert("RGB" if mode == "LA" else "RGBA").convert(mode)


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def deep():
    """Returns a PNG with 16 bits per channel, which Pillow cannot write, by doubling each byte."""
    from tensorflow import io as tf_io

    pixels = np.random.default_rng(0).integers(0, 65536, (7, 5, 3), np.uint16)
    return tf_io.encode_png(pixels).numpy()


def described():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    return text


FORMS = {  # -> whether TensorFlow decodes it directly
    "grey": (lambda: encoded(picture("L")), True),
    "grey and alpha": (lambda: encoded(picture("LA")), True),
    "black and white": (lambda: encoded(picture("1")), False),
    "colours": (lambda: encoded(picture()), True),
    "alpha": (lambda: encoded(picture("RGBA")), True),
    "a colour that is transparent": (lambda: encoded(picture(), transparency=(1, 2, 3)), True),
    "palette": (lambda: encoded(picture("P")), True),
    "palette and alpha": (lambda: encoded(picture("P"), transparency=bytes(range(200))), True),
    "interlaced": (lambda: encoded(picture(), interlace=1), True),
    "16 bits": (deep, False),
    "turned PNG": (lambda: encoded(picture(), exif=exif(8)), False),
    "described PNG": (lambda: encoded(picture(), pnginfo=described()), False),
    "several frames": (
        lambda: encoded(picture(), save_all=True, append_images=[picture().rotate(180)]), False
    ),
    "WebP": (lambda: encoded(picture("RGBA"), "WEBP", lossless=True), False),
    "BMP": (lambda: encoded(picture(), "BMP"), False),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tensorflow_reads_what_pillow_reads(form):
    import tensorflow as tf

    make, plain = FORMS[form]
    image = make()
    assert images.is_plain(image) == plain
    given = image if plain else images.as_bmp(image)
    found = tf.io.decode_image(given, channels=3, expand_animations=False).numpy()
    np.testing.assert_array_equal(found, images.decode(io.BytesIO(image))[0])


@pytest.mark.parametrize(
    ("image", "plain"),
    [
        (lambda: encoded(picture(), "JPEG"), True),
        (lambda: encoded(picture("L"), "JPEG", exif=exif(1)), True),
        (lambda: encoded(picture(), "JPEG", exif=exif(3)), False),
        (lambda: encoded(picture("CMYK"), "JPEG"), False),
        (lambda: b"", False),
        (lambda: b"no image", False),
    ],
)
def test_an_upright_jpeg_is_left_to_tensorflow(image, plain):
    assert images.is_plain(image()) == plain


def test_what_cannot_be_decoded_is_nothing():
    for damaged in (b"", b"no image", encoded(picture())[:60], b"%!PS-Adobe-3.0 EPSF-3.0"):
        assert images.as_bmp(damaged) == b""
