"""Tests what the documentation says can be run: commands, and the README's example method."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssljax.methods
import ssljax.models
from helpers.tiny import TINY_PHOTOS
from ssljax import cli, flags, recipe
from ssljax.data import splits
from ssljax.export import predict as export_predict
from ssljax.lookup import find, modules_of
from ssljax.run import loop

ROOT = Path(__file__).parents[1]


def commands(document):
    for line in (ROOT / document).read_text().splitlines():
        if line.strip().startswith("python launch.py --config=") and "…" not in line:
            command = line.strip().replace("$seed", "1").replace("$labels", "250")
            yield command.replace("$views", "4")


def load(command):
    """Returns the config that a command trains."""
    arguments = re.sub(r"^(python launch.py|ssljax) ", "", command)
    return flags.parse(shlex.split(arguments)).config()


@pytest.mark.parametrize("command", [*commands("docs/recipes.md")])
def test_a_published_row_s_command_is_a_recipe(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load(command)
    name = splits.parse(config.dataset)
    data = re.sub("_(noextra|open[0-9]*)$", "", name.dataset)
    assert data in ("cifar10", "cifar100", "svhn", "stl10")
    mirrored = data == "svhn" and (config.augment.strong == "usb_randaugment")
    family = {"cifar10": "cifar", "cifar100": "cifar", "svhn": "cifar" if mirrored else "svhn"}
    assert config.augment.weak == f"weak_{family.get(data, data)}"
    methods = modules_of(ssljax.methods, without=["method"])
    find("config.method", config.method, methods)(**config.method_args)
    models = modules_of(ssljax.models, without=["layers", "convolution"])
    find("config.model", config.model, models)(num_classes=10, **config.model_args)


def test_the_knobs_that_replace_the_tf2_flags_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    document = "docs/from_fixmatch_tf.md"
    (command,) = commands(document)
    config = load(command)
    assert (config.augment.type, config.steps_per_run) == ("cta", 1000)
    knobs = set(re.findall(r"`config\.([\w.]+)", (ROOT / document).read_text())) - {"json"}
    assert len(knobs) > 25
    for knob in knobs:
        outer, _, inner = knob.rpartition(".")
        assert inner in (config[outer] if outer else config), knob


def test_the_method_of_the_readme_trains(tmp_path, monkeypatch):
    section = (ROOT / "README.md").read_text().split("## Add your own method")[1].split("\n## ")[0]
    method, recipe_file = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (short,) = re.findall(r"`(ssljax .*)`", section)
    (command,) = re.findall(r"    (ssljax .*)", section)
    (tmp_path / "my_methods.py").write_text(method)
    (tmp_path / "entropy_minimization_digits.py").write_text(recipe_file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    assert load(short).method_args.to_dict() == {"entropy_weight": 0.1}
    config = load(command)
    assert config.method_args.to_dict() == {"entropy_weight": 0.3}
    config.model_args.filters = 4
    config.model_args.scales = 1
    config.num_steps = config.eval_every = config.log_every = 2
    loop.train(recipe.build(config), tmp_path / "run")
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0 < row["loss/entropy"] <= 2.31  # log 10
    total = row["loss/xe"] + 0.3 * row["loss/entropy"]
    assert row["loss/total"] == pytest.approx(total, rel=1e-5)


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/notebook.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    short = "num_steps=8, eval_every=4, log_every=4, model_args={'filters': 4, 'scales': 1}"
    source = "".join(blocks)
    assert source.count("num_steps=1000") == 1
    names = {}
    exec(compile(source.replace("num_steps=1000", short), "notebook.md", "exec"), names)

    assert names["probabilities"].shape == (1337, 10)
    assert names["guesses"].probabilities.shape == (56, 10)
    assert set(np.asarray(names["guesses"].weights)) <= {0.0, 1.0}
    assert [row["step"] for row in names["rows"]] == [4, 8]
    assert (tmp_path / "digits.png").stat().st_size > 1000
    assert "test accuracy: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_of_the_page_on_photos_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos")
    make_photos(tmp_path / "holiday")
    page = (ROOT / "docs/photos.md").read_text()
    commands = re.findall(r"^ +((?:ssljax|python -m ssljax\.export\.predict) .*)$", page, re.M)
    assert len(commands) >= 9
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "python":
            assert export_predict.main(arguments[2:]) == 0, command
            continue
        if "--config=photos" in arguments:
            arguments += [*TINY_PHOTOS, "--config.num_steps=120"]
        if "--mode=add_labels" in arguments:
            fill_in(tmp_path / "runs/photos/label_next/label_next.csv")
        assert cli.main(arguments) == 0, command


def make_photos(folder):
    """Writes reddish cats and greenish dogs, which a few steps can tell apart."""
    random = np.random.default_rng(0)
    for part, colour in {
        "train/cat": 0,
        "train/dog": 1,
        "unlabeled": 0,
        "unlabeled/deep": 1,
    }.items():
        (folder / part).mkdir(parents=True)
        for i in range(90):
            pixels = random.integers(0, 120, (10, 12, 3), np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(folder / part / f"{i}.png")


def fill_in(path):
    """Fills in the labels of the selected images."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            is_dog = "dog" in row["file"] or "deep" in row["file"]
            writer.writerow(row | {"label": "dog" if is_dog else "cat"})
