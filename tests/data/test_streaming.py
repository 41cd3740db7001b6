"""Tests the ImageNet recipes on a generated data set: 200 JPEGs, some of them unusual."""

import dataclasses
import functools
import importlib
import io
import json
import math
import os
import shutil
import signal
import sys

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from helpers.tfds_data import prepare
from ssljax import network, parts, recipe
from ssljax.data import crops, decoding, imagenet_folds, streaming
from ssljax.data.load import load
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.report.runs import read
from ssljax.run import evaluate, loop
from ssljax.training import parallel

CLASSES = 12
GREY, CMYK, TRUNCATED = 3, 5, 7  # numbers of training images


def jpeg(number):
    """Returns a JPEG of varying size whose uniform colour encodes its number."""
    width, height = 40 + 7 * (number % 9), 36 + 5 * (number % 11)
    image = Image.new("RGB", (width, height), (number, 255 - number, 40 * (number % 6)))
    if number == GREY:
        image = image.convert("L")
    if number == CMYK:
        image = image.convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    data = file.getvalue()
    return data[: len(data) // 3] if number == TRUNCATED else data


def name_of(number):
    return f"n{number % CLASSES:08}_{number}.JPEG"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """200 training and 30 validation images, prepared as `imagenet2012`."""
    import tensorflow_datasets as tfds

    directory = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=CLASSES),
        "file_name": tfds.features.Text(),
    }
    examples = {
        split: [
            {"image": io.BytesIO(jpeg(n)), "label": n % CLASSES, "file_name": name_of(n)}
            for n in numbers
        ]
        for split, numbers in {"train": range(200), "validation": range(200, 230)}.items()
    }
    prepare(directory, "imagenet2012", "5.1.0", features, examples)
    return directory


