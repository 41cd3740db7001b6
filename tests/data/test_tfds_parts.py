"""Tests which parts of TFDS data sets can be read, without preparing a data set."""

import json

import numpy as np
import pytest

from ssljax.data import tfds_parts
from ssljax.errors import UsageError

tfds = pytest.importorskip("tensorflow_datasets")

IMAGE = tfds.features.Image(shape=(8, 8, 3))


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (IMAGE, None, "no image and label; it has: image"),
        (IMAGE, tfds.features.Text(), "labels of the kind Text; allowed: one class or whole"),
        (IMAGE, tfds.features.Sequence(tfds.features.ClassLabel(num_classes=2)), "kind Sequence"),
        (IMAGE, tfds.features.FeaturesDict({"a": tfds.features.Text()}), "kind FeaturesDict"),
        (IMAGE, tfds.features.Scalar(np.float32), "labels of the kind Scalar"),
        (tfds.features.Image(shape=(8, 8, 4)), tfds.features.ClassLabel(), "images of 4 channels"),
        (tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16), tfds.features.ClassLabel(),
         "uint16 images of 1 channels; allowed: uint8, 1 or 3 channels"),
        (tfds.features.Text(), tfds.features.ClassLabel(), r"images of the kind Text \(\)"),
    ],
)  # fmt: skip
def test_features_of_other_kinds_get_one_line(image, label, message):
    features = {"image": image} | ({"label": label} if label else {})
    with pytest.raises(UsageError, match=f"config.dataset x has .*{message}") as caught:
        tfds_parts.require_labeled_images("x", tfds.features.FeaturesDict(features))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "train", "test", "message"),
    [
        (tfds.features.ClassLabel(), [-1, -1], [], "x: train: there is no label"),
        (tfds.features.Scalar(np.int64), [0, 10**12], [], "no image of class 1 of 1,000,000,000,0"),
        (tfds.features.Scalar(np.int64), [0, 1], [7], "has the label 7; allowed: 0 to 1, and -1"),
        (tfds.features.ClassLabel(num_classes=2), [0, -2], [], "has the label -2; allowed: 0 to 1"),
    ],
)
def test_labels_out_of_range_get_one_line(label, train, test, message):
    with pytest.raises(UsageError, match=message):
        tfds_parts.class_names("x", {"label": label}, np.array(train), np.array(test, np.int64))


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_a_prepared_data_set_names_no_code_but_tfds_s(tmp_path, key):
    own = {key: "tensorflow_datasets.core.features.Image", "inner": {"type": "of a feature"}}
    folder = tmp_path / "mine/1.0.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": [own]}}))
    tfds_parts.require_own_features("mine/config:1.0.0", str(tmp_path))
    tfds_parts.require_own_features("gone", str(tmp_path))
    (folder / "features.json").write_text(json.dumps({"a": [own | {key: "evil.module.Feature"}]}))
    with pytest.raises(UsageError, match=r"features.json names 'evil.module.Feature'; allowed: cl"):
        tfds_parts.require_own_features("mine", str(tmp_path))
