"""Tests predictions of a trained model for arrays, files, folders and lists of paths."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.trained_models import logits_of, model
from ssljax.data import images
from ssljax.errors import UsageError

SIZES = [(32, 32), (40, 70), (90, 31), (33, 33)]


@pytest.fixture(scope="module")
def trained():
    return dataclasses.replace(model("convnet")[0], class_names=tuple("abcdefghij"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos, and the model's input for them, sorted by name."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    for name, image in zip(("1.png", "2.png", "3 x.png", "deep/4.png"), pixels, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder, np.stack([images.fit(image, 32) for image in pixels])


def test_files_are_fitted_and_predicted_as_arrays_are(trained, photos):
    folder, fitted = photos
    expected = trained.predict_proba(fitted)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    np.savez(folder.parent / "x.npz", fitted)
    paths = sorted(folder.rglob("*.png"))
    for given in (
        folder, str(folder), folder.parent / "x.npz", f"{folder}/**/*.png", paths,
        [*map(str, paths)], iter(paths),
        [folder / "1.png", f"{folder}/[23]*.png", folder / "deep"], np.array([*map(str, paths)]),
    ):  # fmt: skip
        np.testing.assert_allclose(trained.predict_proba(given), expected, atol=1e-6)
    np.testing.assert_allclose(trained.predict_proba(paths[2]), expected[2:3], atol=1e-6)
    classes = np.array(trained.class_names)[expected.argmax(axis=1)]
    assert trained.predict(folder).tolist() == classes.tolist()
    assert trained.predict_proba(fitted[:0]).shape == (0, 10)


def test_probabilities_are_of_the_logits_divided_by_the_temperature(trained, photos):
    _, fitted = photos
    logits = logits_of(trained, fitted)
    exp = np.exp(logits / 3 - (logits / 3).max(axis=1, keepdims=True))
    calibrated = dataclasses.replace(trained, calibration={"temperature": 3.0})
    expected = exp / exp.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated.predict_proba(fitted), expected, atol=1e-5)


def test_batches_are_of_the_run_s_evaluation_and_memory_holds_one_of_them(trained, tmp_path):
    small = dataclasses.replace(trained, config={"eval_batch_size": 8})
    pixels = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "x.npz", pixels)
    size = small.batch_size(21)
    assert size == 8
    seen = []
    run = small._forward
    small.__dict__["_forward"] = lambda batch: seen.append(batch.shape) or run(batch)
    found = small.predict_proba(tmp_path / "x.npz")
    assert seen == [(8, 32, 32, 3)] * 3
    np.testing.assert_allclose(found, trained.predict_proba(pixels), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}/nothing", r"images=.*nothing: no image found; allowed: a folder, a file, a pattern"),
        (["{}/1.png", "{}/x*"], r"images=.*x\*: no image found"),
        (["{}/1.png", "{}/bad.jpg"], r"image .*bad.jpg cannot be read: "),
        (np.zeros((2, 8, 8, 3), np.uint8), r"images: uint8 \[2, 8, 8, 3\]; allowed: uint8 \[N, 32"),
        (np.zeros((2, 32, 32, 3)), "images: float64"),
        ([], r"images: float64 \[0\]"),
        (3, r"images: int64 \[\]"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 31, 3), np.uint8)], "images: .*shape"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(given, message, trained, photos, tmp_path):
    (tmp_path / "1.png").write_bytes((photos[0] / "1.png").read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    if isinstance(given, str):
        given = Path(given.format(tmp_path))
    elif isinstance(given, list) and given and isinstance(given[0], str):
        given = [path.format(tmp_path) for path in given]
    with pytest.raises(UsageError, match=message) as caught:
        trained.predict(given)
    assert "\n" not in str(caught.value)
