"""Tests the benchmark of the short CIFAR-10 runs on made metrics; the runs take hours."""

import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import cifar10_short, cifar10_short_results, cifar10_short_seeds, jobs
from benchmarks.cifar10_short_results import METHODS, PEER
from benchmarks.pictures import DOCS
from ssljax import overrides
from ssljax.data import datasets
from ssljax.data.datasets import Dataset
from ssljax.models import wide_resnet
from ssljax.report import facts, runs

SCRIPT = jobs.ROOT / "benchmarks" / "torch_peer.py"
TORCH = "SSLJAX_TORCH_PYTHON"  # an interpreter with torch, where this one has none


def made_rows(number, images=112, seconds=False):
    """Six evaluations and 300 other rows of a run on a labelled set, with accuracies by its number;
    seconds: as the peer writes them."""
    rows = []
    for step in range(1, 307):
        row = {"step": step, "loss/total": 1.0}
        row |= {"images_per_second": 56.0 if step > 1 else None} if not seconds else {}
        if step % 51 == 0:
            row |= {"test/accuracy_ema": 0.4 + number / 100 + step / 3060, "test/accuracy_raw": 0.4}
            row |= {"images": step * images, "seconds": step / 2} if seconds else {}
        if not seconds or "images" in row:
            rows.append(row)
    return rows


def make_runs(workdir):
    """Writes all complete runs, and one that is not."""
    for method in (*METHODS, PEER):
        for number in (1, 2, 3) if method != PEER else (1, 2):
            run = workdir / method / str(number)
            run.mkdir(parents=True)
            rows = made_rows(number, seconds=method == PEER)
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            start = {
                "step": 0,
                "versions": {},
                "devices": "",
                "machine": "",
                "images_per_step": 112,
            }
            (run / "environment.json").write_text(json.dumps({"starts": [start]}))
            jobs.note_done(run, ["it"])
    shutil.copytree(workdir / "fixmatch" / "1", workdir / "fixmatch" / "4")


def test_the_report_has_the_files_the_pictures_and_the_tables(tmp_path, capsys):
    make_runs(tmp_path / "runs")
    flags = ["--figure", f"--workdir={tmp_path / 'runs'}", f"--docs={tmp_path}"]
    cifar10_short.main(flags)
    printed = capsys.readouterr().out
    # 306 steps of 2 s; accuracies of 51, 52 and 53 % at the last one.
    row = "| 1, 2, 3 | 52.00 ± 1.00 | 40.00 ± 0.00 | 34,272 | 10.2 |"
    assert [line for line in printed.splitlines() if row in line] == [
        f"| {cifar10_short_results.TITLES[method]} {row}" for method in METHODS
    ]
    row = "| 1, 2 | 51.50 ± 0.71 | 40.00 ± 0.00 | 34,272 | 2.5 |"
    assert f"| FixMatch, PyTorch peer {row}" in printed
    assert "| 2 | 52.00 | 52.00 | 10.2 | 2.5 | 10.2 |" in printed
    folder = tmp_path / "results" / "cifar10_short"
    assert len(list(folder.glob("*.jsonl"))) == 11
    rows = [json.loads(line) for line in (folder / "mixmatch_2.jsonl").read_text().splitlines()]
    assert len(rows) == 106
    assert [row["step"] for row in rows if "test/accuracy_ema" in row] == [*range(51, 307, 51)]
    drawn = [(tmp_path / f"cifar10_{name}.svg").read_bytes() for name in ("test_error", "peer")]
    shutil.rmtree(tmp_path / "runs")
    cifar10_short.main(flags)  # from the files alone
    assert capsys.readouterr().out == printed
    for name, before in zip(("test_error", "peer"), drawn, strict=True):
        assert (tmp_path / f"cifar10_{name}.svg").read_bytes() == before

    # Seeds, of which one has not come to the last step.
    seeds = [
        {"method": method, "set": 1, "step": step, "test/accuracy_ema": 0.3 + seed / 10}
        for method in ("fixmatch", PEER)
        for seed in (0, 1)
        for step in (51, 102, 153)[: 3 - seed]
    ]
    (folder.parent / "cifar10_short_seeds.jsonl").write_text("\n".join(map(json.dumps, seeds)))
    cifar10_short.main(flags)
    picture = (tmp_path / "cifar10_peer.svg").read_text()
    assert "ssljax, on the left 2 seeds" in picture
    assert "PyTorch peer, on the left 2 seeds" in picture


