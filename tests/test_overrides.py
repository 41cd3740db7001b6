"""Tests recipes by name and by file, overrides, and messages about invalid ones, in process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssljax import overrides, recipe, recipe_files, sweep
from ssljax.errors import UsageError
from ssljax.report import runs
from ssljax.run import resume

ROOT = Path(__file__).parents[1]


def value(config, knob):
    return overrides.flatten(config.to_dict())[knob]


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("uda_digits", "method_args.tsa=exp", "exp"),
        ("mixmatch_digits", "method_args.nu=3", 3),
        ("remixmatch_digits", "method_args.w_rot=0", 0.0),
    ],
)
def test_an_argument_that_a_recipe_leaves_out_is_overridden(name, override, expected, untraced):
    config = overrides.load(name, [override])
    experiment = recipe.build(config)
    knob = override.partition("=")[0]
    assert overrides.flatten(experiment.config)[knob] == expected
    assert len(experiment.method.views) == {"uda": 2, "mixmatch": 3, "remixmatch": 3}[config.method]
    assert not experiment.method.heads  # w_rot=0


def test_arguments_of_another_method_and_model_go_when_those_are_overridden():
    config = overrides.load("fixmatch_digits", ["method=mixmatch", "model=convnet"])
    assert "threshold" not in config.method_args
    assert config.method_args.w_match == 75.0
    assert config.model_args.to_dict() == {"filters": 32, "scales": None}


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("fixmatch_digits", "optimizer.decay_epochs=3", (3,)),
        ("fixmatch_digits", "optimizer.decay_epochs=(3,4)", (3, 4)),
        ("fixmatch_digits", "health.stop_on=('collapse','mask_rate')", ("collapse", "mask_rate")),
        ("fixmatch_digits", "bfloat16=true", True),
        ("fixmatch_digits", "optimizer.lr=1", 1.0),
        ("fixmatch_digits", "dataset=folder:/a=b.1@40-0", "folder:/a=b.1@40-0"),
        ("fixmatch_cifar10", "model_args.scales=3", 3),
        ("fixmatch_imagenet", "augment.randaugment_magnitude=0.5", 0.5),
        ("fixmatch_imagenet", "model_args.blocks=(1,1,1,1)", (1, 1, 1, 1)),
    ],
)
def test_values_have_the_type_of_their_knob(name, override, expected):
    found = value(overrides.load(name, [override]), override.partition("=")[0])
    assert (found, type(found)) == (expected, type(expected))


def test_the_last_of_two_overrides_counts_and_a_mapping_is_one():
    assert overrides.load("fixmatch_digits", ["seed=1", "seed=2"]).seed == 2
    given = {"seed": 3, "optimizer.decay_epochs": (1, 2), "method_args.weak_pass": "no_grad"}
    config = overrides.load("fixmatch_digits", given)
    assert {knob: value(config, knob) for knob in given} == given


def test_knobs_that_are_tied_stay_tied():
    config = overrides.load("fixmatch_imagenet", ["wu=3", "base_lr=.5", "optimizer.weight_decay=1"])
    assert config.method_args.unlabeled_weight == 3.0
    assert (config.optimizer.lr, config.weight_decay) == (0.5, 1.0)
    config.confidence = 0.9
    assert config.method_args.threshold == 0.9
    assert config.augment.type == config.augment.strong == "randaugment"


NEAREST = "does not exist; the nearest knob is config."


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("fixmatch_digits", "threshold=.9", f"config.threshold {NEAREST}method_args.threshold"),
        ("fixmatch_digits", "wd=1", f"config.wd {NEAREST}optimizer.weight_decay"),
        ("fixmatch_digits", "lr=1", f"config.lr {NEAREST}optimizer.lr"),
        ("fixmatch_digits", "mu=7", f"config.mu {NEAREST}uratio"),
        ("mixmatch_digits", "T=1", f"config.T {NEAREST}method_args.temperature"),
        ("fixmatch_digits", "T=1", "config.T does not exist: config.method fixmatch has no "
         "temperature, an argument of comatch, dash, mixmatch, remixmatch, self_training, "
         "simmatch, uda; config.method_args has threshold, unlabeled_weight, weak_pass"),
        ("fixmatch_digits", "method_args.temperature=1", "config.method fixmatch has no temp"),
        ("mixmatch_digits", "treshold=1", "config.method mixmatch has no threshold, an argument"),
        ("fixmatch_imagenet", "filters=8", "config.model resnet50 has no filters, an argument"),
        ("fixmatch_digits", "lambda_u=1", f"config.lambda_u {NEAREST}method_args.unlabeled_weight"),
        ("mixmatch_digits", "lambda_u=1", f"config.lambda_u {NEAREST}method_args.w_match"),
        ("ict_digits", "lambda_u=1", f"config.lambda_u {NEAREST}method_args.consistency_weight"),
        ("fixmatch_digits", "filters=8", f"config.filters {NEAREST}model_args.filters"),
        ("fixmatch_digits", "num-steps=5", "config.num-steps does not exist: knobs are written "
         "with _, --config.num_steps"),
        ("fixmatch_digits", "treshold=1", f"config.treshold {NEAREST}method_args.threshold"),
        ("fixmatch_digits", "optimizer.momentun=1", f"{NEAREST}optimizer.momentum"),
        ("fixmatch_digits", "batchsize=1", f"config.batchsize {NEAREST}batch_size"),
        ("fixmatch_digits", "seed", "config.seed has no value; overrides are written --config.s"),
        ("fixmatch_digits", "seed=x", "--config.seed=x has another type; allowed: a whole number"),
        ("fixmatch_digits", "seed=1.5", "--config.seed=1.5 has another type; allowed: a whole n"),
        ("fixmatch_digits", "bfloat16=maybe", "--config.bfloat16=maybe has another type; allowed: "
         "true or false"),
        ("fixmatch_digits", "optimizer.lr=x", "--config.optimizer.lr=x has another type; allowed: "
         "a number"),
        ("fixmatch_imagenet", "augment.randaugment_magnitude=x", "type; allowed: a number"),
        ("fixmatch_digits", "method_args=3", "--config.method_args=3"),
        ("fixmatch_digit", "seed=1", "--config=fixmatch_digit is neither a file nor a recipe; the "
         "nearest recipe is fixmatch_digits"),
    ],
)  # fmt: skip
def test_a_wrong_override_gets_one_line_that_leads_somewhere(name, override, message):
    with pytest.raises(UsageError) as caught:
        overrides.load(name, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


START = "from configs import base\n"
OWN = (
    "from configs import base\nimport ml_collections\n\ndef get_config():\n"
    "    c = base.get_config().unlock()\n    with c.ignore_type():\n        {}\n    return c\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 3\n", "mine.py has no function get_config()"),
        ("x = 3\ndef f(:\n", "mine.py, line 2: SyntaxError: "),
        ("x = 3\nx / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError: No module named 'nowhere_at"),
        (f"{START}def get_config():\n    return base.nope()\n", "line 3: AttributeError: module"),
        (f"{START}def get_config():\n    c = base.get_config()\n    c.batchsize = 3\n",
         "mine.py, line 4: AttributeError: Key \"batchsize\" does not exist and cannot be added "
         "since the config is locked. Did you mean \"batch_size\" instead of \"batchsize\"?"),
        ("def get_config():\n    return {}\n", "get_config() returned a dict; allowed: an ml_coll"),
        ("def get_config():\n    raise SystemExit(3)\n", "mine.py, line 2: SystemExit: 3"),
        ("exit()\n", "mine.py, line 1: SystemExit: "),
        ("get_config = 3\n", "TypeError: 'int' object is not callable"),
        ("def get_config(a):\n    pass\n", "TypeError: get_config() missing 1 required"),
        ("import sys\nsys.path\nx = sys.path.nope\n", "line 3: AttributeError: 'list' object has"),
        ("\x00", "source code string cannot contain null bytes"),
        (OWN.format("c.method = 3"), "config.method is 3; allowed: text"),
        (OWN.format("c.batch_size = '8'"), "config.batch_size is '8'; allowed: a whole number"),
        (OWN.format("c.batch_size = True"), "config.batch_size is True; allowed: a whole number"),
        (OWN.format("c.sync_bn = 'no'"), "config.sync_bn is 'no'; allowed: true or false"),
        (OWN.format("c.optimizer = 'sgd'"), "config.optimizer is 'sgd'; allowed: a ConfigDict of "),
        (OWN.format("c.optimizer.decay_epochs = ('x',)"), "decay_epochs, with ('x',), is 'x'; all"),
        (OWN.format("c.optimizer.decay_epochs = 3"), "decay_epochs is 3; allowed: values such as"),
        (OWN.format("c.health.stop_on = ('collapse', 3)"), "is 3; allowed: text"),
        ("def get_config():\n    pass\n", "get_config() returned a NoneType; allowed: an ml_colle"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_file_gets_one_line_with_its_place(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UsageError) as caught:
        overrides.load(str(tmp_path / "mine.py"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_recipes_import_leaves_no_trace(tmp_path, monkeypatch):
    """A shipped recipe sees no user folder; a user's recipe sees its folder; both see `configs`."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/neighbour.py").write_text("SEED = 3\n")
    (tmp_path / "other/mine.py").write_text(
        "import sys\nfrom configs import fixmatch_digits\nimport neighbour\nPATH = [*sys.path]\n"
    )
    path, modules = [*sys.path], {name for name in sys.modules if "configs" in name}
    ours = str(Path(recipe_files.__file__).parent)
    with recipe_files.running(tmp_path / "other/mine.py") as module:
        assert [str(tmp_path / "other"), *path] == module.PATH
    with recipe_files.running(recipe_files.recipe_file("fixmatch_digits")) as module:
        assert sys.path == path
        assert ours not in path
    assert sys.path == path
    assert {name for name in sys.modules if "configs" in name} == modules


