"""The published policies one image at a time with Pillow: what the batched ones are compared with.

Written from the published definitions, apart from the recipes in `ssljax.augment`: the tests find
that both give the same pixels, and `benchmarks/augment.py` that both do the same work. All
operations are given what was drawn, so nothing here is random.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Operation = Callable[[Image.Image], Image.Image]
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}
FILTERS = (
    Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR,
    Image.Resampling.BOX, Image.Resampling.HAMMING, Image.Resampling.NEAREST,
)  # fmt: skip


def weak(image: np.ndarray, *, flip: bool, offset: tuple[int, int], pad: int) -> np.ndarray:
    """Mirror, reflect-pad and crop; image uint8 [H, W, C]."""
    image = image[:, ::-1] if flip else image
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    return padded[offset[0] :, offset[1] :][: image.shape[0], : image.shape[1]]


def affine(image: Image.Image, *coefficients: float, fill: int = 0) -> Image.Image:
    """`Image.transform(AFFINE)`."""
    fill_color = (fill,) * len(image.getbands())
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=fill_color)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """`ImageOps.posterize`, black at 0 bits, which Pillow 13 refuses."""
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def geometry(image: Image.Image, name: str, amount: float, fill: int) -> Image.Image:
    """Rotate, shear_x, shear_y, translate_x or translate_y."""
    if name == "rotate":
        return image.rotate(amount, fillcolor=(fill,) * len(image.getbands()))
    coefficients = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount),
    }[name]
    return affine(image, *coefficients, fill=fill)


def solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """Adds amount to the levels below 128."""
    table = [min(255, v + amount) if v < 128 else v for v in range(256)]
    return image.point(table * len(image.getbands()))


def paint_square(image: np.ndarray, size: int, centre: Sequence[int], level: int) -> np.ndarray:
    """Cutout of 2 · (size // 2) pixels around the centre, clipped at the border."""
    image, half = image.copy(), size // 2
    rows, columns = (slice(max(0, c - half), c + half) for c in centre)
    image[rows, columns] = level
    return image


def randaugment_cifar(
    image: np.ndarray, ops: Sequence[tuple[str, int, bool]], centre: Sequence[int]
) -> np.ndarray:
    """fixmatch's "rac": ops of (name, L in 1..9, negated), then Cutout 16.

    Images are RGBA inside; what is transparent in the end becomes grey.
    """
    picture = Image.fromarray(image).convert("RGBA")
    for name, level, negated in ops:
        picture = _randaugment_cifar_op(picture, name, level, -1 if negated else 1)
    result = np.asarray(picture)
    result = np.where(result[..., 3:] == 0, np.uint8(127), result[..., :3])
    return paint_square(result, 16, centre, 127)


def _randaugment_cifar_op(image: Image.Image, name: str, level: int, sign: int) -> Image.Image:
    if name == "identity":
        return image
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(level * 1.8 / 10 + 0.1)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        most = {"rotate": 30, "shear_x": 0.3, "shear_y": 0.3}.get(name, 10)
        amount = level * most / 10 if "shear" in name else int(level * most / 10)
        return geometry(image, name, sign * amount, fill=0)
    operations: dict[str, Operation] = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "posterize": lambda x: posterize(x, 4 - int(level * 4 / 10)),
        "solarize": lambda x: ImageOps.solarize(x, 256 - int(level * 256 / 10)),
    }
    return operations[name](image.convert("RGB")).convert("RGBA")


def randaugment_imagenet(image: np.ndarray, ops: Sequence[tuple[str, int, bool]]) -> np.ndarray:
    """fixmatch's ImageNet RandAugment: ops of (name, k in 0..10, negated)."""
    picture = Image.fromarray(image)
    for name, k, negated in ops:
        picture = _randaugment_imagenet_op(picture, name, k / 10, -1 if negated else 1)
    return np.asarray(picture)


def _randaugment_imagenet_op(image: Image.Image, name: str, v: float, sign: int) -> Image.Image:
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(v * 1.8 + 0.1)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        most = {"rotate": 30, "shear_x": 0.3, "shear_y": 0.3}.get(name, 100)
        return geometry(image, name, sign * v * most, fill=128)
    operations: dict[str, Operation] = {
        "identity": lambda x: x,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "posterize": lambda x: posterize(x, int(v * 4)),
        "solarize": lambda x: ImageOps.solarize(x, min(int(v * 256), 255)),
        "solarize_add": lambda x: solarize_add(x, int(v * 110)),
    }
    return operations[name](image)


def ctaugment_cifar(
    image: np.ndarray, ops: Sequence[tuple[str, Sequence[float], Sequence[int]]]
) -> np.ndarray:
    """fixmatch's CTAugment: ops of (name, levels in [0, 1), centre, which Cutout alone uses)."""
    picture = Image.fromarray(image)
    for name, (v, second), centre in ops:
        if name == "cutout":
            size = 1 + int(v * min(picture.size) * 0.499)
            picture = Image.fromarray(paint_square(np.asarray(picture), size, centre, 127))
        else:
            picture = _ctaugment_cifar_op(picture, name, v, second)
    return np.asarray(picture)


