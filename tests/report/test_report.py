import html.parser
import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from helpers.run_directories import VERSIONS, make, write
from ssljax import reliability
from ssljax.errors import RunError, UsageError
from ssljax.report import picture, pictures, plots, report
from ssljax.report.records import Predictions
from ssljax.report.runs import read_all

ROOT = Path(__file__).parents[2]


class Page(html.parser.HTMLParser):
    """Collects addresses and text of a page; raises if tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.links, self.words, self._open = [], [], [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        found = [v for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag == "a":  # nothing is loaded before a reader follows it
            self.links += found
        else:
            self.addresses += found
        if tag not in ("meta", "link", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(output):
    return Page((output / "report.html").read_text())


def test_the_page_has_everything_and_needs_nothing(tmp_path):
    for seed in (1, 2, 3):
        make(tmp_path / f"seed={seed}", seed=seed)
    text = report.write([tmp_path], tmp_path)
    assert "±" in text
    page = page_of(tmp_path)
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.links
    assert all((tmp_path / urllib.parse.unquote(link)).exists() for link in page.links)
    assert "url(" not in (tmp_path / "report.html").read_text()
    for words in ("Test error", "Mask rate", "Accuracy of all pseudo-labels", "Confusion matrix",
                  "ECE 0.", "Accuracy of each class", "Most confident mistakes",
                  "The labelled images", "Versions and hardware", "jax 0.10.2",
                  "3 runs, 3 finished", "optimizer.lr = ", "is <class ", "seed=2"):  # fmt: skip
        assert words in page.text, words
    figures = {path.name for path in (tmp_path / "report_figures").iterdir()}
    assert {"digits_40_test_error.svg", "group1_confusion.svg"} <= figures
    assert not list(tmp_path.glob("**/*.partial"))


def test_mistakes_have_the_names_of_their_files(tmp_path, undrawn):
    run = make(tmp_path / "run")
    (before,) = read_all([run])
    assert before.predictions.mistake_names == ()
    assert [mistake.name for mistake in pictures.mistakes(before)] == [""] * 5
    names = ["<b>a</b>.png", "x, 'y' \"z\".png", "caf\udce9\n.png", "日本.png", "=1.png"]
    with np.load(run / "predictions.npz") as file:
        arrays = dict(file)
    np.savez(run / "predictions.npz", **arrays, mistake_names=np.array(names))
    report.write([run], tmp_path)
    text = page_of(tmp_path).text
    for shown in ("<b>a</b>.png", "x, 'y' \"z\".png", "caf\\xe9\\n.png", "日本.png", "=1.png"):
        assert shown in text
    for wrong in (np.array(names[1:]), np.arange(5)):
        np.savez(run / "predictions.npz", **arrays, mistake_names=wrong)
        (damaged,) = read_all([run])
        assert damaged.predictions is None
        assert damaged.notes[0].startswith("predictions.npz cannot be read (ValueError: mistake_n")


def test_names_of_any_kind_are_shown(tmp_path):
    # As recorded by older versions; \udce9 is an undecodable byte of a file name.
    names = ["$_$", "caf\udce9", "b\nc", "\x1b[31m", "$\\frac$", "日本", "a", "b", "c", "d"]
    run = make(tmp_path / "run", dataset="folder:/caf\udce9/$_$.1@40-0")
    write(run / "data.json", {"image_shape": [8, 8, 1], "class_names": names})
    shown = read_all([run])[0].class_names
    assert shown[:5] == ("$_$", "caf\\xe9", "b\\nc", "\\x1b[31m", "$\\frac$")
    report.write([run], tmp_path)
    assert "folder:/caf\\xe9/$_$" in page_of(tmp_path).text


def test_ctaugment_s_heat_map_is_on_the_page(tmp_path, undrawn):
    run = make(tmp_path / "run")
    report.write([run], tmp_path / "without")
    (run / "labelled.png").rename(run / "augment.png")  # any picture
    report.write([run], tmp_path / "with")
    assert "What CTAugment has learned" not in page_of(tmp_path / "without").text
    assert "What CTAugment has learned" in page_of(tmp_path / "with").text


def test_runs_in_any_state_are_named_and_the_rest_is_rendered(tmp_path, undrawn):
    make(tmp_path / "good", seed=1)
    make(tmp_path / "unfinished", seed=2, steps=100)
    failed = make(tmp_path / "failed", seed=3, steps=50)
    (failed / "failure.txt").write_text("RunError: the loss <is> not finite at step 60\n")
    (make(tmp_path / "no_config", seed=4) / "config.json").unlink()
    (make(tmp_path / "bad_config", seed=5) / "config.json").write_text("{")
    (make(tmp_path / "no_metrics", seed=6) / "metrics.jsonl").unlink()
    (make(tmp_path / "bad_metrics", seed=7) / "metrics.jsonl").write_text("{]\n{}\n")
    (make(tmp_path / "cut_metrics", seed=8) / "metrics.jsonl").open("a").write('{"step": 2')
    (make(tmp_path / "bad_predictions", seed=9) / "predictions.npz").write_bytes(b"PK")
    (make(tmp_path / "no_names", seed=10) / "data.json").unlink()
    (make(tmp_path / "no_environment", seed=11) / "environment.json").unlink()
    (make(tmp_path / "no_split", seed=12) / "split.json").unlink()
    (make(tmp_path / "no_sheet", seed=13) / "labelled.png").unlink()
    (make(tmp_path / "no_predictions", seed=14) / "predictions.npz").unlink()
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    old = make(tmp_path / "old", seed=15)
    start = json.loads((old / "environment.json").read_text())["starts"][0]
    older = start | {"versions": VERSIONS | {"jax": "0.9"}}
    write(old / "environment.json", {"starts": [older]})
    (tmp_path / ".new.ssljax.partial").mkdir()  # a killed import
    (tmp_path / ".new.ssljax.partial" / "config.json").write_text("{}")
    moved = make(tmp_path / "moved", seed=16)
    write(moved / "environment.json", {"starts": [older, start | {"step": 50}]})

    text = report.write([tmp_path], tmp_path / "out")
    page = page_of(tmp_path / "out")
    for note in (
        "unfinished: unfinished, at step 100 of 250",
        "failed: failed at step 50 of 250: RunError: the loss <is> not finite at step 60",
        "no_config: config.json is missing",
        "bad_config: config.json cannot be read",
        "no_metrics: metrics.jsonl is missing",
        "bad_metrics: metrics.jsonl cannot be read",
        "bad_predictions: predictions.npz cannot be read",
        "no_names: data.json is missing",
        "no_environment: environment.json is missing",
        "no_split: split.json is missing",
        "no_predictions: predictions.npz is missing",
        "empty: config.json is missing",
        "old: other versions than most of these runs: jax 0.9",
        "moved: resumed after step 50 with jax 0.9 → 0.10.2",
    ):
        name, _, words = note.partition(": ")
        assert re.search(f"^note: {name}: {re.escape(words)}", text, re.MULTILINE), note
        assert words in page.text, note
    assert "partial" not in text
    for good in ("good", "cut_metrics", "no_sheet"):
        assert f"note: {good}:" not in text
    (row,) = [line for line in text.splitlines() if " finished" in line]
    assert row.split()[:4] == ["fixmatch", "digits", "40", "10"]
    assert "Confusion matrix" in page.text


def test_text_of_a_run_is_no_markup_and_no_mathematics(tmp_path):
    nasty = "</pre><script>alert(1)</script>\n$\\frac{1$ & 犬"
    run = make(
        tmp_path / "<b>",
        dataset=f"{nasty}.1@40-100",
        method_args__weak_pass=nasty,
        classes=3,
        evaluations=1,
    )
    write(run / "data.json", {"image_shape": [8, 8, 1], "class_names": [nasty, "$x_$", "c"]})
    start = {"step": 0, "versions": {nasty: nasty}, "devices": nasty, "machine": nasty}
    write(run / "environment.json", {"starts": [start]})
    (run / "failure.txt").write_text(nasty)
    report.write([tmp_path], tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text()
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\n$" in text
    assert "<b>" not in {word for word in re.findall("<b>(?!<|&lt;|[$c])", text)}


def test_a_long_name_makes_a_short_file_name():
    names = {picture.file_name("é" * 200 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert max(len(name.encode()) for name in names) < 100
    assert picture.file_name("a/../b c") == "a_.._b_c"


def test_a_full_disk_is_one_line(tmp_path, undrawn, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_bytes", full)
    with pytest.raises(RunError, match="out cannot be written: its disk is full"):
        report.write([make(tmp_path / "run")], tmp_path / "out")


def test_the_same_seeds_twice_are_said(tmp_path, undrawn):
    make(tmp_path / "a", seed=1)
    make(tmp_path / "b", seed=1)
    assert "b has the same seeds as a: both are counted." in report.write([tmp_path], tmp_path)


def test_a_report_lies_in_the_run_directory_and_is_no_run_of_its_own(tmp_path, undrawn):
    make(tmp_path / "run")
    report.write([tmp_path / "run"], tmp_path / "run")
    report.write([tmp_path], tmp_path)
    assert [run.name for run in read_all([tmp_path])] == ["run"]


def test_a_directory_without_runs_is_refused(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="none holds no run"):
        report.write([tmp_path / "run", tmp_path / "none"], tmp_path)


def test_many_classes_and_no_labelled_images_of_some(tmp_path, undrawn):
    make(tmp_path / "run", classes=30)
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:
        values = dict(arrays)
    values["labels"] = np.minimum(values["labels"], 25)  # the last classes have no images
    np.savez(tmp_path / "run" / "predictions.npz", **values)
    report.write([tmp_path], tmp_path)
    assert "The 20 worst classes" in page_of(tmp_path).text


def test_the_calibration_error_is_the_one_worked_out_by_hand():
    """Two bins: 3 images with confidence 0.7, 2 of them right; one with 0.95 that is wrong."""
    labels = np.array([0, 0, 0, 0])
    says = Predictions(0, "test", labels, np.array([0, 0, 1, 1]),
                       np.array([0.7, 0.7, 0.7, 0.95]), labels[:0], labels[:0])  # fmt: skip
    expected = 3 / 4 * (0.7 - 2 / 3) + 1 / 4 * 0.95
    found = reliability.expected_calibration_error(says.reliability)
    assert found == pytest.approx(expected)
    np.testing.assert_array_equal(plots.confusion_counts(says, 2), [[2, 2], [0, 0]])


def calibrated(run, *, seed=0, step=250, **changes):
    """Writes the `calibration.json` of an overconfident model."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1, 100)
    right = random.random(100) < confidence
    before, after = (
        reliability.diagram(x, right) for x in (np.minimum(1, confidence + 0.2), confidence)
    )
    errors = map(reliability.expected_calibration_error, (before, after))
    diagrams = [{k: v.tolist() for k, v in found._asdict().items()} for found in (before, after)]
    found = {
        "step": step, "weights": "ema", "temperature": 1.5, "on": "validation", "images": 100,
        **dict(zip(("ece_before", "ece_after"), errors, strict=True)),
        "reliability": dict(zip(("before", "after"), diagrams, strict=True)),
        "confidence": confidence.tolist(), "right": right.tolist(),
    }  # fmt: skip
    write(run / "calibration.json", found | changes)
    return found | changes


