"""Tests every operation against Pillow, image by image, with different parameters per image."""

import functools
import itertools
import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ssljax.augment import ops
from ssljax.augment.resample import RESCALE_METHODS, rescale
from ssljax.data.datasets import digits

SIZES = [(32, 32, 3), (31, 45, 3), (28, 20, 1), (224, 224, 3)]
# Pillow's float32 blend differs by one level if its compiler fuses multiply and add (Arm).
BLEND_TOLERANCE = 0 if platform.machine().lower() in ("x86_64", "amd64") else 1

# Magnitudes of CIFAR's RandAugment (L in 1..9), ImageNet's (k/10, k in 0..10) and CTAugment (v).
L, K, V = np.arange(1, 10), np.arange(11) / 10, np.array([0, 0.07, 0.5, 0.93, 1])
FACTORS = [*(0.18 * L + 0.1), *(1.8 * K + 0.1), *(0.1 + 1.9 * V), 0, 1]
BLENDS = [*V, 0.3]
SHEARS = [*(0.03 * L), *(-0.3 * K), *((2 * V - 1) * 0.3)]
PIXELS = [*L, *-L, *(100 * K), *((2 * V - 1) * 0.3), 2.4]
DEGREES = [*(3 * L), *(-30 * K), *np.round((2 * V - 1) * 45), 12.3, 90, 180, -270]


@pytest.fixture(autouse=True)
def no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@functools.cache
def natural(height, width, channels):
    """uint8 [N, H, W, C]: noise, gradients, a digit, few levels, narrow ranges, constants."""
    rng = np.random.default_rng(0)
    shape = (height, width, channels)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    y, x, c = np.indices(shape)
    gradient = 255 * (x / width + y / height * (c + 1) / channels) / 2
    textured = np.clip(gradient + rng.normal(0, 12, shape), 0, 255)
    digit = Image.fromarray(digits().images[3, :, :, 0])
    digit = np.asarray(digit.resize((width, height), Image.Resampling.BICUBIC))
    digit = np.repeat(digit[:, :, None], channels, axis=2) // (c + 1)
    few = rng.choice(np.array([3, 90, 91, 200], np.uint8), shape, p=[0.1, 0.5, 0.3, 0.1])
    narrow = 100 + noise // 16 * (c + 1) // 2
    constants = [np.full(shape, level) for level in (0, 77, 255)]
    images = [noise, textured] if height > 100 else [noise, textured, gradient, digit, few, narrow]
    return np.stack([image.astype(np.uint8) for image in (*images, *constants[: 9 - len(images)])])


def to_pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def batch(size, *magnitudes):
    """Combines all images with all magnitudes: images [B, H, W, C] and one [B] array per list."""
    images = natural(*size)
    if size[0] > 100:  # two large images suffice, with some of the magnitudes
        images, magnitudes = images[:2], [values[::3] for values in magnitudes]
    pairs = list(itertools.product(range(len(images)), zip(*magnitudes, strict=True)))
    if not magnitudes:
        return (images,)
    return images[[i for i, _ in pairs]], *map(np.array, zip(*(m for _, m in pairs), strict=True))


def differences(ours, theirs, images, *parameters):
    """Returns |ours - Pillow's|, [B, H, W, C]. Pillow gets the parameters as rounded by JAX."""
    parameters = [np.asarray(jnp.asarray(p)) for p in parameters]
    expected = [
        np.asarray(theirs(to_pillow(image), *(p[i].item() for p in parameters)))
        for i, image in enumerate(images)
    ]
    result = jax.jit(ours)(images, *parameters)
    assert result.dtype == jnp.uint8
    return np.abs(np.asarray(result).astype(int) - np.stack(expected).reshape(images.shape))


def affine(image, *coefficients, fill=0, method="nearest"):
    resample = getattr(Image.Resampling, method.upper())
    fill = (fill,) * len(image.getbands())
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=fill
    )


def solarize_add(image, amount, threshold=128):
    table = [min(255, max(0, v + amount)) if v < threshold else v for v in range(256)]
    return image.point(table * len(image.getbands()))


def posterize(image, bits):
    if bits == 0:  # rejected by Pillow 13 and newer, black before
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)


def enhance(name):
    return lambda image, factor: getattr(ImageEnhance, name)(image).enhance(factor)


def blended(theirs):
    return lambda image, level: Image.blend(image, theirs(image), level)


def blended_lookup(table):
    def ours(images, level):
        identity = ops.identity_table(images.shape[0], images.shape[3])
        return ops.lookup(images, ops.blend(identity, table(images), level))

    return ours


