"""Tests that the graphs compute the same in real TensorFlow 1.15.5 as in JAX."""

from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import tensorflow_1_15, tf1_cases
from helpers.trained_models import logits_of, model
from ssljax.export import tf1_graph, tf1_model

SCRIPT = Path(__file__).parents[1] / "helpers/run_graphs.py"


def test_every_primitive(tmp_path):
    tensorflow_1_15.python()
    expected = {}
    for number, name in enumerate(tf1_cases.CASES):
        function, arrays = tf1_cases.prepared(name)
        graph_def = tf1_graph.lower(function, tf1_cases.shapes_of(arrays))
        tf1_graph.save(graph_def, tmp_path / f"{number}.pb")
        np.savez(tmp_path / f"{number}.npz", **arrays)
        expected[str(number)] = name, np.asarray(jax.jit(function)(arrays)["y"])
    printed = tensorflow_1_15.run(SCRIPT, str(tmp_path))
    assert sorted(printed.split()) == sorted(expected)
    for number, (name, wanted) in expected.items():
        found = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=3e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        ("wide_resnet", None),
        ("wide_resnet", 3),
        ("cnn13", None),
        pytest.param("resnet50", 3, marks=pytest.mark.slow),
        pytest.param("cnn13", 3, marks=pytest.mark.slow),
        pytest.param("resnet50", None, marks=pytest.mark.slow),
    ],
)
def test_models(name, batch_size, tmp_path):
    tensorflow_1_15.python()
    trained, images = model(name)
    expected = logits_of(trained, images[:3])
    path = tmp_path / "model.pb"
    tf1_model.write(trained, path, input_dtype="uint8", batch_size=batch_size)
    np.savez(path.with_suffix(".npz"), images=images[:3])
    tensorflow_1_15.run(SCRIPT, str(tmp_path))
    found = np.load(path.with_suffix(".npy"))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