def test_the_page_shows_calibration_and_risk_against_coverage(tmp_path):
    both = [calibrated(make(tmp_path / str(seed), seed=seed), seed=seed) for seed in (1, 2)]
    labelled = {"on": "labelled", "images": 40, "confidence": [], "right": []}
    calibrated(make(tmp_path / "few", method="supervised"), **labelled)
    make(tmp_path / "none", method="mixmatch")
    for file in tmp_path.glob("*/predictions.npz"):
        file.unlink()  # drawing their diagrams takes seconds
    report.write([tmp_path], tmp_path)
    text = page_of(tmp_path).text
    figures = {path.name for path in (tmp_path / "report_figures").iterdir()}
    assert {"group1_calibration.svg", "group1_risk.svg", "group3_calibration.svg"} <= figures
    assert not {"group2_calibration.svg", "group2_risk.svg", "group3_risk.svg"} & figures
    error = np.mean([np.mean(np.logical_not(found["right"])) for found in both])
    assert f"Error {100 * error:.1f} % of all 200 validation images" in text
    assert "after the temperature 1.50 ± 0.00; 200 validation images" in text
    assert "after the temperature 1.50; 40 labelled images" in text
    for found in both:
        assert f"1.50 {found['ece_before']:.3f} {found['ece_after']:.3f}" in text


