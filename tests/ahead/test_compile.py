"""`--mode=compile`. Here the chips are CPU devices; slow tests have the compilers of real ones.

Those tests need an interpreter that has the compiler: one of `$SSLJAX_COMPILERS`, which are
separated as in `$PATH`, or this one. TensorFlow is not needed there.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

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

ROOT = Path(__file__).parents[2]
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


def test_a_program_whose_peak_is_above_the_memory_does_not_fit(two_chips, capsys, monkeypatch):
    """The compiler for GPUs compiles it all the same."""
    place = topologies.find("cpu:2")
    small = place._replace(chip=place.chip._replace(memory=1000))
    monkeypatch.setattr(topologies, "find", lambda name: small)
    text = compiled(capsys, "--config=supervised_digits")
    assert "| fits in 1.0 kB | no: it needs " in text
    assert "| peak of memory | " in text


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
            "--topology is 'v9:2x2'; allowed: v4:2x2x1, v5e:2x4, v5p:2x2x1, v6e:2x4, h100:8; larg",
        ),
        (["--config=fixmatch_cifar10", "--topology=v5e"], "--topology is 'v5e'; allowed: v4:"),
        (["--config=fixmatch_cifar10", "--topology=h100:0"], "'h100:0'; allowed: v4:2x2x1"),
        (["--config=fixmatch_cifar10", "--topology=h100:2x4"], "'h100:2x4'; allowed: v4:2x2x1"),
        (
            ["--config=fixmatch_cifar10", "--topology=h100:12"],
            "; h100:1 to h100:8, and multiples of 8",
        ),
        (
            ["--config=fixmatch_cifar10", "--topology=v5e:2x4", "--data_shape=3,4"],
            "--data_shape is 3,4; allowed: images,height,width,channels,classes",
        ),
    ],
)
def test_bad_input_is_one_line(args, message, capsys):
    assert message in refused(capsys, "--mode=compile", *args)


def test_the_compilers_are_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(capsys, "--mode=compile", "--config=fixmatch_cifar10", "--topology=v5e:2x4")
    assert "needs libtpu, the compiler for TPUs, which is not installed: pip install" in line
    line = refused(capsys, "--mode=compile", "--config=fixmatch_cifar10", "--topology=h100:8")
    assert "needs JAX's CUDA plugin, the compiler for NVIDIA GPUs, which is not installed" in line
    assert "pip install -e '.[cuda]'" in line


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


def compiled_elsewhere(compiler, *args):
    """Runs the mode in an interpreter that has a compiler, a module."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({compiler!r}) is None)"
    given = [
        python for python in os.environ.get("SSLJAX_COMPILERS", "").split(os.pathsep) if python
    ]
    for python in [*given, sys.executable]:
        if subprocess.run([python, "-c", code]).returncode == 0:
            command = [python, "launch.py", "--mode=compile", "--config=supervised_digits", *args]
            return subprocess.run([*command, *TINY], cwd=ROOT, capture_output=True, text=True)
    pytest.skip(f"neither $SSLJAX_COMPILERS nor this interpreter has {compiler}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:3x5", "v5e:2x4"])
def test_a_tiny_recipe_is_compiled_for_a_v5e(name):
    done = compiled_elsewhere("libtpu", f"--topology={name}")
    if name == "v5e:3x5":
        assert done.returncode == 2
        assert "'v5e:3x5', which libtpu refuses" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "supervised_digits on v5e:2x4: 8 chips" in done.stdout
    assert "| fits in 16.9 GB | yes | yes |" in done.stdout
    assert "| transfers to or from the host | none | none |" in done.stdout
    assert "kernels" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8, 16])
def test_a_tiny_recipe_is_compiled_for_h100s(count, tmp_path):
    batch = ("--config.per_worker_batch_size=2",) if count > 8 else ()
    output = tmp_path / "found.json"
    done = compiled_elsewhere(
        "jax_cuda12_plugin", f"--topology=h100:{count}", f"--output={output}", *batch
    )
    assert done.returncode == 0, done.stderr
    assert f"supervised_digits on h100:{count}: {count} chips" in done.stdout
    assert "| fits in 63.7 GB | yes | yes |" in done.stdout
    found = json.loads(output.read_text())["step"]
    assert ("all-reduce" in found["collectives"]) == (count > 1)
    assert found["launches"]["kernels"] > found["launches"]["of_libraries"] > 5
    assert found["launches"]["host_conditions"] == 2  # of the steps, and of the one order


def test_an_unknown_shape_of_a_topology_is_named():
    with pytest.raises(UsageError, match="--topology is ''; allowed: v4:2x2x1"):
        topologies.find("")
