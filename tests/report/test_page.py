"""What the page says and in which order: the finding in words, tables that sort, single runs."""

import json
import re
import shlex
import statistics
import urllib.parse

import pytest

from helpers.run_directories import make, write
from ssljax import overrides
from ssljax.report import command, facts, findings, html_table, page_tables, report, table
from ssljax.report import groups as grouping
from ssljax.report.html_table import Cell, Column
from ssljax.report.runs import read, read_all


def grouped(*paths):
    return grouping.group(read_all(paths))


def rewritten(run, change):
    """Changes each row of a run's metrics."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        change(row)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def with_error(run, error):
    return rewritten(run, lambda row: row.update({"test/accuracy_ema": 1 - error / 100}))


def test_the_finding_compares_the_best_row_with_the_supervised_one(tmp_path, undrawn):
    for seed, error in ((1, 10), (2, 12), (3, 11)):
        with_error(make(tmp_path / f"a{seed}", seed=seed), error)
    with_error(make(tmp_path / "b", method_args__threshold=0.5), 20)
    for seed, error in ((1, 30), (2, 32)):
        with_error(make(tmp_path / f"s{seed}", method="supervised", seed=seed), error)
    with_error(make(tmp_path / "unfinished", method="supervised", seed=3, steps=100), 1)
    (text,) = findings.findings(grouped(tmp_path))
    assert text.replace("\xa0", " ") == (
        "fixmatch (threshold=0.95), trained with 40 labels of digits, has a test error of "
        "11.00 ± 1.00 % (mean and standard deviation of 3 runs). This is the lowest mean of 2 "
        "rows, chosen by this very error. Training on the labels alone (supervised) gives 31.00 ± "
        "1.41 % (mean and standard deviation of 2 runs), so that fixmatch lowers the error by "
        "20.00 percentage points."
    )
    report.write([tmp_path], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.index(text) < page.index('id="results"')


def test_the_finding_says_what_it_lacks(tmp_path):
    with_error(make(tmp_path / "a", seed=1), 40)
    (text,) = findings.findings(grouped(tmp_path))
    assert "40.00\xa0% (a single run). There is no supervised run" in text
    with_error(make(tmp_path / "s", method="supervised", seed=1), 30)
    (text,) = findings.findings(grouped(tmp_path))
    assert "fixmatch raises the error by 10.00 percentage points" in text
    assert text.endswith("With a single run of fixmatch and of supervised, chance may be a part of "
                         "this.")  # fmt: skip
    (text,) = findings.findings(grouped(tmp_path / "s"))
    assert text.startswith("supervised, trained with 40 labels of digits, has a test error of 30")
    make(tmp_path / "other" / "u", steps=50)
    (text,) = findings.findings(grouped(tmp_path / "other"))
    assert text.startswith("No run has finished yet. So far: fixmatch, ")
    assert findings.findings([]) == []


def test_errors_stand_beside_the_method_and_settings_last(tmp_path):
    for seed in (1, 2, 3):
        make(tmp_path / f"a{seed}", seed=seed)
    make(tmp_path / "b", seed=1, method_args__threshold=0.5, steps=100)
    groups = grouped(tmp_path)
    shown = page_tables.results(table.make(groups, oracle=True), groups)
    titles = [column.title for column in shown.columns]
    assert titles[:2] == ["method", "error %"]
    assert titles[-5:] == ["data set", "labels", "runs", "status", "settings"]
    assert shown.columns[-1].wraps
    assert shown.columns[-1].is_rest
    assert shown.rows[0].cells[1].note == "of 3 runs"
    assert shown.rows[1].cells[1].note == ""
    assert "±" not in shown.rows[1].cells[1].text


def test_a_deviation_of_two_runs_is_explained(tmp_path, undrawn):
    for seed in (1, 2):
        make(tmp_path / str(seed), seed=seed)
    make(tmp_path / "three" / "3", seed=3)
    made = table.make(grouped(tmp_path / "1", tmp_path / "2"), oracle=False)
    assert grouping.OF_TWO in made.note
    assert 2 in made.counts[0]
    errors = [grouping.median_error(run) for run in read_all([tmp_path / "1", tmp_path / "2"])]
    assert statistics.stdev(errors) == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5)
    every = table.make(grouped(tmp_path), oracle=False)
    assert grouping.OF_TWO not in every.note
    report.write([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count(grouping.OF_TWO) == 3  # the table, the bands, the bars
    assert "Error bars are one standard deviation over the 2 runs" in page


def test_rows_know_their_places_in_every_order():
    columns = [Column("name"), Column("error %"), Column("time")]
    rows = [
        [Cell("b"), Cell("10.50 ± 0.10"), Cell("2 min", key=120)],
        [Cell("A"), Cell("9.80"), Cell("")],
        [Cell("c"), Cell("1,000.00"), Cell("59.0 s", key=59)],
    ]
    made = html_table.make(columns, rows)
    assert [row.up for row in made.rows] == [[1, 1, 1], [0, 0, 2], [2, 2, 0]]
    assert [row.down for row in made.rows] == [[1, 1, 0], [2, 2, 2], [0, 0, 1]]
    assert made.rows[0].places == "--a0:1;--a1:1;--a2:1;--d0:1;--d1:1;--d2:0"


def test_a_run_s_row_has_raw_weights_learning_rate_time_and_speed(tmp_path):
    run = make(tmp_path / "run", evaluations=30, optimizer__lr=0.007)

    def slow_at_first(row):
        row["images_per_second"] = None if row["step"] == 10 else 50 * (1 + (row["step"] > 150))

    rewritten(run, slow_at_first)
    start = json.loads((run / "environment.json").read_text())["starts"][0]
    write(run / "environment.json", {"starts": [start | {"images_per_step": 20}]})
    found = read(run, "run")
    raw = [100 * (1 - row["test/accuracy_raw"]) for row in found.rows]
    assert grouping.raw_error(found) == pytest.approx(statistics.median(raw[-20:]))
    # 140 steps at 50 and 150 at 100 images a second, and the first 10 at their mean.
    speed = 290 / (140 / 50 + 150 / 100)
    assert facts.images_per_second(found) == pytest.approx(speed)
    assert facts.training_seconds(found) == pytest.approx(300 * 20 / speed)
    cells = dict(zip(
        [column.title for column in page_tables.runs([found], tmp_path).columns],
        page_tables.runs([found], tmp_path).rows[0].cells, strict=True,
    ))  # fmt: skip
    assert cells["raw weights: error %"].text == f"{statistics.median(raw[-20:]):.2f}"
    assert cells["learning rate"].text == "0.007"
    assert cells["training time"].text == "1 min 29 s"
    assert cells["images per second"].text == "67"
    for value in ("20", 0, None):
        write(run / "environment.json", {"starts": [start | {"images_per_step": value}]})
        assert facts.training_seconds(read(run, "run")) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (61, "1 min 01 s"), (7500, "2 h 05 min")]
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert facts.clock(seconds) == text


def test_links_lead_from_the_page_to_the_runs(tmp_path, undrawn):
    run = make(tmp_path / "runs" / "a%20b <ü>'\"#?.1")
    output = tmp_path / "out" / "here"
    report.write([tmp_path / "runs"], output)
    links = re.findall(r'<a href="(\./[^"]*)"', (output / "report.html").read_text())
    assert [(output / urllib.parse.unquote(link)).resolve() for link in links] == [run.resolve()]
    assert not [link for link in links if re.search(r"[<>'\"#? ]", link)]
    assert facts.link(read(run, "run"), run) == "./"


def test_the_command_of_a_run_makes_its_config_again(tmp_path):
    changes = {
        "seed": 3,
        "dataset": "digits.7@40-100",
        "method_args__threshold": 0.8,
        "optimizer__decay_epochs": (10, 20),
        "sync_bn": False,
        "augment__weak": "it's",
    }
    run = make(tmp_path / "it is 1", num_seeds=5, steps_per_run=3, **changes)
    program, file, recipe, *flags, workdir = shlex.split(command.command(read(run, "run")))
    assert [program, file, workdir] == ["python", "launch.py", "--workdir=runs/again/it_is_1"]
    assert recipe == "--config=fixmatch_digits"
    given = [flag.removeprefix("--config.") for flag in flags]
    again = overrides.load(recipe.removeprefix("--config="), given).to_dict()
    again = json.loads(json.dumps(again))
    recorded = overrides.complete(json.loads((run / "config.json").read_text()))
    assert {knob for knob in recorded if recorded[knob] != again[knob]} <= {
        "num_seeds", "steps_per_run"
    }  # fmt: skip


def test_a_run_that_no_recipe_can_make_has_no_command(tmp_path):
    for name, changes in (("own", {"method": "mine.method"}), ("odd", {"unknown_knob": 3})):
        run = make(tmp_path / name)
        config = json.loads((run / "config.json").read_text())
        write(run / "config.json", config | changes)
        assert command.command(read(run, "run")) == ""