def test_a_calibration_of_another_step_or_form_is_not_shown(tmp_path):
    run = make(tmp_path / "run")
    calibrated(run, step=240)  # the run has continued since
    (found,) = read_all([run])
    assert (found.calibration, found.notes) == (None, ())
    record = calibrated(run)
    before = record["reliability"]["before"]
    bins = len(before["left"])
    for damage in (
        {"right": [True]},
        {"ece_after": 2},
        {"temperature": "x"},
        {"reliability": {"before": before}},
        {"reliability": {"before": before, "after": before | {"left": [1.0] * bins}}},
        {"reliability": {"before": before, "after": before | {"images": []}}},
    ):
        calibrated(run, **damage)
        (found,) = read_all([run])
        assert found.calibration is None
        assert found.notes[0].startswith("calibration.json cannot be read")
    old = {k: v for k, v in record.items() if k != "reliability"}
    write(run / "calibration.json", old)  # from a version that recorded no diagrams
    (found,) = read_all([run])
    names = [picture.name for picture in pictures._of_calibrations("x", [found.calibration])]
    assert names == ["x_risk"]


def test_a_curve_s_band_is_the_standard_deviation_over_the_runs(tmp_path):
    from ssljax.report import groups as grouping

    for seed in (1, 2, 3):
        make(tmp_path / str(seed), seed=seed)
    (group,) = grouping.group(read_all([tmp_path]))
    steps, means, stds = plots._over_runs(group.runs, lambda row: row["test/accuracy_ema"])
    values = [[row["test/accuracy_ema"] for row in run.rows] for run in group.runs]
    assert steps == [row["step"] for row in group.runs[0].rows]
    np.testing.assert_allclose(means, np.mean(values, axis=0))
    np.testing.assert_allclose(stds, np.std(values, axis=0, ddof=1))


