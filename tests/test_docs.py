"""What the documentation says can be run: its commands, its code, and its own method."""

import csv
import importlib
import inspect
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssljax.methods
import ssljax.models
from helpers.tiny import TINY_PHOTOS
from ssljax import cli, flags, overrides, recipe
from ssljax.data import splits
from ssljax.export import npu_run
from ssljax.export import predict as export_predict
from ssljax.lookup import find, modules_of
from ssljax.run import loop

ROOT = Path(__file__).parents[1]


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
# What commands of the documentation leave to the reader, and what a test gives them.
BLANKS = {
    "$seed": "1",
    "$labels": "250",
    "$views": "4",
    "<data_dir>": "data",
    "…": "fixmatch_digits",
}
OURS = r"(?:python launch\.py|\.venv/bin/python launch\.py|ssljax)"


def lines_of(document):
    """The lines of a page's code blocks, those that a backslash breaks as one."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        if line.startswith("    ") and not inside:
            yield re.sub(r" +", " ", line.partition("  #")[0]).strip()


def commands(document):
    """The commands of a page that run ssljax, ready to be parsed."""
    for line in lines_of(document):
        if re.match(f"{OURS} ", line):
            yield line


def filled(command):
    for blank, value in BLANKS.items():
        command = command.replace(blank, value)
    return command


def parse(command):
    """A command, by the program's own parser of flags."""
    return flags.parse(shlex.split(re.sub(f"^{OURS} ", "", filled(command))))


def load(command):
    """The config that a command trains."""
    return parse(command).config()


EVERY_COMMAND = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), EVERY_COMMAND)
def test_a_command_is_one_that_the_program_takes(page, command, monkeypatch, tmp_path):
    """Flags and knobs exist, the mode takes them, and values have the right types; the method and
    the model of a recipe that ships take their arguments."""
    if page == "docs/extend.md":
        pytest.skip("the tests of this page run it")
    monkeypatch.chdir(ROOT)
    if "${recipe}" in command:
        command = command.replace("${recipe}", "fixmatch")
    if "$1_digits" in command:
        command = re.sub(r' "\$\{@:2\}".*', "", command.replace("$1", "fixmatch"))
    parsed = parse(command)
    assert parsed.mode in flags.MODES
    if parsed.recipe is None:
        return
    config = parsed.config()
    if not config.dataset.startswith("imagenet"):
        splits.parse(config.dataset)
    if "." not in config.method:
        methods = modules_of(ssljax.methods, without=["method"])
        find("config.method", config.method, methods)(**config.method_args)
    if parsed.sweep and parsed.sweep != "config":
        assert overrides.grid(parsed.sweep)


@pytest.mark.parametrize("page", PAGES)
def test_other_programs_of_a_page_take_its_arguments(page, monkeypatch):
    for line in lines_of(page):
        line = filled(re.sub(r"\[.*?\]", "", line)).removeprefix(".venv/bin/")
        if line.startswith("python -m ssljax.export.predict "):
            export_predict._parser().parse_args(shlex.split(line)[3:])
        elif line.startswith("python run.py "):
            monkeypatch.setitem(sys.modules, "npu_bridge", importlib)
            monkeypatch.setitem(sys.modules, "npu_bridge.npu_init", importlib)
            npu_run.parse(shlex.split(line)[2:])
        elif line.startswith("python -m benchmarks."):
            program, *arguments = shlex.split(line)[2:]
            source = (ROOT / f"{program.replace('.', '/')}.py").read_text()
            for argument in arguments:
                name = argument.partition("=")[0]
                if name.startswith("--config."):
                    assert "config" in source
                elif name.startswith("--"):
                    assert f'"{name}"' in source or name in ("--config",), line
        elif line.startswith("make "):
            targets = (ROOT / "Makefile").read_text()
            assert f"\n{line.split()[1]}:" in targets, line
        for extra in re.findall(r"\.\[(\w+(?:,\w+)*)\]", line):
            for name in extra.split(","):
                assert re.search(f"^{name} = \\[", (ROOT / "pyproject.toml").read_text(), re.M)


ROWS = [
    filled(command)
    for command in commands("docs/recipes.md")
    if "--mode=" not in command and "imagenet" not in command  # parsed above
]


@pytest.mark.parametrize("command", ROWS)
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


def test_the_knobs_of_the_imagenet_recipes_replace_the_tf2_flags(monkeypatch):
    monkeypatch.chdir(ROOT)
    document = "docs/from_fixmatch_tf.md"
    (command,) = (command for command in commands(document) if "1000" in command)
    config = load(command)
    assert (config.augment.type, config.steps_per_run) == ("cta", 1000)
    knobs = set(re.findall(r"`config\.([\w.]+)", (ROOT / document).read_text())) - {"json"}
    assert len(knobs) > 25
    for knob in knobs:
        outer, _, inner = knob.rpartition(".")
        assert inner in (config[outer] if outer else config), knob


# What the recipes of ImageNet have, and other recipes have not.
OF_IMAGENET = {"base_lr", "confidence", "decay_epochs", "warmup_epochs", "wu", "weight_decay"}


