import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models import resnet


def shapes(model, size=224):
    images = jnp.zeros((2, size, size, 3))
    return jax.eval_shape(
        lambda key: model.init_with_output(key, images, train=False, capture_intermediates=True),
        jax.random.key(0),
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
    ],
)
def test_parameter_counts(name, count):
    _, variables = shapes(getattr(resnet, name)(num_classes=1000))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count
    kinds = {path[-1].key for path, _ in jax.tree.leaves_with_path(variables["params"])}
    assert kinds == {"kernel", "scale", "bias"}


def test_stages_of_resnet50():
    """Tests the output of every block for 224×224 images."""
    (logits, features), variables = shapes(resnet.resnet50(num_classes=1000))
    assert (logits.shape, features.shape) == ((2, 1000), (2, 2048))
    outputs = {
        name: value["__call__"][0].shape
        for name, value in variables["intermediates"].items()
        if isinstance(value, dict)
    }
    assert outputs["Conv_0"] == (2, 112, 112, 64)
    # Three convolutions per block, and a fourth where the shape changes: 1 + 16·3 + 4.
    convolutions = [shape for name, shape in outputs.items() if name.startswith("Conv")]
    assert len(convolutions) == 53
    sides = {side: 0 for side in (112, 56, 28, 14, 7)}
    for _, height, width, _ in convolutions:
        assert height == width
        sides[height] += 1
    # The first 1×1 of a stage still has the previous size: the stride is in the 3×3.
    assert sides == {112: 1, 56: 3 * 3 + 1 + 1, 28: 4 * 3 + 1, 14: 6 * 3 + 1, 7: 3 * 3 + 1 - 1}
    channels = sorted({shape[-1] for shape in convolutions})
    assert channels == [64, 128, 256, 512, 1024, 2048]


@pytest.mark.slow
def test_initial_values_are_keras():
    """he_normal is a truncated normal by fan-in; the dense layer has 0.01, BatchNorm 1."""
    model = resnet.resnet50(num_classes=1000)
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False))(
        jax.random.key(0)
    )
    params = variables["params"]
    kernel = np.asarray(params["Conv_9"]["kernel"])
    fan_in = np.prod(kernel.shape[:3])
    assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.03)
    # Truncated at two standard deviations of the untruncated normal.
    assert np.abs(kernel).max() <= 2 * np.sqrt(2 / fan_in) / 0.87962566 * 1.0001
    dense = np.asarray(params["Dense_0"]["kernel"])
    assert dense.std() == pytest.approx(0.01, rel=0.02)
    scales = [params[name]["scale"] for name in params if name.startswith("BatchNorm")]
    assert len(scales) == 53
    assert all((np.asarray(scale) == 1).all() for scale in scales)


def test_batch_norm_has_the_published_numbers(monkeypatch):
    seen = []
    real = nn.BatchNorm

    def record(**options):
        seen.append((options["momentum"], options["epsilon"], options["axis_name"]))
        return real(**options)

    monkeypatch.setattr(nn, "BatchNorm", record)
    shapes(resnet.resnet18(num_classes=10, axis_name=None), size=32)
    assert set(seen) == {(0.9, 1e-5, None)}


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    (logits, _), variables = shapes(resnet.resnet18(num_classes=10, dtype=jnp.bfloat16), size=32)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    assert variables["intermediates"]["Conv_3"]["__call__"][0].dtype == jnp.bfloat16