def test_following_writes_again_when_a_run_goes_on(tmp_path, undrawn, monkeypatch):
    run = make(tmp_path / "run", steps=100)
    said, sleeps = [], []

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) == 2:  # nothing has happened before
            assert len(said) == 1
            assert 'http-equiv="refresh"' in (tmp_path / "report.html").read_text()
            row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row | {"step": 110}) + "\n")
        if len(sleeps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", sleep)
    report.follow([tmp_path], tmp_path, say=said.append)
    assert ["at step 100 of 250" in said[0], "at step 110 of 250" in said[1]] == [True, True]
    assert len(said) == 2
    text = (tmp_path / "report.html").read_text()
    assert 'http-equiv="refresh"' not in text
    assert "at step 110 of 250" in text


def launch(*args):
    """Runs a command in which JAX, Flax, scikit-learn and TensorFlow cannot be imported."""
    program = (
        "import sys; sys.modules |= dict.fromkeys(['jax', 'flax', 'sklearn', 'tensorflow']); "
        "from ssljax import cli; cli.run()"
    )
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_beside_the_runs(tmp_path):
    make(tmp_path / "runs" / "a", seed=1)
    make(tmp_path / "more", seed=2)
    result = launch("--mode=report", f"--workdir={tmp_path}/runs")
    assert result.returncode == 0, result.stderr
    heading, row, *_, last = result.stdout.splitlines()
    assert heading.split()[:2] == ["method", "data"]
    assert row.split()[:4] == ["fixmatch", "digits", "40", "1"]
    assert last.startswith(f"wrote {tmp_path}/runs/report.html")
    both = f"--workdir={tmp_path}/runs,{tmp_path}/more"
    refused = launch("--mode=report", both)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: --output is missing; several directories in --workdir need it\n"
    )
    assert launch("--mode=report", both, f"--output={tmp_path}/out").returncode == 0
    assert "±" in (tmp_path / "out" / "report.md").read_text()
