"""Tests a folder of user images, from its files to a headline."""

import json

import numpy as np
import pytest
from PIL import Image

from ssljax import recipe
from ssljax.errors import UsageError
from ssljax.run import loop, results


def write(path, n, formats, seed):
    """Writes `n` images of noise, in alternating sizes and file formats."""
    path.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(n):
        shape = ((12, 9), (8, 8), (10, 15))[i % 3]
        image = Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8))
        image.save(path / f"{i}.{formats[i % len(formats)]}")


@pytest.fixture
def pets(tmp_path):
    for c, name in enumerate(("cat", "dog", "emu")):
        write(tmp_path / f"pets/train/{name}", 12, ("png", "jpg"), c)
    write(tmp_path / "pets/unlabeled", 10, ("jpg", "png", "gif"), 4)
    return tmp_path / "pets"


def test_fixmatch_learns_from_a_folder_without_test_images(config, pets, tmp_path):
    config.dataset = f"folder:{pets}.1@9-12"
    config.image_size = 8
    config.num_steps = 4
    experiment = recipe.build(config)
    assert experiment.dataset.images.shape == (46, 8, 8, 3)
    assert len(experiment.split.unlabeled) == 46 - 12
    record = loop.train(experiment, tmp_path / "run")
    names = [
        f"{x}_{kind}" for x in ("accuracy", "loss", "class_entropy") for kind in ("raw", "ema")
    ]
    names += ["balanced_accuracy_ema", "macro_f1_ema"]
    assert set(record["last"]) == {f"valid/{name}" for name in names}
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= row["guess/accuracy"] <= 1  # over the images with a label
    assert results.headline(record).startswith("headline: validation accuracy")


def test_fixmatch_on_a_folder_without_unlabelled_images_is_refused(config, pets):
    for path in (pets / "unlabeled").iterdir():
        path.unlink()
    config.unlabeled = "exclude_labeled"
    config.image_size = 8
    write(pets / "test/cat", 2, ("png",), 5)
    config.dataset = f"folder:{pets}.1@all-0"
    with pytest.raises(UsageError, match="leaves no unlabelled images, which config.method fixm"):
        recipe.build(config)