def tiny(name, data_dir):
    """Returns a small version of a published recipe: 8 labelled images per step, four devices."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data_dir = str(data_dir)
    config.dataset = "imagenet100.1"
    config.image_size = 32
    config.model = "resnet18"
    with config.unlocked():
        config.model_args = {"blocks": (1, 1)}
    config.per_worker_batch_size = 2
    config.uratio = 2
    config.eval_batch_size = 8
    config.num_epochs = 0.32  # 4 steps of 8 out of 100 images
    config.log_every = 2
    config.steps_per_run = 2
    config.base_lr = 0.01
    return config


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("images_per_second", "data_wait")}
        for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["supervised_imagenet", "fixmatch_imagenet"])
def test_published_recipes_run_and_resume_with_the_same_batches(
    name, data_dir, tmp_path, monkeypatch, capsys
):
    experiment = recipe.build(tiny(name, data_dir))
    loop.train(experiment, tmp_path / "whole")
    rows = rows_of(tmp_path / "whole")
    assert [row["step"] for row in rows] == [2, 4]
    # The truncated image is a training image, so no evaluation omits it.
    assert {"test/accuracy_ema", "test/accuracy_top5_raw", "test/accuracy_top5_ema"} <= set(rows[1])
    assert "top-5 accuracy" in capsys.readouterr().out
    assert (tmp_path / "whole" / "augment.png").exists() == (name == "supervised_imagenet")

    def interrupted(self, steps, advance=loop.ProgressBar.advance):
        advance(self, steps)
        if self._steps_left == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.ProgressBar, "advance", interrupted)
        with pytest.raises(Interrupted, match="saved after step 3"):
            loop.train(experiment, tmp_path / "parted")
    assert not (tmp_path / "parted" / "predictions.npz").exists()  # for streams, at the end only
    loop.train(experiment, tmp_path / "parted")
    assert rows_of(tmp_path / "parted") == rows
    assert "resuming" in capsys.readouterr().out
    with np.load(tmp_path / "parted" / "predictions.npz") as says:
        assert (int(says["step"]), len(says["labels"])) == (4, 30)
        accuracy = np.mean(says["labels"] == says["predicted"])
    assert accuracy == pytest.approx(rows[1]["test/accuracy_ema"], abs=1e-6)
    run = read(tmp_path / "parted", "parted")
    assert (run.status, run.notes) == ("finished", ())


def test_several_seeds_of_a_stream_are_refused(data_dir, untraced):
    config = tiny("supervised_imagenet", data_dir)
    config.num_seeds = 2
    with pytest.raises(UsageError, match="config.num_seeds is 2; allowed for streams: 1"):
        recipe.build_seeds(config)


def test_a_streamed_recipe_has_the_published_values():
    config = importlib.import_module("configs.fixmatch_imagenet").get_config()
    config.steps_per_run, config.confidence, config.augment.type = 500, 0.8, "cta"
    assert config.eval_every == 500
    assert config.method_args.to_dict() == {"unlabeled_weight": 10.0, "threshold": 0.8}
    assert config.augment.strong == "cta"
    assert (config.num_epochs, config.warmup_epochs, config.decay_epochs) == (3000, 50, (500,))
    supervised = importlib.import_module("configs.supervised_imagenet").get_config()
    assert (supervised.num_epochs, supervised.optimizer.warmup_epochs) == (200, 5)
    small = importlib.import_module("configs.fixmatch_imagenet_small").get_config()
    assert (small.model, small.image_size) == ("resnet18", 64)


def test_the_batch_and_the_length_follow_from_devices_and_labels(data_dir):
    experiment = recipe.build(tiny("fixmatch_imagenet", data_dir))
    assert (experiment.batch_size, experiment.num_steps) == (8, math.ceil(100 / 8 * 0.32))
    assert (experiment.config["batch_size"], experiment.config["per_worker_batch_size"]) == (8, 0)
    # lr at the end of the warm-up would be 0.01 · 8/256; this is step 3 of 12.5 · 50 steps.
    assert experiment.schedule(3) == pytest.approx(0.01 * 8 / 256 * 3 / (12.5 * 50))
    assert experiment.model.axis_name is None
    assert experiment.split.unlabeled.tolist() == list(range(200))
    state = experiment.shapes["state"]
    assert jax.tree.structure(state.ema_batch_stats) == jax.tree.structure(state.batch_stats)


def test_augment_knobs_have_the_published_names(data_dir, untraced):
    config = tiny("fixmatch_imagenet", data_dir)
    config.augment.type = "mixup"
    with pytest.raises(UsageError, match=r"config.augment.type 'mixup' .* cta, .*noop, randaug"):
        recipe.build(config)
    config.augment.type = "cta"
    config.augment.cta_num_levels = 1
    with pytest.raises(UsageError, match="config.augment: cta_num_levels is 1; allowed: from 2 up"):
        recipe.build(config)
    config.augment.cta_num_levels = 7
    assert recipe.build(config).augmentation.init().shape == (19, 2, 7)
    config.augment.type = "randaugment"
    config.augment.randaugment_magnitude = 3.0
    with pytest.raises(UsageError, match="randaugment_magnitude is 3.0; allowed: from 0 to 1"):
        recipe.build(config)


def test_a_horizontal_flip_mirrors_half_of_both_views(data_dir, untraced):
    config = tiny("fixmatch_imagenet", data_dir)
    config.augment.type = "horizontal_flip"
    views = recipe.build(config).augmentation.views(())
    images = np.arange(4 * 4, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(400, axis=0)
    keys = jax.random.split(jax.random.key(0), 400)
    for view in ("weak", "strong"):
        flipped = np.asarray(views[view](keys, images))[:, 0, 0, 0] == 3
        assert 0.4 < flipped.mean() < 0.6


@pytest.mark.parametrize("devices", [1, 4])
def test_evaluation_counts_every_image_once(devices, data_dir):
    config = tiny("supervised_imagenet", data_dir)
    config.eval_batch_size = 8  # 30 images: the last batch is padded
    experiment = recipe.build(config)
    experiment = dataclasses.replace(experiment, devices=experiment.devices[:devices])
    images, labels = (
        np.concatenate(x)
        for x in zip(*experiment.dataset.test_batches(np.arange(30), 8), strict=True)
    )
    assert sorted(labels.tolist()) == sorted(n % CLASSES for n in range(200, 230))
    state = experiment.init_state()
    scores, _ = evaluate.evaluate_state(
        experiment, experiment.evaluator(), parallel.replicate(state, experiment.devices)
    )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    apply = jax.jit(functools.partial(experiment.model.apply, train=False))
    logits, _ = apply(variables, images / np.float32(127.5) - 1)
    logits = np.asarray(logits)
    order = np.argsort(-logits, axis=1)
    assert scores["test/accuracy_raw"] == pytest.approx((order[:, 0] == labels).mean())
    top5 = (order[:, :5] == labels[:, None]).any(axis=1).mean()
    assert scores["test/accuracy_top5_raw"] == pytest.approx(top5)


def test_a_published_list_selects_labelled_images_by_file_name(data_dir, tmp_path):
    config = tiny("supervised_imagenet", data_dir)
    chosen = [150, 3, 42, 8, 9, 11, 60, 61]
    path = tmp_path / "files2shards_train_size8_split1.txt"
    path.write_text("".join(f"{name_of(n)},0,0\n" for n in chosen))
    config.split_file = str(path)
    data, split = parts.load_data(config)
    assert {data.train_index.names[i] for i in split.labeled} == {name_of(n) for n in chosen}
    assert data.labels[split.labeled].tolist() == [
        int(data.train_index.names[i].split("_")[1][:-5]) % CLASSES for i in split.labeled
    ]
    assert len(split.unlabeled) == 200

    path.write_text(path.read_text() + "".join(f"x_{i}.JPEG,0,0\n" for i in range(5)))
    with pytest.raises(
        UsageError, match=r"names 5 images, of 13, .*: x_0.JPEG, x_1.JPEG, x_2.JPEG, …"
    ):
        parts.load_data(config)
    for text, message in (("", "names no images"), (f"{name_of(3)}\n" * 2, "an image twice")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            parts.load_data(config)
    path.write_text("0.png\n")
    with pytest.raises(UsageError, match="names 0.png, but several images have this name; allowed"):
        imagenet_folds.read_list(path, np.array(["0.png", "1.png", "0.png"]))


def test_without_a_list_the_fold_is_random_and_says_so(data_dir, capsys):
    config = tiny("supervised_imagenet", data_dir)
    _, split = parts.load_data(config)
    assert "not the published one" in capsys.readouterr().out
    assert len(np.unique(split.labeled)) == 100
    config.dataset = "imagenet100.2"
    assert parts.load_data(config)[1].labeled.tolist() != split.labeled.tolist()
    config.dataset = "imagenet"
    assert len(parts.load_data(config)[1].labeled) == 200
    config.dataset = "imagenet201.1"
    with pytest.raises(UsageError, match="asks for 201 labelled images; allowed: 1 to 200"):
        parts.load_data(config)
    config.dataset = "imagenet-10"
    with pytest.raises(UsageError, match=r"'imagenet-10' is not imagenet<labels>.<seed>"):
        parts.load_data(config)


def stream(data, split, start, stop, **options):
    return list(
        streaming.batches(data, split, **{"seed": 4, "sizes": (10, 20)} | options, start=start,
                         stop=stop)
    )  # fmt: skip


def test_batches_follow_from_seed_and_step_and_an_epoch_has_each_image_once(data_dir, capsys):
    data, split = parts.load_data(tiny("supervised_imagenet", data_dir))
    whole = stream(data, split, 0, 10)
    later = stream(data, split, 6, 10)
    for a, b in zip(whole[6:], later, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    other = stream(data, split, 0, 1, seed=5)
    assert not np.array_equal(other[0].labels, whole[0].labels)
    # One image in 200 is damaged: each stream reports it once and replaces it.
    assert f"warning: {name_of(TRUNCATED)} cannot be decoded" in capsys.readouterr().out
    assert all(s.unlabeled.max(axis=(1, 2, 3)).min() > 100 for s in whole)  # no image is black
    for batch in whole:  # the recorded index matches the image
        for index, labels, part in (
            (batch.labeled_index, batch.labels, split.labeled),
            (batch.unlabeled_index, batch.unlabeled_labels, split.unlabeled),
        ):
            assert index.dtype == np.int32
            np.testing.assert_array_equal(data.labels[part[index]], labels)
    # Every image has one colour, which encodes its number.
    means = np.concatenate([s.unlabeled.mean(axis=(1, 2)) for s in whole])
    seen = np.rint((means[:, 0] + 255 - means[:, 1]) / 2).astype(int)
    labels = np.concatenate([s.unlabeled_labels for s in whole])
    # JPEG changes a few colours by one. Grey and CMYK images have other colours.
    off = np.min([abs((seen + d) % CLASSES - labels) for d in (-1, 0, 1)], axis=0)
    assert (off > 0).sum() <= 2
    counts = np.bincount(labels, minlength=CLASSES)
    expected = np.bincount(np.arange(200) % CLASSES)
    assert np.abs(counts - expected).sum() <= 2  # the damaged image and its replacement


def read_always(monkeypatch, data, pixels):
    """Replaces every record with this image, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    monkeypatch.setattr(type(data.train_index), "read", lambda self, index: buffer.getvalue())


