"""`--mode=compile`. Here the chips are CPU devices; a slow test has libtpu's."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from helpers.command import command, refused
from ssljax import parts
from ssljax.ahead import command as ahead
from ssljax.ahead import topologies
from ssljax.data import datasets, load, stand_ins
from ssljax.errors import UsageError
from ssljax.training.fitting import TooLarge

TINY = ("--config.model_args.filters=4", "--config.model_args.scales=1", "--config.batch_size=8")


@pytest.fixture
def two_chips(monkeypatch):
    """Two devices that are there, and no data that can be read."""
    chip = topologies.Chip(10**9, "2")
    place = topologies.Topology("cpu:2", chip, jax.devices()[:2])
    monkeypatch.setattr(topologies, "find", lambda name: place)
    monkeypatch.setattr(parts, "load_data", lambda *args, **options: pytest.fail("data are read"))


def compiled(capsys, *args):
    code, output, errors = command(capsys, "--mode=compile", "--topology=cpu:2", *TINY, *args)
    assert (code, errors) == (0, "")
    return output


def test_what_is_printed_and_written(two_chips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = compiled(capsys, "--config=supervised_digits", "--output=out/found.json")
    first, *rows = text.splitlines()
    assert first == (
        "supervised_digits on cpu:2: 2 chips; 8 labelled images per step, 4 per chip; 8 images "
        "enter the network"
    )
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in rows}
    assert cells["fits in 1.0 GB"] == ["yes", "yes |"]
    assert cells["transfers to or from the host"] == ["none", "none |"]
    assert {"peak of memory", "arguments", "temporaries", "all-reduce", "code"} <= cells.keys()
    found = json.loads((tmp_path / "out/found.json").read_text())
    assert [*tmp_path.rglob("*")] == [tmp_path / "out", tmp_path / "out/found.json"]
    assert found["step"]["fits"]
    assert found["step"]["collectives"]["all-reduce"]["operations"] > 2
    assert found["counted_flops"] > 1e5
    assert found["devices"] == 2
    assert "out/found.json exists; --overwrite" in refused(
        capsys, "--mode=compile", "--topology=cpu:2", "--config=supervised_digits",
        "--output=out/found.json",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "images"),
    [("fixmatch_cifar10", 15), pytest.param("supervised_imagenet", 1, marks=pytest.mark.slow)],
)
def test_streams_and_data_in_memory(recipe, images, two_chips, capsys, monkeypatch):
    """Neither is there, and nothing is compiled."""
    lowered = []
    monkeypatch.setattr(ahead, "_compiled", lambda x: lowered.append(x) or TooLarge(5, ""))
    sizes = ("--config.image_size=32", "--config.per_worker_batch_size=4", "--config.model=convnet",
             "--config.model_args.scales=1") if "imagenet" in recipe else ()  # fmt: skip
    text = compiled(capsys, f"--config={recipe}", *sizes)
    assert f"4 per chip; {8 * images} images enter" in text
    assert "| fits in 1.0 GB | no: it needs 0.0 kB | no: it needs 0.0 kB |" in text
    assert len(lowered) == 2


def test_the_largest_batch(two_chips, capsys, monkeypatch):
    built, real = [], ahead._build

    def build(config, *rest):
        built.append(config.batch_size)
        return real(config, *rest)

    monkeypatch.setattr(ahead, "_compiled", lambda lowered: TooLarge(2 * 10**9, ""))
    monkeypatch.setattr(ahead, "_build", build)
    text = compiled(capsys, "--config=supervised_digits", "--fit")
    assert built == [8, 4, 2]
    assert "a batch of 4 does not fit: it needs 2.0 GB" in text
    assert text.endswith("an eighth of it: 0 labelled images per step, 0 per chip\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config=fixmatch_cifar10"], "--topology is missing, which --mode=compile needs"),
        (
            ["--config=fixmatch_cifar10", "--topology=v9:2x2"],
            "--topology is 'v9:2x2'; allowed: v4:2x2x1, v5e:2x4, v5p:2x2x1, v6e:2x4, and larger",
        ),
        (["--config=fixmatch_cifar10", "--topology=v5e"], "--topology is 'v5e'; allowed: v4:"),
        (
            ["--config=fixmatch_cifar10", "--topology=v5e:2x4", "--data_shape=3,4"],
            "--data_shape is 3,4; allowed: images,height,width,channels,classes",
        ),
    ],
)
def test_bad_input_is_one_line(args, message, capsys):
    assert message in refused(capsys, "--mode=compile", *args)


def test_libtpu_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(capsys, "--mode=compile", "--config=fixmatch_cifar10", "--topology=v5e:2x4")
    assert "needs libtpu, the compiler for TPUs, which is not installed: pip install" in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--config.dataset=folder:/none.1@40-100",
            "is 'folder:/none.1@40-100', whose sizes are not known without reading it; allowed wit",
        ),
        ("--config.split_file=mine.json", "which --mode=compile does not read"),
        ("--config.dataset=cifar10.1@60000-0", "config.dataset"),
    ],
)
def test_data_that_would_have_to_be_read_are_refused(given, message, two_chips, capsys):
    line = refused(capsys, "--mode=compile", "--config=fixmatch_cifar10", "--topology=cpu:2", given)
    assert message in line


def test_a_shape_stands_for_data_of_one_s_own():
    data, split = stand_ins.load(
        "folder:/none.1@40-100", unlabeled="strict", balanced=False, image_size=0, stream=False,
        shape=stand_ins.parse(["500", "12", "16", "3", "4"]),
    )  # fmt: skip
    assert data.images.shape == (500, 12, 16, 3)
    assert data.images.strides == (0, 0, 0, 0)  # it takes no memory
    assert (len(split.labeled), len(split.valid), data.num_classes) == (40, 100, 4)


def test_the_digits_have_the_sizes_that_are_known():
    data = datasets.digits()
    known, split = stand_ins.load(
        "digits.1@40-100", unlabeled="all", balanced=False, image_size=0, stream=False
    )
    _, real = load.load("digits.1@40-100", unlabeled="all")
    for name in ("images", "labels", "test_images", "test_labels"):
        assert getattr(known, name).shape == getattr(data, name).shape
    assert [len(part) for part in split] == [len(part) for part in real]
    assert np.unique(known.labels[split.labeled]).size == 10


def test_cifar10_has_the_sizes_that_are_known(cifar10):
    shape = stand_ins.SHAPES["cifar10"]
    assert cifar10.images.shape == (shape.images, shape.height, shape.width, shape.channels)
    assert (len(cifar10.test_labels), cifar10.num_classes) == (shape.test_images, shape.classes)


@pytest.mark.parametrize("fold", ["imagenet128116.1", "imagenet"])
def test_imagenet(fold):
    data, split = stand_ins.load(fold, unlabeled="all", balanced=False, image_size=64, stream=False)
    assert data.image_shape == (64, 64, 3)
    assert len(split.unlabeled) == 1_281_167
    assert len(split.labeled) == (128_116 if fold.endswith(".1") else 1_281_167)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:3x5", "v5e:2x4"])
def test_a_tiny_recipe_is_compiled_for_a_v5e(name, capsys):
    pytest.importorskip("libtpu")
    arguments = ["--mode=compile", "--config=supervised_digits", f"--topology={name}", *TINY]
    if name == "v5e:3x5":
        assert "'v5e:3x5', which libtpu refuses" in refused(capsys, *arguments)
        return
    code, output, _ = command(capsys, *arguments)
    assert code == 0
    assert "supervised_digits on v5e:2x4: 8 chips" in output
    assert "| fits in 16.9 GB | yes | yes |" in output
    assert "| transfers to or from the host | none | none |" in output


def test_an_unknown_shape_of_a_topology_is_named():
    with pytest.raises(UsageError, match="--topology is ''; allowed: v4:2x2x1"):
        topologies.find("")