def test_a_knob_that_stands_for_an_argument_of_another_method_is_refused():
    for other in ("uda", "mixmatch"):
        with pytest.raises(UsageError) as caught:
            overrides.load("fixmatch_imagenet", ["wu=3", f"method={other}"])
        assert str(caught.value) == (
            "--config.wu=3 would change nothing: it stands for config.method_args.unlabeled_weight "
            f"of fixmatch, and --config.method is {other}; set --config.method_args.<argument>"
        )
    config = overrides.load("fixmatch_imagenet", ["method=fixmatch", "confidence=.9"])
    assert config.method_args.threshold == 0.9
    assert overrides.load("fixmatch_imagenet", ["method=uda"]).method_args.threshold == 0.95


def test_a_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=r"mine.txt is not a recipe; allowed: a Python file"):
        overrides.load(str(tmp_path / "mine.txt"))


def test_an_argument_is_passed_to_the_recipe(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{START}def get_config(seed='5'):\n    c = base.get_config()\n    c.seed = int(seed)\n"
        "    return c\n"
    )
    assert overrides.load(f"{tmp_path}/mine.py").seed == 5
    assert overrides.load(f"{tmp_path}/mine.py:7", ["num_steps=3"]).seed == 7


def in_a_folder_of_its_own(folder, program):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_every_recipe_loads_in_an_empty_folder_without_jax(tmp_path):
    program = (
        "import sys\nfrom ssljax import overrides, recipe_files\n"
        "for name in recipe_files.shipped(): print(overrides.load(name).method, name)\n"
        "assert not {'jax', 'flax', 'optax'} & set(sys.modules)\n"
    )
    lines = in_a_folder_of_its_own(tmp_path, program)
    files = [
        file for file in (ROOT / "configs").glob("*.py") if "def get_config" in file.read_text()
    ]
    assert len(lines) == len(recipe_files.shipped()) == len(files)