def test_half_of_the_training_images_are_mirrored(monkeypatch, data_dir):
    data, split = parts.load_data(tiny("supervised_imagenet", data_dir))
    ramp = np.tile(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], (40, 1, 3))
    read_always(monkeypatch, data, ramp)
    (sample,) = stream(data, split, 0, 1, sizes=(40, 60))
    images = np.concatenate([sample.labeled, sample.unlabeled]).astype(int)
    mirrored = images[:, :, 0].mean(axis=(1, 2)) > images[:, :, -1].mean(axis=(1, 2))
    assert 35 <= mirrored.sum() <= 65


def test_evaluation_crops_the_centre_and_resizes_bicubically(monkeypatch, data_dir):
    data, _ = parts.load_data(tiny("supervised_imagenet", data_dir))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    read_always(monkeypatch, data, pixels)
    found = data.pick(np.arange(1))[0]
    # 224/256 of the shorter side: 28 pixels, starting at (2, 10). Keys' kernel, a = -1/2, over
    # inside pixels only, as in TensorFlow; no antialiasing.
    crop = pixels[2:30, 10:38].astype(float)
    weights = np.zeros((data.image_size, 28))
    for row, centre in enumerate((np.arange(data.image_size) + 0.5) * 28 / data.image_size - 0.5):
        d = np.abs(np.arange(28) - centre)
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        weights[row] = np.where(d <= 1, near, np.where(d < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("yi,xj,ijc->yxc", weights, weights, crop).clip(0, 255)
    assert np.abs(found - expected).max() <= 1.01  # truncated to integers


def test_a_damaged_image_is_looked_for_once(data_dir, monkeypatch):
    data, split = parts.load_data(tiny("supervised_imagenet", data_dir))
    started, pipeline = [], decoding._pipeline
    monkeypatch.setattr(
        decoding, "_pipeline", lambda *args, **how: started.append(how) or pipeline(*args, **how)
    )
    stream(data, split, 0, 30)  # three epochs
    assert started == [{"guard": False}, {"guard": True}, {"guard": False}]


def test_a_damaged_image_is_named_and_not_evaluated(data_dir, capsys):
    data, _ = parts.load_data(tiny("supervised_imagenet", data_dir))
    batches = [*data.batches(np.arange(200), 64)]
    assert sum(len(images) for images, _ in batches) == sum(len(y) for _, y in batches) == 199
    name = name_of(TRUNCATED)
    assert f"{name} cannot be decoded and is not evaluated" in capsys.readouterr().out


def test_each_epoch_has_an_order_and_crops_of_its_own(monkeypatch, data_dir):
    data, split = parts.load_data(tiny("supervised_imagenet", data_dir))
    first, second = (streaming.positions((0, 0), 40, 40 * e + np.arange(40)) for e in range(2))
    assert sorted(first) == sorted(second)
    assert not np.array_equal(first, second)
    # With a single image whose crops all differ, only the crop can make a difference.
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    read_always(monkeypatch, data, pixels)
    crops = np.concatenate([s.labeled for s in stream(data, split, 0, 2, sizes=(4, 0))])
    assert len(np.unique(crops.reshape(8, -1), axis=0)) == 8


def test_grey_and_cmyk_images_are_decoded(data_dir):
    data, _ = parts.load_data(tiny("supervised_imagenet", data_dir))
    numbers = [list(data.train_index.names).index(name_of(n)) for n in (GREY, CMYK, 100)]
    images = data.pick(np.array(numbers))
    assert images.shape == (3, 32, 32, 3)
    grey = images[0].astype(int)
    assert np.ptp(grey, axis=-1).max() == 0
    for image, number in ((images[1], CMYK), (images[2], 100)):
        colour = (number, 255 - number, 40 * (number % 6))
        np.testing.assert_allclose(image.mean(axis=(0, 1)), colour, atol=8)


def test_more_than_one_percent_of_damaged_images_stops_the_run(data_dir):
    data, split = parts.load_data(tiny("supervised_imagenet", data_dir))
    length = data.train_index.length.copy()
    length[:3] = 50  # 2 % together with the truncated one
    broken = data._replace(train_index=data.train_index._replace(length=length))
    with pytest.raises(RunError, match=r"of 200 training images cannot be decoded, more than 1%"):
        stream(broken, split._replace(labeled=np.arange(100)), 0, 40)


def test_data_that_is_not_prepared_is_named_with_the_command(tmp_path):
    config = tiny("supervised_imagenet", tmp_path)
    with pytest.raises(UsageError, match=r"imagenet2012 .*tfds.load\('imagenet2012'"):
        recipe.build(config)


def test_a_folder_of_images_streams_through_the_same_code(tmp_path):
    for split, count in (("train", 40), ("test", 8)):
        for n in range(count):
            path = tmp_path / split / "abcd"[n % 4] / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(20 + n))
    config = importlib.import_module("configs.fixmatch_imagenet_small").get_config()
    config.dataset = f"folder:{tmp_path}.1@20-0"
    config.per_worker_batch_size = 1
    config.image_size = 32
    experiment = recipe.build(config)
    assert experiment.split.labeled.size == 20
    with experiment.feed(0) as feed:
        sample = jax.device_get(feed.next())
    assert sample.labeled.shape == (4, 1, 32, 32, 3)
    assert sample.unlabeled.shape == (4, 3, 32, 32, 3)
    config.dataset = "digits.1@40-100"
    with pytest.raises(UsageError, match=r"'digits', which cannot be streamed; allowed .* folder:"):
        recipe.build(config)
    config.image_size = 0
    with pytest.raises(UsageError, match="config.image_size is 0; allowed for streams: from 1 up"):
        recipe.build(config)
    config.image_size, config.dataset = 10**6, f"folder:{tmp_path}.1@20-0"
    with pytest.raises(
        UsageError, match="config.image_size is 1000000: crops: 768,000.0 GB do not"
    ):
        recipe.build(config)


QUARTERS = ((200, 30, 60), (40, 160, 90), (20, 60, 220), (150, 150, 150))  # from the top left


def quarters(size=40):
    """Returns a picture whose corners reveal its orientation."""
    pixels = np.array(QUARTERS, np.uint8).reshape(2, 2, 3)
    return Image.fromarray(pixels.repeat(size // 2, axis=0).repeat(size // 2, axis=1))


def turned(path):
    """Writes a picture lying on its side, as its EXIF data say."""
    picture = quarters()
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def transparent(path):
    picture = quarters()
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path)


UNUSUAL = {
    "turned.jpg": turned,
    "cmyk.jpg": lambda path: quarters().convert("CMYK").save(path, quality=95),
    "transparent.png": transparent,
    "palette.png": lambda path: quarters().quantize(8).save(path, transparency=0),
    "grey.png": lambda path: quarters().convert("L").save(path),
    "grey.jpg": lambda path: quarters().convert("L").save(path, quality=95),
    "a.gif": lambda path: quarters().save(path),
    "a.webp": lambda path: quarters().save(path, lossless=True),
    "a.tiff": lambda path: quarters().save(path),
    "a.bmp": lambda path: quarters().convert("RGBA").save(path),
    "thin.png": lambda path: Image.new("RGB", (40, 1), (9, 99, 199)).save(path),
}


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """Two classes with the same images in all formats; one test image."""
    folder = tmp_path_factory.mktemp("pets")
    for part, name in (("train", "a"), ("train", "b"), ("test", "b")):
        (folder / part / name).mkdir(parents=True)
        for file, save in UNUSUAL.items():
            save(folder / part / name / file)
    return folder


def test_a_stream_sees_the_pixels_that_are_read_into_memory(pets):
    memory, _ = load(f"folder:{pets}.0@all-0", unlabeled="all", image_size=8)
    streamed, _ = load(f"folder:{pets}.0@all-0", unlabeled="all", image_size=8, stream=True)
    assert memory.labels.tolist() == streamed.labels.tolist()
    (tested,) = (images for images, _ in streamed.test_batches(np.arange(len(UNUSUAL)), 64))
    for found, expected in (
        (streamed.pick(np.arange(2 * len(UNUSUAL))), memory.images),
        (tested, memory.test_images),
    ):
        corners = np.s_[:, ::7, ::7]
        difference = np.abs(found[corners].astype(int) - expected[corners]).max(axis=(1, 2, 3))
        assert difference.max() <= 4, dict(zip(sorted(UNUSUAL), difference, strict=False))
        turned = found[sorted(UNUSUAL).index("turned.jpg")][::7, ::7]
        np.testing.assert_allclose(turned.reshape(4, 3), QUARTERS, atol=8)


def test_formats_that_cannot_be_read_are_refused_before_anything_is_trained(pets, tmp_path):
    shutil.copytree(pets, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "test/b").iterdir():
        path.unlink()
    deep = Image.fromarray(np.full((9, 9), 40000, np.uint16))
    for i in range(3):
        deep.save(tmp_path / f"test/b/{i}.png")
    with pytest.raises(UsageError, match=r"3 of 3 test images .*test/b/0.png: .* mode I;16; allo"):
        load(f"folder:{tmp_path}.0@all-0", unlabeled="all", image_size=8, stream=True)


def test_an_image_that_is_gone_is_named_and_replaced(pets, tmp_path, capsys, monkeypatch):
    shutil.copytree(pets, tmp_path, dirs_exist_ok=True)
    data, split = load(f"folder:{tmp_path}.0@all-0", unlabeled="all", image_size=8, stream=True)
    gone = tmp_path / "train/a/palette.png"
    gone.unlink()
    with pytest.raises(RunError, match=r"1 of 22 images to evaluate cannot be decoded, more than"):
        [*data.batches(np.arange(22), 22)]
    monkeypatch.setattr(streaming, "_TOLERATED", 0.1)
    capsys.readouterr()
    started, pipeline = [], decoding._pipeline
    monkeypatch.setattr(
        decoding, "_pipeline", lambda *args, **how: started.append(how) or pipeline(*args, **how)
    )
    for sample in stream(data, split, 0, 4):  # four epochs
        assert sample.unlabeled.max(axis=(1, 2, 3)).min() > 100  # no image is black
    assert capsys.readouterr().out == (
        f"warning: {gone} cannot be decoded; another image takes its place: No such file or "
        "directory\n"
    )
    assert started == [{"guard": False}]  # a restart takes longer than many steps


def test_a_stream_without_tensorflow_says_what_to_install(pets, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UsageError, match=r"config.stream needs TensorFlow, .* pip install"):
        load(f"folder:{pets}.0@all-0", unlabeled="all", image_size=8, stream=True)


def transcribed_crop(rng, height, width):
    """Transcribes GenerateRandomCrop of TensorFlow's sample_distorted_bounding_box_op.cc, with the
    published arguments; returns the crop's height and width, or None."""
    aspect = rng.uniform(3 / 4, 4 / 3)
    low, high = 0.08 * height * width, 1.0 * height * width
    least = int(np.rint(np.sqrt(low / aspect)))
    most = min(int(np.rint(np.sqrt(high / aspect))), height)
    if int(np.rint(most * aspect)) > width:
        most = int((width + 0.5 - 1e-7) / aspect)
    least = min(least, most)
    crop_height = least + (rng.integers(most - least + 1) if least < most else 0)
    crop_width = int(np.rint(crop_height * aspect))
    area = crop_height * crop_width
    if area < low:
        crop_height += 1
        crop_width = int(np.rint(crop_height * aspect))
    if area > high:
        crop_height -= 1
        crop_width = int(np.rint(crop_height * aspect))
    area = crop_height * crop_width
    fits = low <= area <= high and 0 < crop_height <= height and 0 < crop_width <= width
    return (crop_height, crop_width) if fits and area >= 0.1 * height * width else None


def test_random_crops_have_the_published_areas_and_aspects(monkeypatch):
    import tensorflow as tf

    height, width, n = 300, 400, 10_000
    windows = []
    monkeypatch.setattr(crops, "_shape", lambda encoded: tf.constant([height, width, 3]))
    monkeypatch.setattr(
        crops, "_cropped", lambda encoded, window, size: tf.reshape(window, [2, 2, 1])
    )
    monkeypatch.setattr(tf.image, "stateless_random_flip_left_right", lambda image, seed: image)
    numbers = tf.stack([tf.zeros(n, tf.int64), tf.range(n, dtype=tf.int64)], axis=1)
    crop = tf.function(lambda number: crops.training(b"", number, 8))
    windows = tf.function(lambda: tf.map_fn(crop, numbers, tf.int32))().numpy().reshape(n, 4)
    top, left, crop_height, crop_width = windows.T
    assert min(top.min(), left.min()) >= 0
    assert (top + crop_height).max() <= height
    assert (left + crop_width).max() <= width
    # Where there is space, the corners are uniform.
    where = (top / np.maximum(height - crop_height, 1))[crop_height < height - 20]
    assert where.mean() == pytest.approx(0.5, abs=0.02)

    rng = np.random.default_rng(0)
    expected = []
    while len(expected) < n:
        tries = (transcribed_crop(rng, height, width) for _ in range(10))
        expected.append(next((x for x in tries if x), (height, width)))
    areas = [crop_height * crop_width / height / width, np.prod(expected, axis=1) / height / width]
    aspects = [crop_width / crop_height, np.array([w / h for h, w in expected])]
    for found, wanted in (areas, aspects):
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert np.quantile(found, q) == pytest.approx(np.quantile(wanted, q), abs=0.025)
    assert areas[0].min() >= 0.08
    assert aspects[0].min() >= 0.73
    assert aspects[0].max() <= 1.36


def test_an_image_that_no_random_crop_fits_is_cropped_as_for_evaluation(monkeypatch):
    import tensorflow as tf

    # A window of aspect 4/3 covers 1.3 % of 1000×10 pixels.
    monkeypatch.setattr(crops, "_shape", lambda encoded: tf.constant([10, 1000, 3]))
    monkeypatch.setattr(
        crops, "_cropped", lambda encoded, window, size: tf.reshape(window, [2, 2, 1])
    )
    monkeypatch.setattr(tf.image, "stateless_random_flip_left_right", lambda image, seed: image)
    window = crops.training(b"", tf.constant([0, 0], tf.int64), 8)
    assert window.numpy().ravel().tolist() == [1, 496, 8, 8]


def lr(parts_config, step, *, labeled, batch):
    """Returns the learning rate of a config for these numbers of labelled images."""
    parts_config.batch_size = batch
    model = network.make_model(parts_config, num_classes=2, dtype=np.float32, axis_name=None)
    return parts.make_optimizer(parts_config, labeled / batch, model)[0](step)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # 128,116 / 1024 = 125.11 steps per epoch; lr 0.1 · 1024/256 = 0.4; warm-up 50 epochs =
        # 6,255.7 steps; ×0.1 every 500 epochs = 62,556.6 steps.
        (0, 0.0),
        (1, 0.4 / 6255.6640625),
        (1000, 0.4 * 1000 / 6255.6640625),
        (3128, 0.4 * 3128 / 6255.6640625),
        (6255, 0.4 * 6255 / 6255.6640625),
        (6256, 0.4),
        (62556, 0.4),
        (62557, 0.04),
        (125113, 0.04),
        (125114, 0.004),
        (312783, 0.4e-4),
        (312784, 0.4e-5),
        (375339, 0.4e-5),
    ],
)
def test_learning_rates_of_the_published_command(step, expected):
    config = importlib.import_module("configs.fixmatch_imagenet").get_config()
    assert lr(config, step, labeled=128116, batch=1024) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # 1,281,167 / 256 = 5004.56 steps per epoch; lr 0.1; warm-up 5 epochs = 25,022.8 steps; ×0.1
        # every 50 epochs = 250,227.9 steps.
        (0, 0.0),
        (100, 0.1 * 100 / 25022.79296875),
        (5005, 0.1 * 5005 / 25022.79296875),
        (12511, 0.1 * 12511 / 25022.79296875),
        (25022, 0.1 * 25022 / 25022.79296875),
        (25023, 0.1),
        (250227, 0.1),
        (250228, 0.01),
        (500455, 0.01),
        (500456, 0.001),
        (750684, 1e-4),
        (1501366, 1e-6),
    ],
)
def test_learning_rates_of_the_defaults(step, expected):
    config = importlib.import_module("configs.imagenet").published()
    assert lr(config, step, labeled=1281167, batch=256) == pytest.approx(expected, rel=1e-5)


def test_a_list_of_epochs_decays_after_each():
    config = ml_collections.ConfigDict(importlib.import_module("configs.imagenet").published())
    config.decay_epochs = (30, 60)
    rates = [float(lr(config, 10 * e, labeled=2560, batch=256)) for e in (10, 30, 31, 60, 61)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)
    config.decay_epochs = (60, 30)
    with pytest.raises(UsageError, match=r"config.optimizer: decay_epochs is \(60, 30\); allowed:"):
        lr(config, 0, labeled=2560, batch=256)
