import jax
import numpy as np
import pytest

from ssljax.augment import augmentation, contact_sheet, policies

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("strong", "rows", "columns"),
    [
        (augmentation.none, 0, 10),
        (augmentation.strong_digits, 7, 10),
        (augmentation.randaugment, 14, 10),
        (augmentation.ctaugment, 19, 17),
    ],
)
def test_views_and_operations_side_by_side(strong, rows, columns):
    chosen = strong(policies.weak_cifar, "cifar")
    sheet = contact_sheet.draw(jax.random.PRNGKey(0), IMAGES, chosen)
    side = 3 * 20 + 4  # enlarged to at least 48 pixels, and a gap
    assert sheet.shape == (16 + (2 + rows) * side, 96 + columns * side, 3)
    original = sheet[16:76:3, 96:156:3]
    np.testing.assert_array_equal(original, IMAGES[0])
    assert (sheet[16 + side - 4 : 16 + side, 96:] == 255).all()  # the gap


def test_one_channel_is_shown_in_grey():
    chosen = augmentation.none(policies.none, "cifar")
    sheet = contact_sheet.draw(jax.random.PRNGKey(0), IMAGES[..., :1], chosen)
    np.testing.assert_array_equal(sheet[16:76:3, 96:156:3], IMAGES[0, ..., :1].repeat(3, axis=2))


def test_each_image_of_an_operation_has_the_value_of_its_parameter(monkeypatch):
    written = {}

    def write_on(canvas, corner, text):
        written[corner] = text

    monkeypatch.setattr(contact_sheet, "_write_on", write_on)
    chosen = augmentation.randaugment(policies.weak_cifar, "cifar")
    contact_sheet.draw(jax.random.PRNGKey(0), IMAGES, chosen)
    side = 3 * 20 + 4
    rows = {}
    for (left, bottom), text in sorted(written.items()):
        rows.setdefault((bottom - 16 + 4) // side - 3, []).append(((left - 96) // side, text))
    # FixMatch's levels 1..9: degrees, the threshold, and no value of what has no parameter.
    names = sorted(chosen.magnitudes())  # as the rows are
    assert rows[names.index("rotate")] == [(k, str(3 * (k + 1))) for k in range(9)]
    assert [text for _, text in rows[names.index("solarize")]][:3] == ["231", "205", "180"]
    assert {names[i] for i in range(len(names)) if i not in rows} == {
        "autocontrast", "equalize", "identity"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strong", "name", "first", "last"),
    [
        (augmentation.strong_digits, "rotate", -20, 20),
        (augmentation.strong_digits, "contrast", 0.5, 1.5),
        (augmentation.randaugment, "color", 0.28, 1.72),
        (augmentation.usb_randaugment, "shear_x", -0.3, 0.3 * 0.998),
        (augmentation.ctaugment, "brightness", 0.1 + 1.9 / 34, 0.1 + 1.9 * 33 / 34),
    ],
)
def test_the_values_are_as_many_as_the_images(strong, name, first, last):
    chosen = strong(policies.weak_cifar, "cifar")
    values = chosen.magnitudes()
    shapes = jax.eval_shape(chosen.magnitude_grid, IMAGES[:1])
    assert {key: len(row) for key, row in values.items()} == {
        key: row.shape[0] for key, row in shapes.items()
    }
    assert values[name][0] == pytest.approx(first)
    assert values[name][-1] == pytest.approx(last)


def test_a_value_is_written_on_the_image_above_a_corner():
    sheet = contact_sheet._tile(
        [("a", [np.full((20, 20, 1), 100, np.uint8)] * 2)], title=["x"], values={"a": ["0.5"]}
    )
    first, second = sheet[16:76, 96:156], sheet[16:76, 160:220]
    assert {*np.unique(second)} == {100}
    assert first[-12:, :12].max() == 255
    assert first[-12:, :12].min() < 50
    assert {*np.unique(first[:40])} == {100}