# name: (ours, Pillow's, magnitudes, tolerance)
LEVELS = {
    "autocontrast": (ops.autocontrast, ImageOps.autocontrast, [], 0),
    "equalize": (ops.equalize, ImageOps.equalize, [], 0),
    "invert": (ops.invert, ImageOps.invert, [], 0),
    "posterize": (ops.posterize, posterize, [range(9)], 0),
    "solarize": (ops.solarize, ImageOps.solarize, [[0, 1, 26, 77, 128, 231, 255, 256]], 0),
    "solarize_add": (ops.solarize_add, solarize_add, [[0, 11, 77, 110, 200, -50]], 0),
    "solarize_add at": (ops.solarize_add, solarize_add, [[110, 33], [200, 0]], 0),
    "brightness": (ops.brightness, enhance("Brightness"), [FACTORS], BLEND_TOLERANCE),
    "contrast": (ops.contrast, enhance("Contrast"), [FACTORS], BLEND_TOLERANCE),
    **{
        f"blended {name}": (
            blended_lookup(getattr(ops, f"{name}_table")),
            blended(getattr(ImageOps, name)),
            [BLENDS],
            BLEND_TOLERANCE,
        )
        for name in ("autocontrast", "equalize", "invert")
    },
}
FILTERS = {
    "sharpness": (ops.sharpness, enhance("Sharpness"), [FACTORS], BLEND_TOLERANCE),
    "color": (ops.color, enhance("Color"), [FACTORS], BLEND_TOLERANCE),
    "blur": (ops.blur, lambda image: image.filter(ImageFilter.BLUR), [], 0),
    "smooth": (ops.smooth, lambda image: image.filter(ImageFilter.SMOOTH), [], 0),
    "blended blur": (
        lambda images, level: ops.filter_blend(images, ops.BLUR, level),
        blended(lambda image: image.filter(ImageFilter.BLUR)),
        [BLENDS],
        BLEND_TOLERANCE,
    ),
    "blended smooth": (
        lambda images, level: ops.filter_blend(images, ops.SMOOTH, level),
        blended(lambda image: image.filter(ImageFilter.SMOOTH)),
        [BLENDS],
        BLEND_TOLERANCE,
    ),
}


@pytest.mark.parametrize("size", [SIZES[0], *SIZES[2:]], ids=str)
@pytest.mark.parametrize("name", LEVELS)
def test_changes_of_levels_equal_pillows(name, size):
    ours, theirs, magnitudes, tolerance = LEVELS[name]
    assert differences(ours, theirs, *batch(size, *magnitudes)).max() <= tolerance


@pytest.mark.parametrize("size", [*SIZES, (4, 3, 1), (2, 2, 3), (5, 5, 3)], ids=str)
@pytest.mark.parametrize("name", FILTERS)
def test_filters_equal_pillows(name, size):
    ours, theirs, magnitudes, tolerance = FILTERS[name]
    assert differences(ours, theirs, *batch(size, *magnitudes)).max() <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LEVELS, *FILTERS])
def test_operations_equal_pillows_on_cifar_10(cifar10, name):
    ours, theirs, magnitudes, tolerance = (LEVELS | FILTERS)[name]
    count = np.prod([len(values) for values in magnitudes[:1]], dtype=int)
    images = np.repeat(cifar10.test_images[:64], count, axis=0)
    values = [np.tile(values, 64) for values in magnitudes]
    assert differences(ours, theirs, images, *values).max() <= tolerance


def test_autocontrast_rounds_as_pillow_does():
    # Rounding errors of Pillow's doubles make the top level 254 or 255.
    low, high = np.array(list(itertools.combinations(range(256), 2))[::11]).T[:, :, None]
    images = np.clip(np.arange(256), low, high).astype(np.uint8)[:, None, :, None]
    assert differences(ops.autocontrast, ImageOps.autocontrast, images).max() == 0


def test_histogram_equals_pillows():
    images = natural(28, 20, 3)
    expected = np.stack([to_pillow(image).histogram() for image in images]).reshape(-1, 3, 256)
    np.testing.assert_array_equal(jax.jit(ops.histogram)(images), expected)


