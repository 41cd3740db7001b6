"""Tests `predictions.csv`, `.npz` and `.html`."""

import csv
import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.trained_models import model
from ssljax.data import sources
from ssljax.errors import UsageError
from ssljax.inference import predict
from ssljax.inference.calibration import softmax

NAMES = ["a b.png", "=formula.png", 'quo"te,comma.png', "deep/er/ünï.png", "line\nbreak.png"]


@pytest.fixture(scope="module")
def trained():
    return model("wide_resnet")[0]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40 + 7 * i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "photos" / "damaged.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("no image either")
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"")
    return tmp_path / "photos"


def rows(directory):
    with (directory / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_of_a_folder_has_a_row_whatever_its_name(trained, folder, tmp_path):
    source = sources.from_path(str(folder), trained.image_shape)
    (tmp_path / "out").mkdir()
    summary = predict.write(predict.of_run(trained, source), source, tmp_path / "out")
    found = {row["file"]: row for row in rows(tmp_path / "out")}
    assert set(found) == {*NAMES, "damaged.jpg"}
    assert found["damaged.jpg"]["class"] == ""
    assert "damaged.jpg cannot be read" in found["damaged.jpg"]["problem"]
    assert list(summary.problems) == ["damaged.jpg"]
    assert summary.images == 6
    assert summary.per_class.sum() == 5
    arrays = np.load(tmp_path / "out" / "predictions.npz")
    assert arrays["files"].tolist() == list(source.names)
    row = arrays["files"].tolist().index("damaged.jpg")
    assert arrays["predicted"][row] == -1
    assert np.isnan(arrays["features"][row]).all()
    assert np.isfinite(np.delete(arrays["features"], row, axis=0)).all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "predictions.csv", "predictions.html", "predictions.npz",
    ]  # fmt: skip
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert "quo&#34;te,comma.png" in page
    assert 'quo"te' not in page


def test_the_numbers_are_those_of_the_model(trained, folder, tmp_path):
    source = sources.from_path(str(folder), trained.image_shape)
    trained = dataclasses.replace(trained, calibration={"temperature": 2.0})
    predict.write(predict.of_run(trained, source), source, tmp_path)
    row = next(row for row in rows(tmp_path) if row["file"] == "=formula.png")
    (loaded,) = source.batches(len(source.names))
    image = loaded.images[loaded.positions.tolist().index(source.names.index("=formula.png"))]
    logits = np.asarray(trained.serve()(trained.variables, image[None])["logits"])
    p, raw = softmax(logits, 2.0)[0], softmax(logits)[0]
    likeliest = np.argsort(-p)[:5]
    assert row["class"] == row["class_1"] == trained.class_names[likeliest[0]]
    assert [row[f"class_{i}"] for i in range(1, 6)] == [trained.class_names[c] for c in likeliest]
    for name, expected in {
        "confidence": p.max(),
        "raw_confidence": raw.max(),
        "margin": p[likeliest[0]] - p[likeliest[1]],
        "entropy": -np.sum(p * np.log(p)),
        "confidence_5": p[likeliest[4]],
    }.items():
        assert float(row[name]) == pytest.approx(expected, abs=2e-4), name


def test_adjusted_predictions_favour_no_frequent_class(trained, folder, tmp_path):
    counts = (50, 20, 10, 5, 5, 4, 3, 1, 1, 1)
    known = dataclasses.replace(trained, class_counts=counts)
    adjusted, images = known.adjusted(1.5), model("wide_resnet")[1]
    logits = np.asarray(trained.serve()(trained.variables, images)["logits"])
    expected = softmax(logits - 1.5 * np.log(np.array(counts) / 100))
    np.testing.assert_allclose(adjusted.predict_proba(images), expected, atol=1e-5)
    assert list(adjusted.predict(images)) == [str(c) for c in expected.argmax(axis=1)]
    np.testing.assert_array_equal(
        known.adjusted(0).predict_proba(images), known.predict_proba(images)
    )
    served = adjusted.serve()(adjusted.variables, images)
    np.testing.assert_allclose(softmax(np.asarray(served["logits"])), expected, atol=1e-5)

    source = sources.from_path(str(folder), trained.image_shape)
    out = tmp_path / "out"
    out.mkdir()
    predict.write(predict.of_run(adjusted, source), source, out)
    (loaded,) = source.batches(len(source.names))
    with np.load(out / "predictions.npz") as arrays:
        found = arrays["probabilities"][~np.isnan(arrays["confidence"])]
    np.testing.assert_allclose(found, adjusted.predict_proba(loaded.images), atol=1e-5)

    for model_of, strength, message in (
        (trained, 1.0, "split.json, which an older version wrote, does not say how many labelled"),
        (known, -1.0, "logit_adjustment is -1.0; allowed: from 0 up"),
        (known, float("nan"), "logit_adjustment is nan"),
        (
            dataclasses.replace(trained, class_counts=(9,) * 9 + (0,)),
            1.0,
            "1 of 10 classes have no",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            model_of.adjusted(strength)


def test_any_number_of_devices_and_batches_predicts_the_same(trained):
    images = np.random.default_rng(0).integers(0, 256, (600, *trained.image_shape), np.uint8)
    source = sources.from_array(images, trained.image_shape)

    def logits(devices):
        chunks = list(predict.predict(predict.of_run(trained, source, devices=devices), source))
        assert [name for chunk in chunks for name in chunk.loaded.names] == list(source.names)
        return np.concatenate([chunk.found.logits for chunk in chunks])

    one, four = logits(jax.devices()[:1]), logits(jax.devices()[:4])
    assert one.shape == (600, 10)
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-4)
    direct = trained.serve()(trained.variables, images[:8])["logits"]
    np.testing.assert_allclose(one[:8], direct, rtol=1e-4, atol=1e-4)


def test_what_is_trusted_and_what_is_right(trained, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, *trained.image_shape), np.uint8)
    source = sources.from_array(images, trained.image_shape)
    model = predict.of_run(trained, source)
    logits = np.concatenate([c.found.logits for c in predict.predict(model, source)])
    confidence, predicted = softmax(logits).max(axis=1), logits.argmax(axis=1)
    labels = np.where(np.arange(20) < 10, predicted, -1)
    limit = float(np.median(confidence))
    known = source._replace(labels=labels)
    marks = {"trusted": lambda numbers, _: numbers.confidence >= limit}
    summary = predict.write(model, known, tmp_path, marks=marks)
    assert (summary.right, summary.known) == (10, 10)
    assert summary.marked["trusted"] == np.sum(confidence >= limit)
    found = [int(row["trusted"]) for row in rows(tmp_path)]
    assert sum(found) == summary.marked["trusted"]


@pytest.mark.parametrize(
    ("counts", "noted"), [([0, 20], True), ([0, 19], False), ([1, 50], False), ([50], False)]
)
def test_predictions_of_a_single_class_are_noted(counts, noted):
    summary = predict.Summary(sum(counts), {}, np.array(counts), {}, 0, 0)
    said = predict.describe(summary, ["cat", "dog"][: len(counts)])
    assert ("note: all of them are predicted as dog" in said) == noted