def _ctaugment_cifar_op(image: Image.Image, name: str, v: float, second: float) -> Image.Image:
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(0.1 + 1.9 * v)
    if name == "rotate":
        return image.rotate(int(np.round((2 * v - 1) * 45)))
    if name in ("shear_x", "shear_y", "translate_x", "translate_y"):
        return geometry(image, name, (2 * v - 1) * 0.3, fill=0)
    if name == "rescale":
        width, height = image.size
        crop = 0.25 * v
        box = (crop * width, crop * height, width * (1 - crop), height * (1 - crop))
        return image.crop(box).resize(image.size, FILTERS[int(second * 5.99)])
    blended: dict[str, Operation] = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "blur": lambda x: x.filter(ImageFilter.BLUR),
        "smooth": lambda x: x.filter(ImageFilter.SMOOTH),
    }
    if name in blended:
        return Image.blend(image, blended[name](image), v)
    operations: dict[str, Operation] = {
        "identity": lambda x: x,
        "posterize": lambda x: posterize(x, 1 + int(v * 7.999)),
        "solarize": lambda x: ImageOps.solarize(x, int(v * 255.999)),
    }
    return operations[name](image)


def randaugment_usb(
    image: np.ndarray,
    ops: Sequence[tuple[str, float, float, float]],
    corner: Sequence[float],
    size: float,
) -> np.ndarray:
    """USB's RandAugment: ops of (name, low, high, share of the range), then its Cutout.

    Args:
      corner, size: what `random` draws of the Cutout, in [0, 1).
    """
    picture = Image.fromarray(image)
    for name, low, high, share in ops:
        picture = _randaugment_usb_op(picture, name, low + (high - low) * share)
    width, height = picture.size
    side = size * 0.5 * width
    # np.random.uniform(w) is from w to 1.
    x0, y0 = (
        int(max(0, n + (1 - n) * u - side / 2))
        for n, u in zip((width, height), corner, strict=True)
    )
    box = (x0, y0, min(width, x0 + side), min(height, y0 + side))
    ImageDraw.Draw(picture).rectangle(box, (125, 123, 114))
    return np.asarray(picture)


def _randaugment_usb_op(image: Image.Image, name: str, v: float) -> Image.Image:
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(v)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        pixels = {"translate_x": image.size[0], "translate_y": image.size[1]}.get(name, 1)
        return geometry(image, name, v * pixels, fill=0)
    operations: dict[str, Operation] = {
        "identity": lambda x: x,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "posterize": lambda x: ImageOps.posterize(x, max(1, int(v))),
        "solarize": lambda x: x.point([i if i < v else 255 - i for i in range(256)] * 3),
    }
    return operations[name](image).copy()


def simclr(
    image: np.ndarray,
    box: Sequence[int],
    *,
    flip: bool,
    jitters: Sequence[tuple[str, float]],
    grey: bool,
) -> np.ndarray:
    """SimCLR's view by torchvision's functions on Pillow's images.

    Args:
      box: top, height, left, width of the crop.
      jitters: (brightness, contrast, color or hue; its factor), in their order.
    """
    top, height, left, width = box
    picture = Image.fromarray(image).crop((left, top, left + width, top + height))
    picture = picture.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR)
    picture = ImageOps.mirror(picture) if flip else picture
    for name, factor in jitters:
        picture = (
            adjust_hue(picture, factor)
            if name == "hue"
            else ENHANCERS[name](picture).enhance(factor)
        )
    if grey:
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture)


def adjust_hue(image: Image.Image, factor: float) -> Image.Image:
    """`torchvision.transforms._functional_pil.adjust_hue`."""
    h, s, v = image.convert("HSV").split()
    turned = np.array(h, dtype=np.uint8)
    with np.errstate(over="ignore"):
        turned += np.int32(factor * 255).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned, "L"), s, v)).convert("RGB")


def randaugment_comatch(
    image: np.ndarray, ops: Sequence[tuple[str, bool]], centre: Sequence[int]
) -> np.ndarray:
    """CoMatch's RandomAugment(2, 10) with Pillow's pixels: ops of (name, negated), then Cutout."""
    picture = Image.fromarray(image)
    for name, negated in ops:
        picture = _randaugment_comatch_op(picture, name, -1 if negated else 1)
    return paint_square(np.asarray(picture), 16, centre, 128)


def _randaugment_comatch_op(image: Image.Image, name: str, sign: int) -> Image.Image:
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(1.9)
    grey, bilinear = (128, 128, 128), Image.Resampling.BILINEAR
    if name == "rotate":
        return image.rotate(sign * 30, bilinear, fillcolor=grey)
    moves = {
        "shear_x": (1, 0.3 * sign, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * sign, 1, 0),
        "translate_x": (1, 0, 10 * sign, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 10 * sign),
    }
    if name in moves:
        affine = Image.Transform.AFFINE
        return image.transform(image.size, affine, moves[name], bilinear, fillcolor=grey)
    operations: dict[str, Operation] = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "posterize": lambda x: ImageOps.posterize(x, 4),
    }
    return operations[name](image) if name in operations else image  # solarize is from 256 up