def rotation(degrees, height, width):
    """Returns Image.rotate's matrix, in doubles."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


# name: (ours, Pillow's, its matrix, magnitudes)
WARPS = {
    "rotate": (ops.rotate, lambda image, d: image.rotate(d), rotation, DEGREES),
    **{
        ours.__name__: (
            ours,
            lambda image, v, matrix=matrix: affine(image, *matrix(v, 0, 0)),
            matrix,
            magnitudes,
        )
        for ours, matrix, magnitudes in (
            (ops.shear_x, lambda s, h, w: (1, s, 0, 0, 1, 0), SHEARS),
            (ops.shear_y, lambda s, h, w: (1, 0, 0, s, 1, 0), SHEARS),
            (ops.translate_x, lambda p, h, w: (1, 0, p, 0, 1, 0), PIXELS),
            (ops.translate_y, lambda p, h, w: (1, 0, 0, 0, 1, p), PIXELS),
        )
    },
}


def border_distance(matrices, height, width):
    """Returns [B, H, W]: distance of an output pixel's source to the nearest pixel border.

    matrices: float64 [B, 6]. Sources are stepped as in Pillow, by multiples of 1/65536 pixels.
    """
    y, x = np.indices((height, width))
    distance = np.inf
    for a, b, c in (np.split(matrices[:, :3], 3, 1), np.split(matrices[:, 3:], 3, 1)):
        steps = [np.floor(v * 65536 + 0.5)[..., None] for v in (a, b, c + a / 2 + b / 2)]
        source = (steps[0] * x + steps[1] * y + steps[2]) / 65536
        distance = np.minimum(distance, np.abs(source - np.round(source)))
    return distance


def assert_equal_off_borders(difference, matrices, tolerance=0):
    off = border_distance(matrices, *difference.shape[1:3]) > 1e-4
    assert difference[off].max() <= tolerance
    assert off.mean() > 0.99
    assert (difference > tolerance).mean() < 1e-4


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", WARPS)
def test_warps_equal_pillows(name, size):
    ours, theirs, matrix, magnitudes = WARPS[name]
    images, values = batch(size, np.asarray(magnitudes, np.float32))
    matrices = np.array([matrix(np.float64(v), *size[:2]) for v in values])
    assert_equal_off_borders(differences(ours, theirs, images, values), matrices)


@pytest.mark.slow
@pytest.mark.parametrize("name", WARPS)
def test_warps_equal_pillows_on_cifar_10(cifar10, name):
    ours, theirs, matrix, magnitudes = WARPS[name]
    values = np.tile(np.asarray(magnitudes, np.float32), 64)
    images = np.repeat(cifar10.test_images[:64], len(magnitudes), axis=0)
    matrices = np.array([matrix(np.float64(v), 32, 32) for v in values])
    assert_equal_off_borders(differences(ours, theirs, images, values), matrices)


@pytest.mark.parametrize("method", ops.WARP_METHODS)
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_warp_takes_any_matrix_fill_and_method(size, method):
    rng = np.random.default_rng(1)
    matrices = rng.normal([1, 0, 0, 0, 1, 0], [0.3, 0.3, 5, 0.3, 0.3, 5], (12, 6))
    matrices = matrices.astype(np.float32)
    images, *coefficients = batch(size, *matrices.T)
    difference = differences(
        lambda images, *c: ops.warp(images, jnp.stack(c, axis=1), fill=128, method=method),
        functools.partial(affine, fill=128, method=method),
        images,
        *coefficients,
    )
    matrices = np.stack(coefficients, axis=1).astype(np.float64)
    assert_equal_off_borders(difference, matrices, tolerance=0 if method == "nearest" else 1)


def test_an_interpolated_shift_of_whole_pixels_is_exact():
    images, pixels = batch((31, 45, 3), [-3.0, 0.0, 7.0])
    translate = jax.jit(ops.translate_y, static_argnames=("fill", "method"))
    for method in ("bilinear", "bicubic"):
        np.testing.assert_array_equal(
            translate(images, pixels, fill=9, method=method), translate(images, pixels, fill=9)
        )


@pytest.mark.parametrize("method", RESCALE_METHODS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rescale_is_within_two_levels_of_pillows(size, method):
    height, width, _ = size

    def theirs(image, scale, index):
        assert index == RESCALE_METHODS.index(method)
        crop = 0.25 * scale
        box = (crop * width, crop * height, width * (1 - crop), height * (1 - crop))
        resample = getattr(Image.Resampling, method.upper())
        return image.crop(box).resize(image.size, resample)

    scales = np.array([0, 0.03, 0.2, 0.37, 0.5, 0.71, 0.98, 1])
    methods = np.full(len(scales), RESCALE_METHODS.index(method))
    images, scales, methods = batch(size, scales, methods)
    difference = differences(rescale, theirs, images, scales, methods)
    assert difference.max(where=~on_borders(scales, height, width), initial=0) <= (
        0 if method in ("box", "nearest") else 2
    )
    assert np.median(difference) == 0
    assert (difference > 0).mean() < 0.05


def on_borders(scales, height, width):
    """Returns [B, H, W, 1]: whether a source is on a pixel border, where both sides are right."""

    def sources(size):
        cropped = np.round(scales * size / 4), np.round((1 - scales / 4) * size)
        return (2 * np.arange(size) + 1) * (cropped[1] - cropped[0])[:, None] / (2 * size)

    rows, columns = (np.abs(x - np.round(x)) < 1e-4 for x in (sources(height), sources(width)))
    return (rows[:, :, None] | columns[:, None, :])[..., None]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_flip_equals_pillows(size):
    images, on = batch(size, [True, False])
    difference = differences(
        ops.flip, lambda image, on: ImageOps.mirror(image) if on else image, images, on
    )
    assert difference.max() == 0


@pytest.mark.parametrize(("size", "pad"), [((32, 32, 3), 4), ((28, 20, 1), 12), ((5, 4, 3), 3)])
def test_shift_equals_reflection_and_crop(size, pad):
    images, rows, columns = batch(size, [0, pad, 2 * pad, 1, 2], [0, pad, 2 * pad, 2, pad])
    offset = jnp.stack([rows, columns], axis=1)
    shifted = np.asarray(jax.jit(ops.shift, static_argnums=1)(images, pad, offset))
    for image, row, column, ours in zip(images, rows, columns, shifted, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(ours, padded[row : row + size[0], column : column + size[1]])


@pytest.mark.parametrize(("size", "options"), [(SIZES[1], {}), (SIZES[2], {"fill": 9})], ids=str)
def test_cutout_equals_a_pasted_square(size, options):
    fill = options.get("fill", 127)

    def theirs(image, side, row, column):
        left, top = column - side // 2, row - side // 2
        image = image.copy()
        image.paste((fill,) * len(image.getbands()), (left, top, left + side, top + side))
        return image

    def ours(images, side, rows, columns):
        return ops.cutout(images, side, jnp.stack([rows, columns], axis=1), **options)

    sides, rows, columns = [16, 16, 16, 7, 1, 0], [0, 27, 11, 9, 5, 3], [19, 0, 7, 12, 3, 4]
    assert differences(ours, theirs, *batch(size, sides, rows, columns)).max() == 0


@pytest.mark.parametrize("level", [0, 0.3, 0.7, 1, 1.9, -0.4])
def test_blend_equals_pillows(level):
    # Every pair of levels. Products such as 0.1 · 100 would reveal an unrounded product.
    a, b = (v.astype(np.uint8)[None, :, :, None] for v in np.indices((256, 256)))
    expected = Image.blend(to_pillow(a[0]), to_pillow(b[0]), float(np.float32(level)))
    ours = jax.jit(ops.blend)(a, b, level)[0, :, :, 0]
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(expected)).max() <= BLEND_TOLERANCE


# Every operation with parameters for N images.
N = 6
UNIT = jnp.linspace(-0.9, 0.8, N)
CORNERS = jnp.stack([jnp.arange(N), jnp.arange(N) + 2], axis=1)
OPERATIONS = {
    "autocontrast": (ops.autocontrast,),
    "equalize": (ops.equalize,),
    "invert": (ops.invert,),
    "posterize": (ops.posterize, jnp.arange(N)),
    "solarize": (ops.solarize, jnp.arange(N) * 50),
    "solarize_add": (ops.solarize_add, jnp.arange(N) * 20, jnp.arange(N) * 40),
    "brightness": (ops.brightness, 1 + UNIT),
    "contrast": (ops.contrast, 1 + UNIT),
    "color": (ops.color, 1 + UNIT),
    "sharpness": (ops.sharpness, 1 + UNIT),
    "blur": (ops.blur,),
    "smooth": (ops.smooth,),
    "filter_blend": (ops.filter_blend, jnp.arange(N) % 5, 1 + UNIT),
    "rotate": (ops.rotate, 45 * UNIT),
    "shear_x": (ops.shear_x, 0.3 * UNIT),
    "shear_y": (ops.shear_y, 0.3 * UNIT),
    "translate_x": (ops.translate_x, 9 * UNIT),
    "translate_y": (ops.translate_y, 9 * UNIT),
    "rescale": (rescale, jnp.abs(UNIT), jnp.arange(N)),
    "cutout": (ops.cutout, jnp.arange(N) + 3, CORNERS),
    "flip": (ops.flip, UNIT > 0),
    "shift": (lambda images, offset: ops.shift(images, 4, offset), CORNERS),
    "blend": (lambda images, level: ops.blend(images, images[:, ::-1], level), 1 + UNIT),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_image_depends_on_neither_its_batch_nor_the_transformation(name):
    operation, *parameters = OPERATIONS[name]
    images = natural(31, 45, 3)[:N]
    result = np.asarray(jax.jit(operation)(images, *parameters))
    assert (result != images).any()

    others = images.copy()
    others[::2] = 255 - images[1::2]
    np.testing.assert_array_equal(jax.jit(operation)(others, *parameters)[1::2], result[1::2])
    backwards = jax.jit(operation)(images[::-1], *(p[::-1] for p in parameters))
    np.testing.assert_array_equal(backwards[::-1], result)

    pairs = [jnp.reshape(x, (N // 2, 2, *x.shape[1:])) for x in (images, *parameters)]
    mapped = jax.jit(jax.vmap(operation))(*pairs)
    np.testing.assert_array_equal(mapped.reshape(images.shape), result)


def test_kernels_leave_an_image_alone_where_told_to():
    images = natural(31, 45, 3)
    size = len(images)
    unchanged = (
        jax.jit(ops.warp)(images, ops.identity_matrix(size)),
        jax.jit(ops.lookup)(images, ops.identity_table(size, 3)),
        jax.jit(ops.filter_blend)(images, ops.IDENTITY, jnp.linspace(-1.0, 2.0, size)),
    )
    for result in unchanged:
        np.testing.assert_array_equal(result, images)


def test_kernels_mix_operations_in_a_batch():
    images = jnp.asarray(natural(31, 45, 3)[:5])
    factors = jnp.array([3, 1.9, 1, 1, 0.1])
    first = (jnp.arange(5) == 0)[:, None]

    def mixed(images):
        rotate = ops.rotate_matrix(jnp.full(5, 20.0), 31, 45)
        invert, solarize = ops.invert_table(images), ops.solarize_table(images, 99)
        return (
            ops.warp(images, jnp.where(first, rotate, ops.identity_matrix(5))),
            ops.lookup(images, jnp.where(first[..., None], invert, solarize)),
            ops.filter_blend(images, jnp.arange(5), factors),
        )

    def one_by_one(images):
        sharp, color = ops.sharpness(images, 1.9)[1], ops.color(images, 0.1)[4]
        return (
            images.at[0].set(ops.rotate(images, 20)[0]),
            ops.solarize(images, 99).at[0].set(255 - images[0]),
            jnp.stack([images[0], sharp, ops.blur(images)[2], ops.smooth(images)[3], color]),
        )

    jax.tree.map(np.testing.assert_array_equal, jax.jit(mixed)(images), jax.jit(one_by_one)(images))


IMAGES = jnp.zeros((2, 8, 9, 3), jnp.uint8)
POINTS = jnp.zeros((2, 2), jnp.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.equalize(IMAGES.astype(jnp.float32)), r"images: .*uint8.*got float32"),
        (lambda: ops.blur(IMAGES[0]), r"images: .*got uint8 \[8, 9, 3\]"),
        (lambda: ops.flip(IMAGES[..., :2], True), r"images: .*1 or 3"),
        (lambda: ops.rotate(IMAGES, jnp.zeros(3)), r"degrees: .*\[2\], got \[3\]"),
        (lambda: ops.posterize(IMAGES, jnp.zeros((2, 1))), r"bits: .*got \[2, 1\]"),
        (lambda: ops.warp(IMAGES, jnp.zeros((2, 5))), r"matrix: expected \[2, 6\], got \[2, 5\]"),
        (lambda: ops.rotate(IMAGES, 1, method="cubic"), r"method: .*'bicubic'.*got 'cubic'"),
        (lambda: ops.rotate(IMAGES, 1, fill=256), r"fill: expected .*0..255, got 256"),
        (lambda: ops.cutout(IMAGES, 2, POINTS, fill=-1), r"fill: .*got -1"),
        (lambda: ops.cutout(IMAGES, 2, POINTS * 1.0), r"centre: expected integers \[2, 2\]"),
        (lambda: ops.shift(IMAGES, 8, POINTS), r"pad: expected 0..7 pixels, got 8"),
        (lambda: ops.shift(IMAGES, 2, POINTS[:1]), r"offset: .*got int32 \[1, 2\]"),
        (lambda: ops.lookup(IMAGES, ops.identity_table(2, 1)), r"table: .*\[2, 3, 256\]"),
        (lambda: ops.blend(IMAGES, IMAGES[:, 1:], 0.5), r"a, b: expected uint8"),
        (lambda: rescale(IMAGES, jnp.zeros(3), 0), r"scale: .*got \[3\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