@pytest.mark.parametrize("page", [p for p in PAGES if p != "docs/from_fixmatch_tf.md"])
def test_the_knobs_that_a_page_names_exist(page):
    """A knob is one of the defaults, or an argument of a method or a model."""
    config = overrides.load("fixmatch_digits")
    functions = {"method_args": arguments_of(ssljax.methods, ["method"])}
    functions["model_args"] = arguments_of(
        ssljax.models, ["layers", "convolution", "key_maps", "vit_keys"]
    )
    text = (ROOT / page).read_text()
    for knob in set(re.findall(r"(?:`|--)config\.([a-z_0-9.]*[a-z_0-9])", text)):
        if knob in ("json", "augment.type"):
            continue
        outer, _, inner = knob.rpartition(".")
        if outer in functions:
            assert inner in functions[outer] or inner in ("entropy_weight", "width"), knob
        else:
            assert inner in (config[outer] if outer else config) or inner in OF_IMAGENET, knob


def arguments_of(package, without):
    """The names of the arguments of all functions that a config can name."""
    names = set()
    for module in modules_of(package, without=without):
        for name, function in vars(module).items():
            if callable(function) and not name.startswith("_"):
                try:
                    names |= set(inspect.signature(function).parameters)
                except (TypeError, ValueError):
                    continue
    return names


def test_the_methods_page_has_every_method_and_only_figures_of_published_rows():
    page = (ROOT / "docs/methods.md").read_text()
    rows = (ROOT / "docs/recipes.md").read_text()
    headings = set(re.findall(r"^### (\w+)$", page, re.M))
    files = {path.stem for path in (ROOT / "ssljax/methods").glob("*.py")}
    assert headings == files - {"__init__", "method"}
    readme = (ROOT / "README.md").read_text()
    for name in headings:
        assert f"`{name}`" in readme, name
        assert f"![{name}: " in page
        assert f"(pictures/methods/{name}.svg)" in page
    figures = re.findall(r"^Published: .*?([\d.]+(?: ± [\d.]+)?) on", page, re.M)
    assert len(figures) >= 15
    for figure in figures:
        assert f" {figure} " in rows, figure
    table = {
        re.sub(r"python launch\.py --config=configs/(\w+)\.py", r"ssljax --config=\1", command)
        for command in commands("docs/recipes.md")
    }
    for command in commands("docs/methods.md"):
        if "$seed" in command and "supervised" not in command:
            # The page of rows says that these have FlexMatch's recipes under their names.
            same = re.sub("=(freematch|softmatch|adamatch|simmatch)_", "=flexmatch_", command)
            assert same in table, command


def test_the_pictures_of_methods_are_those_that_the_script_draws():
    scope = {"__name__": "pictures", "__file__": str(ROOT / "docs/method_pictures.py")}
    exec((ROOT / "docs/method_pictures.py").read_text(), scope)
    for name, parts in scope["PICTURES"].items():
        path = ROOT / f"docs/pictures/methods/{name}.svg"
        assert path.read_text() == scope["picture"](*parts), "python docs/method_pictures.py"


def test_the_map_of_files_names_every_module():
    text = (ROOT / "docs/developer.md").read_text()
    package = ROOT / "ssljax"
    for path in package.glob("*"):
        if path.suffix == ".py":
            assert path.name in text, path.name
        elif path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in text, path.name
    there = {
        path.name for folder in ("ssljax", "configs") for path in (ROOT / folder).rglob("*.py")
    }
    there |= {path.name for path in ROOT.glob("*.py")}
    named = set(re.findall(r"\b(\w+\.py)\b", text.split("## Map of files")[1]))
    assert not named - there
    for folder in ("export", "inference", "report", "run"):
        files = {path.name for path in (package / folder).glob("*.py")} - {"__init__.py"}
        assert files <= named, folder


def test_the_method_of_the_page_trains(tmp_path, monkeypatch):
    section = (ROOT / "docs/extend.md").read_text().split("## A method\n")[1].split("\n## ")[0]
    method, recipe_file = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    short, command = re.findall(r"^    (ssljax .*)", section, re.M)
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


@pytest.mark.parametrize(
    "title",
    [
        "A model",
        pytest.param("A data set", marks=pytest.mark.slow),
        pytest.param("An augmentation", marks=pytest.mark.slow),
    ],
)
def test_what_the_page_adds_trains(title, tmp_path, monkeypatch):
    section = (ROOT / "docs/extend.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (file,) = re.findall(r"into\s+`(my_\w+\.py)`", section)
    lines = re.findall(r"^    (ssljax .*)", section, re.M)
    assert len(lines) == len(blocks)
    (tmp_path / file).write_text("\n\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    for number, command in enumerate(lines):
        config = load(command)
        assert file.removesuffix(".py") in str(config)
        if title != "A model":
            config.model_args.filters = 4
            config.model_args.scales = 1
        config.num_steps = config.eval_every = config.log_every = 2
        results = loop.train(recipe.build(config), tmp_path / f"run_{number}")
        assert results["step"] == 2


def test_the_readme_s_lines_of_python_run(monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    short = "num_steps=8, eval_every=4, log_every=4, model_args={'filters': 4, 'scales': 1}"
    assert code.count("num_steps=1000") == 1
    printed = []
    exec(code.replace("num_steps=1000", short), {"print": printed.append})
    assert 0 <= printed[0] <= 1


def test_the_library_page_s_lines_run():
    page = (ROOT / "docs/library.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    short = "num_steps=8, eval_every=4, log_every=4, model_args={'filters': 4, 'scales': 1}"
    assert code.count("num_steps=1000") == 1
    printed = []
    exec(code.replace("num_steps=1000", short), {"print": printed.append})
    assert 0 <= printed[0] <= 1


@pytest.mark.slow
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
        if "--config=photos_cpu" in arguments:
            continue  # its weights are downloaded
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