@pytest.mark.parametrize("folder", ["configs", "anywhere"])
def test_a_recipe_elsewhere_imports_ours_and_its_neighbours(folder, tmp_path):
    (tmp_path / folder).mkdir()
    neighbour = "configs.neighbour" if folder == "configs" else "neighbour"
    (tmp_path / folder / "neighbour.py").write_text("SEED = 11\n")
    (tmp_path / folder / "mine.py").write_text(
        "from configs import fixmatch_digits\nfrom ssljax import defaults\n\n"
        f"def get_config():\n    from {neighbour} import SEED\n"
        "    config = fixmatch_digits.get_config()\n    config.seed = SEED\n"
        "    assert defaults.get_config().keys() == config.keys()\n    return config\n"
    )
    (tmp_path / "cwd").mkdir()
    program = (
        "from ssljax import overrides, recipe_files\n"
        f"config = overrides.load('../{folder}/mine.py', ['method_args.threshold=.5'])\n"
        "print(config.seed, config.method_args.threshold)\n"
    )
    assert in_a_folder_of_its_own(tmp_path / "cwd", program) == ["11 0.5"]


def test_reading_and_comparing_a_run_imports_nothing_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = overrides.load("fixmatch_digits").to_dict() | {
        "method": "evil_module.method",
        "model": "evil_module.model",
    }
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    (run / "split.json").write_text(json.dumps({"hash": "x"}))
    (run / "data.json").write_text(json.dumps({"image_shape": [8, 8, 1], "class_names": ["0"]}))
    (run / "results.json").write_text(json.dumps({"step": 2000}))
    assert runs.read(run, "run").config["method"] == "evil_module.method"
    assert sweep.is_finished(run, config)
    resume.require_same_run(run, config, "x")
    assert "evil_module" not in sys.modules


def test_a_recorded_config_without_arguments_is_the_same_run(tmp_path):
    """Runs of ImageNet recipes were recorded like this before their arguments were completed."""
    config = overrides.load("fixmatch_imagenet").to_dict()
    before = {**config, "model_args": {}, "method_args": {"unlabeled_weight": 10, "threshold": 0.7}}
    (tmp_path / "config.json").write_text(json.dumps(before))
    (tmp_path / "split.json").write_text(json.dumps({"hash": "x"}))
    data = {"image_shape": [224, 224, 3], "class_names": ["0"]}
    (tmp_path / "data.json").write_text(json.dumps(data))
    resume.require_same_run(tmp_path, config, "x")
    config["model_args"]["blocks"] = (1, 1, 1, 1)
    with pytest.raises(UsageError, match=r"config.model_args.blocks=\[3, 4, 6, 3\], not \[1, 1"):
        resume.require_same_run(tmp_path, config, "x")
