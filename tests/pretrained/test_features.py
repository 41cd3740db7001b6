import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment.ops import to_float
from ssljax.models.vit import VisionTransformer
from ssljax.pretrained import features
from ssljax.pretrained.features import Features

MODEL = VisionTransformer(num_classes=3, patch=4, width=8, heads=2, depth=1)
IMAGES = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))()[
        "params"
    ]


@pytest.fixture
def counted(monkeypatch):
    """The number of images computed, per batch."""
    seen, compute = [], Features._compute

    def watch(self, images, chosen, bar):
        seen.append(len(chosen))
        return compute(self, images, chosen, bar)

    monkeypatch.setattr(Features, "_compute", watch)
    return seen


def made(params, folder=None, model=MODEL):
    return Features(model, params, {}, devices=jax.devices()[:1], folder=folder)


def test_they_are_what_the_network_computes(params):
    found = made(params).of(IMAGES)
    _, expected = MODEL.apply({"params": params}, to_float(jnp.asarray(IMAGES)), train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_each_image_is_computed_once(params, counted):
    cache = made(params)
    first = cache.of(IMAGES[:30])
    again = cache.of(IMAGES[20:][::-1])
    assert counted == [30, 10]
    np.testing.assert_array_equal(again[-10:], first[20:][::-1])
    repeated = np.repeat(IMAGES[:2], 3, axis=0) ^ 255
    assert len({row.tobytes() for row in cache.of(repeated)}) == 2
    assert counted[-1] == 2
    assert cache.of(IMAGES[:0]).shape == (0, 8)


def test_a_later_run_computes_what_is_new_alone(params, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(features, "_KEPT", 8)
    first = made(params, tmp_path).of(IMAGES[:20])
    assert counted == [8, 8, 4]
    again = made(params, tmp_path).of(IMAGES)
    assert counted[3:] == [8, 8, 4]
    np.testing.assert_array_equal(again[:20], first)


def test_what_a_kill_has_left_is_gone_on_with(params, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(features, "_KEPT", 8)
    keep = Features._keep

    def killed(self, fresh):
        if len(counted) == 3:
            raise KeyboardInterrupt
        keep(self, fresh)

    monkeypatch.setattr(Features, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        made(params, tmp_path).of(IMAGES)
    monkeypatch.setattr(Features, "_keep", keep)
    made(params, tmp_path).of(IMAGES)
    assert sum(counted[3:]) == 24


def test_other_weights_another_network_and_another_shape_are_told_apart(params, tmp_path, counted):
    made(params, tmp_path).of(IMAGES)
    changed = params | {"norm": jax.tree.map(lambda x: x + 1, params["norm"])}
    made(changed, tmp_path).of(IMAGES)
    made(params, tmp_path, MODEL.clone(heads=4)).of(IMAGES)
    assert counted == [40, 40, 40]
    assert features._digest(IMAGES[0]) != features._digest(IMAGES[0].reshape(4, 16, 3))


def test_the_head_and_how_a_network_is_trained_change_nothing(params, tmp_path, counted):
    made(params, tmp_path).of(IMAGES)
    changed = params | {"head": jax.tree.map(lambda x: x + 1, params["head"])}
    made(changed, tmp_path, MODEL.clone(num_classes=9, drop_path=0.5, remat=True)).of(IMAGES)
    assert counted == [40]


def test_damage_is_noticed_and_made_good(params, tmp_path, counted, caplog):
    caplog.set_level("INFO", "ssljax")
    first = made(params, tmp_path).of(IMAGES)
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(made(params, tmp_path).of(IMAGES), first)
    assert counted == [40, 40]
    assert "cannot be read" in caplog.text


def test_a_disk_that_takes_nothing_stops_nothing(params, tmp_path, caplog):
    caplog.set_level("INFO", "ssljax")
    (tmp_path / "file").write_text("")
    assert made(params, tmp_path / "file").of(IMAGES).shape == (40, 8)
    assert "features cannot be saved" in caplog.text