def test_a_report_of_nothing_is_an_empty_table(tmp_path, capsys):
    cifar10_short.main(["--figure", f"--workdir={tmp_path}", f"--docs={tmp_path}"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_the_accuracies_of_seeds_are_those_of_their_runs(tmp_path, capsys):
    for name in ("fixmatch.1.0", "fixmatch.1.1", "torch.1.0"):
        method, _, seed = name.split(".")
        (tmp_path / name).mkdir()
        rows = made_rows(int(seed), seconds=method == PEER)
        rows = rows if method == PEER else rows[:-1]  # the last evaluation is still to come
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
        (tmp_path / f"{name}.log").touch()
    flags = [f"--docs={tmp_path}", "--steps=255,306"]
    cifar10_short_seeds.main([*flags, f"--runs={tmp_path}"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[2:] == [
        "| FixMatch | 1 | 48.83 ± 0.71 | 2 |  | 0 |",
        "| FixMatch, PyTorch peer | 1 | 48.33 | 1 | 50.00 | 1 |",
    ]
    cifar10_short_seeds.main(flags)  # from the file alone
    assert capsys.readouterr().out == printed


def test_the_time_of_training_is_that_of_the_report(tmp_path):
    make_runs(tmp_path)
    run = runs.read(tmp_path / "fixmatch" / "1", "run")
    totals = cifar10_short_results.with_totals(run.rows, 112)
    assert totals[-1]["seconds"] == pytest.approx(facts.training_seconds(run))
    assert totals[0] == {**run.rows[0], "images": 112, "seconds": 0.0}
    assert totals[1]["seconds"] == 4.0  # the first step's speed was not measured


def test_the_time_until_an_accuracy_is_that_of_the_first_evaluation_that_has_it():
    rows = [
        {"test/accuracy_ema": accuracy, "seconds": seconds}
        for accuracy, seconds in [(0.3, 10.0), (0.5, 20.0), (0.4, 30.0), (0.5, 40.0)]
    ]
    assert cifar10_short_results.reached(rows, 0.5) == 20.0
    assert cifar10_short_results.reached(rows, 0.51) is None


def test_the_pages_have_the_figures_of_the_files():
    results = cifar10_short_results.read(DOCS / "results" / "cifar10_short")
    seeds = cifar10_short_results.read_seeds(DOCS)
    page = (DOCS / "results.md").read_text()
    assert set(results) == {*METHODS, PEER}
    assert cifar10_short_results.table(results) in page
    assert cifar10_short_results.peer_table(results) in page
    assert cifar10_short_seeds.table(seeds, (7500, 8000)) in page
    for first_page in (jobs.ROOT / "README.md", DOCS / "index.md"):
        lines = first_page.read_text().splitlines()
        for method in METHODS:
            last = [rows[-1]["test/accuracy_ema"] for rows in results[method].values()]
            error = cifar10_short_results.mean_and_std([100 * (1 - x) for x in last])
            (digits,) = re.findall(rf"^\| {method} \| 40 \| 3 \| ([\d.± ]+) \|", page, re.M)
            title = cifar10_short_results.TITLES[method]
            assert f"| {title} | {digits} | {error} |" in lines, (first_page, error)


def test_a_few_rows_are_all_kept():
    rows = made_rows(1)[:60]
    assert cifar10_short_results.thinned(rows) == rows
    assert len(cifar10_short_results.thinned(rows, most=10)) == 11
    assert len(cifar10_short_results.thinned(rows, most=0)) == 1


def test_a_complete_run_is_passed_over_and_a_failed_one_is_named(tmp_path, monkeypatch):
    called = []

    def call(command, run, environment):
        called.append(command)
        run.mkdir(parents=True)
        assert environment["OMP_NUM_THREADS"] == "1"
        if "mixmatch" in str(run):
            raise RuntimeError(f"{run} ended with exit code 1")

    monkeypatch.setattr(jobs, "call", call)
    flags = [f"--workdir={tmp_path}", "--sets=2", "--jobs=1", "--config.num_steps=2"]
    with pytest.raises(RuntimeError, match="mixmatch/2 ended"):
        cifar10_short.main(flags)
    cifar10_short.main([*flags, "--methods=fixmatch,supervised"])
    assert [command[2] for command in called] == [
        f"--config={method}_cifar10_short" for method in METHODS
    ]
    assert "--config.dataset=cifar10.2@250-500" in called[0]
    assert "--config.num_steps=2" in called[0]


def test_the_peer_trains_after_the_runs_whose_settings_it_has(tmp_path, monkeypatch):
    called = []

    def call(command, run, environment):
        called.append(command)
        run.mkdir(parents=True)

    monkeypatch.setattr(jobs, "call", call)
    images, labels = np.zeros((3, 32, 32, 3), np.uint8), np.arange(3)
    data = Dataset(images, labels, images[:1], labels[:1], 10, ())
    monkeypatch.setattr(datasets, "cifar10", lambda data_dir: data)
    cifar10_short.main([f"--workdir={tmp_path}", "--jobs=1", "--peer=python9"])
    assert [command[0] for command in called] == [sys.executable] * 9 + ["python9"] * 2
    assert f"--run={tmp_path}/fixmatch/2" in called[-1]
    with np.load(tmp_path / cifar10_short.PIXELS) as pixels:
        np.testing.assert_array_equal(pixels["train_labels"], labels)
        assert pixels["test_images"].shape == (1, 32, 32, 3)


def test_a_method_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cifar10_short.main([f"--workdir={tmp_path}", "--methods=fixmatch,fix"])
    assert "--methods has fix; allowed: fixmatch, mixmatch, supervised" in capsys.readouterr().err


def test_the_methods_see_what_their_recipes_say():
    for method, views, batch in (("fixmatch", 7, 16), ("mixmatch", 3, 32), ("supervised", 1, 32)):
        config = overrides.load(f"{method}_cifar10_short")
        said = (jobs.ROOT / "configs" / f"{method}_cifar10_short.py").read_text()
        assert (config.batch_size, config.num_steps) == (batch, 8000)
        assert f"{views * batch * 8000:,}" in said
    assert overrides.load("mixmatch_cifar10_short").method_args.ramp_images == 32 * 8000


def python_with_torch():
    """The interpreter that trains the peer; skips where there is none."""
    for python in (os.environ.get(TORCH), sys.executable):
        probe = [python, "-c", "import torch, PIL"]
        if python and subprocess.run(probe, capture_output=True).returncode == 0:
            return python
    pytest.skip(f"needs PyTorch, in this environment or in that of ${TORCH}")


# Gives the peer's network the weights of ours, and computes its logits.
LOGITS = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
import torch_peer
given = np.load(sys.argv[2])
net = torch_peer.WideResNet(4, 2, 0.9).eval()
def put(kind, name, **arrays):
    modules = [x for x in net.modules() if isinstance(x, kind)]
    for k, module in enumerate(modules):
        for ours, theirs in arrays.items():
            array = torch.from_numpy(given[f"{name}_{k}/{theirs}"])
            axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
            getattr(module, ours).data = array.permute(axes) if axes else array
put(torch.nn.Conv2d, "Conv", weight="kernel", bias="bias")
put(torch.nn.Linear, "Dense", weight="kernel", bias="bias")
put(torch.nn.BatchNorm2d, "BatchNorm", weight="scale", bias="bias", running_mean="mean",
    running_var="var")
images = torch.from_numpy(given["images"]).permute(0, 3, 1, 2)
np.save(sys.argv[3], net(images).detach().numpy())
"""


@pytest.mark.slow
def test_the_peer_s_network_is_ours(tmp_path):
    python = python_with_torch()
    network = wide_resnet.WideResNet(num_classes=10, filters=4, repeat=2)
    numbers = np.random.default_rng(0)
    images = numbers.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda x: numbers.uniform(0.1, 0.9, x.shape).astype(x.dtype), shapes)
    logits = network.apply(variables, images, train=False)[0]
    arrays = {
        f"{layer}/{name}": array
        for part in variables.values()
        for layer, values in part.items()
        for name, array in values.items()
    }
    np.savez(tmp_path / "given.npz", images=images, **arrays)
    files = tmp_path / "given.npz", tmp_path / "logits.npy"
    subprocess.run([python, "-c", LOGITS, SCRIPT.parent, *files], check=True)
    np.testing.assert_allclose(np.load(files[1]), logits, rtol=1e-4)


@pytest.mark.slow
def test_the_peer_trains_and_goes_on(tmp_path):
    python = python_with_torch()
    config = overrides.load(
        "fixmatch_cifar10_short",
        ["num_steps=2", "eval_every=1", "batch_size=2", "model_args.filters=4"],
    )
    run, data = tmp_path / "run", tmp_path / "data.npz"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    split = {"labeled": [0, 2, 4], "unlabeled": [*range(20)]}
    (run / "split.json").write_text(json.dumps(split))
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (20, 32, 32, 3), np.uint8)
    labels = numbers.integers(0, 10, 20)
    np.savez(data, train_images=images, train_labels=labels, test_images=images, test_labels=labels)

    def trained(name, *flags):
        files = f"--run={run}", f"--data={data}", f"--workdir={tmp_path / name}"
        subprocess.run([python, SCRIPT, *files, *flags], check=True, capture_output=True)
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(row) for row in rows]

    rows = trained("peer")
    assert [(row["step"], row["images"]) for row in rows] == [(1, 14), (2, 28)]
    assert 0 < rows[0]["seconds"] < rows[1]["seconds"]
    assert all(0 <= row[f"test/accuracy_{x}"] <= 1 for row in rows for x in ("ema", "raw"))
    assert trained("peer") == rows  # nothing is left to train

    # What stops after the first evaluation goes on from there, and computes the same.
    assert len(trained("again", "--until=1")) == 1
    losses = [row["loss/total"] for row in rows]
    assert [row["loss/total"] for row in trained("again")] == losses
    assert trained("other", "--seed=1")[0]["loss/total"] != losses[0]
