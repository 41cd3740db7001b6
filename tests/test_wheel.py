"""Tests the built wheel: its contents, and training from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import pytest

from ssljax import recipe_files

ROOT = Path(__file__).parents[1]
TINY = ("num_steps=4", "eval_every=4", "model_args.filters=4", "model_args.scales=1")
OF_DEFAULTS = """
from ssljax import defaults


def get_config():
    config = defaults.get_config()
    config.model_args = dict(filters=4, scales=1)
    config.batch_size = 8
    config.cpu_devices = 1
    return config
"""
OF_A_RECIPE = """
from configs import fixmatch_digits


def get_config():
    config = fixmatch_digits.get_config()
    config.seed = 7
    return config
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the project, because a build leaves folders in the source."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel")
    copy, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("ssljax", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", output]
    subprocess.run([*command, copy], check=True)
    (path,) = output.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new virtual environment with the wheel; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # In a folder added by a .pth file, further .pth files are not read, such as that of the
    # editable ssljax.
    (packages / "dependencies.pth").write_text(f"{Path(jax.__file__).parents[1]}\n")
    return folder / "bin"


@pytest.fixture
def run(environment, tmp_path):
    """Runs a program of the environment in an empty folder; returns its output."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def program(name, *arguments):
        command = [environment / name, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return program


def test_the_wheel_holds_the_package_its_data_and_the_recipes(wheel):
    files = [path for path in (ROOT / "ssljax").rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    expected |= {f"ssljax/{path.relative_to(ROOT)}" for path in (ROOT / "configs").glob("*.py")}
    assert {"ssljax/py.typed", "ssljax/report/page.html"} < expected
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    assert held == expected


@pytest.mark.slow
def test_the_wheel_lists_the_recipes(run, environment):
    assert run("python", "-c", "import ssljax; print(ssljax.__file__)").startswith(
        str(environment.parent)
    )
    printed = run("python", "-m", "ssljax", "--mode=recipes")
    recipes = set(recipe_files.shipped())
    assert {line.split()[0] for line in printed.splitlines()} == recipes


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, OF_DEFAULTS, OF_A_RECIPE])
def test_the_wheel_trains_a_shipped_recipe_and_one_s_own(text, run, tmp_path):
    recipe = "fixmatch_digits" if text is None else "mine.py"
    if text is not None:
        (tmp_path / recipe).write_text(text)
    overrides = [f"--config.{override}" for override in TINY]
    run("ssljax", f"--config={recipe}", "--workdir=run", *overrides)
    assert (tmp_path / "run" / "results.json").exists()
