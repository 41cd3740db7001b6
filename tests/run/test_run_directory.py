"""Tests the comparison with a run directory before anything is computed or written."""

import dataclasses
import json

import fsspec
import numpy as np
import pytest

from helpers.tiny import build, tiny_config
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.errors import UsageError
from ssljax.run import directory, loop, seeds
from ssljax.storage.files import write_sealed

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def experiment():
    """An experiment on eight tiny images in a folder, which are not read."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 8, 8, 1), np.uint8), np.arange(8) % 2
    data = Dataset(images, labels, images[:4], labels[:4], 2, NAMES)
    split = Split(np.arange(4), np.arange(8), np.arange(0))
    return replaced(build(tiny_config()), dataset=data, split=split, name="folder:/old/pets.1@4-0")


def replaced(experiment, *, name=None, split=None, **data):
    """Returns the experiment with other data."""
    dataset = data.pop("dataset", experiment.dataset)._replace(**data)
    config = experiment.config | ({"dataset": name} if name else {})
    split = split or experiment.split
    return dataclasses.replace(experiment, config=config, dataset=dataset, split=split)


def files(workdir):
    return {path.name: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.fixture
def workdir(experiment, tmp_path):
    directory.open_directory(tmp_path / "run", experiment)
    return tmp_path / "run"


def test_other_data_are_refused_and_nothing_is_written(experiment, workdir):
    before, data = files(workdir), experiment.dataset
    brighter = data.images.copy()
    brighter[3, 0, 0] ^= 1
    for change, message in (
        ({"class_names": ("dog", "zebra")}, "class 0 as 'cat', which in config.dataset is 'dog'"),
        ({"class_names": ("cat",)}, "class 1 as 'dog', which in config.dataset is None"),
        ({"images": brighter}, "other training images or labels .* fingerprint is"),
        ({"labels": 1 - data.labels}, "other training images or labels"),
        ({"test_images": data.test_images[::-1]}, "other test images or labels"),
        ({"images": data.images.reshape(8, 4, 16, 1)}, "images of 8×8×1; .* are 4×16×1"),
    ):
        with pytest.raises(UsageError, match=message):
            directory.open_directory(workdir, replaced(experiment, **change))
        assert files(workdir) == before


def test_a_folder_that_has_moved_is_the_same_run(experiment, workdir):
    moved = replaced(experiment, name="folder:/new/pets.1@4-0")
    directory.open_directory(workdir, moved)
    assert json.loads((workdir / "config.json").read_text())["dataset"] == "folder:/new/pets.1@4-0"
    for name in ("folder:/new/pets.2@4-0", "npz:/new/pets.1@4-0", "digits.1@4-0"):
        with pytest.raises(UsageError, match=r"config\.dataset='"):
            directory.open_directory(workdir, replaced(experiment, name=name))


def test_a_run_of_a_version_without_fingerprints_goes_on(experiment, workdir):
    record = json.loads((workdir / "data.json").read_text())
    old = {name: record[name] for name in ("image_shape", "class_names")}
    write_sealed(workdir / "data.json", old)
    moved = replaced(experiment, name="folder:/new/pets.1@4-0")
    with pytest.raises(UsageError, match=r"config\.dataset='folder:/old"):  # unidentified
        directory.open_directory(workdir, moved)
    directory.open_directory(workdir, experiment)
    assert json.loads((workdir / "data.json").read_text()) == record
    directory.open_directory(workdir, moved)


def test_a_run_of_a_version_without_a_knob_has_its_default(experiment, workdir):
    recorded = json.loads((workdir / "config.json").read_text())
    assert recorded.pop("labels_per_class") == "natural"
    write_sealed(workdir / "config.json", recorded)
    config = experiment.config | {"labels_per_class": "balanced"}
    with pytest.raises(UsageError, match="config.labels_per_class='natural', not 'balanced'"):
        directory.open_directory(workdir, dataclasses.replace(experiment, config=config))
    directory.open_directory(workdir, experiment)


def test_the_split_says_how_many_labels_each_class_has(experiment, workdir):
    record = json.loads((workdir / "split.json").read_text())
    assert record.pop("class_counts") == [2, 2]
    (workdir / "config.json").unlink()
    write_sealed(workdir / "split.json", record)  # left by a start of an older version
    directory.open_directory(workdir, experiment)
    assert json.loads((workdir / "split.json").read_text())["class_counts"] == [2, 2]
    (workdir / "config.json").unlink()
    write_sealed(workdir / "split.json", record | {"class_counts": [3, 1]})
    with pytest.raises(UsageError, match="split.json already exists with other content"):
        directory.open_directory(workdir, experiment)


@pytest.mark.parametrize("name", ["split.json", "data.json"])
def test_a_file_of_one_s_own_is_not_overwritten(experiment, name, tmp_path):
    (tmp_path / name).write_text('{"labeled": [0, 1]}')
    with pytest.raises(UsageError, match=f"{name} already exists with other content"):
        directory.open_directory(tmp_path, experiment)
    assert files(tmp_path) == {name: b'{"labeled": [0, 1]}'}


def test_a_split_written_by_hand_is_not_overwritten_by_one_that_says_the_same(experiment, workdir):
    record = json.loads((workdir / "split.json").read_text())
    for name in ("config.json", "SHA256SUMS"):
        (workdir / name).unlink()
    by_hand = json.dumps({name: record[name] for name in ("labeled", "unlabeled", "valid")})
    (workdir / "split.json").write_text(by_hand)
    with pytest.raises(UsageError, match="split.json already exists with other content"):
        directory.open_directory(workdir, experiment)
    assert (workdir / "split.json").read_text() == by_hand


def test_what_a_killed_start_has_left_is_taken_over(experiment, workdir):
    before = files(workdir)
    (workdir / "config.json").unlink()
    directory.open_directory(workdir, experiment)
    assert files(workdir) == before


def test_a_run_is_not_made_shorter(experiment, workdir, tmp_path):
    (workdir / "checkpoints" / "12").mkdir(parents=True)
    before = files(workdir)
    shorter = dataclasses.replace(experiment, num_steps=8)
    message = "holds a run that is at step 12, and config.num_steps is 8; allowed: from 12 up"
    with pytest.raises(UsageError, match=message):
        loop.train(shorter, workdir)
    assert {**files(workdir), "lock": b""} == {**before, "lock": b""}
    workdir.rename(workdir.with_name(f"seed={experiment.seed}"))
    with pytest.raises(UsageError, match=message):
        seeds.train([shorter], workdir.parent)
    (tmp_path / f"seed={experiment.seed}" / "results.json").write_text("{}")
    with pytest.raises(UsageError, match=message):
        seeds.train([shorter], workdir.parent)


def test_processes_may_find_their_data_elsewhere_and_must_have_all_else_alike(
    experiment, monkeypatch
):
    described = []

    def note(description):
        described.append(json.loads(json.dumps(description)))
        raise UsageError("seen")

    monkeypatch.setattr(loop.hosts, "require_same", note)
    optimizer = experiment.config["optimizer"] | {"lr": 0.5}
    for one, workdir in (
        (experiment, "a"),
        (replaced(experiment, name="folder:/new/pets.1@4-0"), "a"),
        (dataclasses.replace(experiment, config=experiment.config | {"data_dir": "/x"}), "a"),
        (dataclasses.replace(experiment, config=experiment.config | {"optimizer": optimizer}), "a"),
        (replaced(experiment, labels=1 - experiment.dataset.labels), "a"),
        (replaced(experiment, split=experiment.split._replace(valid=np.arange(1))), "a"),
        (experiment, "b"),
    ):
        with pytest.raises(UsageError, match="seen"):
            loop.train(one, workdir)
    first = described[0]
    assert described[1:3] == [first, first]
    differences = [{key for key in first if first[key] != each[key]} for each in described[3:]]
    assert differences == [{"config.optimizer.lr"}, {"data"}, {"split"}, {"workdir"}]


def test_a_url_that_holds_another_run_is_left_alone(experiment, tmp_path):
    url = "memory://bucket/elsewhere"
    other = experiment.config | {"seed": 7}
    fsspec.filesystem("memory").pipe("/bucket/elsewhere/config.json", json.dumps(other).encode())
    mirrored = dataclasses.replace(experiment, train_url=url)
    line = rf"config.stage.train_url {url} holds a run with config.seed=7, not {experiment.seed};"
    with pytest.raises(UsageError, match=line):
        loop.train(mirrored, tmp_path / "run")
    with pytest.raises(UsageError, match=f"--workdir {url} holds a run with config.seed=7"):
        loop.train(experiment, tmp_path / "home", home=url)
    assert fsspec.filesystem("memory").find("/bucket") == ["/bucket/elsewhere/config.json"]
