import csv
import io
import itertools
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

from helpers.run_directories import make, write
from ssljax.report import groups as grouping
from ssljax.report import reference, report, table
from ssljax.report.groups import Spread
from ssljax.report.runs import read_all
from ssljax.spreadsheet import inert, original

ROOT = Path(__file__).parents[2]


def grouped(*paths):
    return grouping.group(read_all(paths))


def values(groups, published=(), *, oracle=False):
    made = table.make(groups, published, oracle=oracle)
    return list(csv.DictReader(io.StringIO(table.comma_separated(made))))


def test_the_numbers_are_those_of_the_metrics_files(tmp_path):
    """Computes the numbers from the files, without the report's code."""
    for seed in (1, 2, 3):
        make(tmp_path / f"seed{seed}", seed=seed)
    medians, bests, lasts, oracles = [], [], [], []
    for file in tmp_path.glob("*/metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        errors = [100 - 100 * row["test/accuracy_ema"] for row in rows]
        valid = [row["valid/accuracy_ema"] for row in rows]
        medians.append(statistics.median(errors[-20:]))
        bests.append(errors[valid.index(max(valid))])
        lasts.append(errors[-1])
        oracles.append(min(errors))
    (row,) = values(grouped(tmp_path), oracle=True)
    assert (row["method"], row["data_set"], row["labels"]) == ("fixmatch", "digits", "40")
    assert row["seeds"] == "3"
    columns = {"error": medians, "best_on_validation": bests, "last": lasts, "oracle": oracles}
    for name, expected in columns.items():
        assert float(row[f"{name}_mean"]) == pytest.approx(statistics.mean(expected), abs=1e-4)
        assert float(row[f"{name}_std"]) == pytest.approx(statistics.stdev(expected), abs=1e-4)
    shown = table.make(grouped(tmp_path), oracle=True).cells[0]
    mean, std = statistics.mean(medians), statistics.stdev(medians)
    assert f"{mean:.2f} ± {std:.2f}" in shown


def add_balanced(run):
    """Adds balanced accuracy and macro F1 to the rows, as newer versions do."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for factor, name in ((0.9, "balanced_accuracy"), (0.8, "macro_f1")):
            row[f"test/{name}_ema"] = factor * row["test/accuracy_ema"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row["test/accuracy_ema"] for row in rows]


def test_balanced_accuracy_and_macro_f1_are_shown_where_classes_are_uneven(tmp_path):
    accuracy = statistics.median(add_balanced(make(tmp_path / "run"))[-20:])
    old = make(tmp_path / "old", method="supervised")
    groups = grouped(tmp_path)
    row, before = values(groups)
    assert float(row["balanced_accuracy_mean"]) == pytest.approx(90 * accuracy, abs=1e-3)
    assert float(row["macro_f1_mean"]) == pytest.approx(80 * accuracy, abs=1e-3)
    assert before["balanced_accuracy_mean"] == before["macro_f1_std"] == ""
    made = table.make(groups, oracle=False)  # 200 random labels of 10 classes are uneven
    place = made.heading.index("balanced accuracy %")
    assert made.heading[place + 1] == "macro F1 %"
    assert made.cells[0][place] == f"{90 * accuracy:.2f}"
    assert made.cells[1][place] == ""
    assert "each class" in made.note
    assert made.note in table.markdown(made)
    (alone,) = grouped(old)
    assert "macro F1 %" not in table.make([alone], oracle=False).heading
    with np.load(tmp_path / "run" / "predictions.npz") as file:
        arrays = dict(file)
    arrays["labels"] = np.arange(200, dtype=np.int32) % 10
    np.savez(tmp_path / "run" / "predictions.npz", **arrays)
    even = table.make(grouped(tmp_path / "run"), oracle=False)
    assert "balanced accuracy %" not in even.heading
    assert "each class" not in even.note


def test_only_20_evaluations_count_and_all_of_a_shorter_run(tmp_path):
    (long,) = grouped(make(tmp_path / "long", evaluations=25))
    (short,) = grouped(make(tmp_path / "short", evaluations=3))
    for group, count in ((long, 20), (short, 3)):
        (run,) = group.runs
        errors = [100 * (1 - row["test/accuracy_ema"]) for row in run.rows]
        expected = statistics.median(errors[-count:])
        assert grouping.median_error(run) == pytest.approx(expected, abs=1e-4)


def test_the_oracle_is_shown_when_asked_and_marked(tmp_path):
    groups = grouped(make(tmp_path / "run"))
    assert not [title for title in table.make(groups, oracle=False).heading if "oracle" in title]
    assert "oracle_mean" not in values(groups)[0]
    (title,) = [t for t in table.make(groups, oracle=True).heading if "oracle" in t]
    assert "chosen on the test set" in title


@pytest.mark.parametrize(("valid", "real"), [(0, False), (1, False), (9, False), (10, True)])
def test_best_on_validation_needs_an_image_a_class(tmp_path, valid, real):
    groups = grouped(make(tmp_path / "run", valid=valid))
    assert bool(values(groups)[0]["best_on_validation_mean"]) == real
    assert ("at best validation %" in table.make(groups, oracle=False).heading) == real


def test_without_test_images_the_headline_is_the_validation_error(tmp_path):
    groups = grouped(make(tmp_path / "run", part="valid"))
    (row,) = values(groups, oracle=True)
    errors = [100 * (1 - r["valid/accuracy_ema"]) for r in groups[0].runs[0].rows]
    assert row["data_set"] == "digits (validation)"
    assert float(row["error_mean"]) == pytest.approx(statistics.median(errors[-20:]), abs=1e-4)
    assert row["best_on_validation_mean"] == row["oracle_mean"] == ""


def test_runs_that_differ_in_more_than_their_seeds_are_rows_of_their_own(tmp_path):
    for seed in (1, 2):
        for threshold in (0.9, 0.95):
            workdir = tmp_path / f"{seed}{threshold}"
            make(workdir, seed=seed, method_args__threshold=threshold)
    make(tmp_path / "log", seed=3, method_args__threshold=0.9, log_every=7)
    make(tmp_path / "other", method="supervised")
    found = [(g.method, g.settings, len(g.runs)) for g in grouped(tmp_path)]
    assert found == [
        ("fixmatch", "threshold=0.9", 3),
        ("fixmatch", "threshold=0.95", 2),
        ("supervised", "", 1),
    ]


def test_a_short_name_that_two_knobs_have_is_spelt_out(tmp_path):
    make(tmp_path / "a", optimizer__name="adam", model_args__filters=4)
    make(tmp_path / "b", optimizer__name="sgd", model_args__filters=8)
    settings = [group.settings for group in grouped(tmp_path)]
    assert settings == ["filters=4, name=adam", "filters=8, name=sgd"]
    differing = grouping.differing_knobs(read_all([tmp_path]))
    assert differing == {"model_args.filters": ["4", "8"], "optimizer.name": ["adam", "sgd"]}


def test_unfinished_and_failed_runs_are_not_averaged_with_finished_ones(tmp_path):
    make(tmp_path / "1", seed=1)
    make(tmp_path / "2", seed=2, steps=100)
    failed = make(tmp_path / "3", seed=3, steps=50)
    (failed / "failure.txt").write_text("RunError: the loss is not finite at step 60\n")
    groups = grouped(tmp_path)
    assert [(g.status, len(g.runs)) for g in groups] == [
        ("finished", 1),
        ("unfinished", 1),
        ("failed", 1),
    ]
    made = table.make(groups, oracle=False)
    assert [row[made.heading.index("status")] for row in made.cells] == [g.status for g in groups]
    assert "status" not in table.make(groups[:1], oracle=False).heading


def test_the_published_rows_for_the_same_data_stand_beside_ours(tmp_path, undrawn):
    run = make(tmp_path / "run", dataset="cifar10.1@250-1", valid=1)
    split = json.loads((run / "split.json").read_text())
    write(run / "split.json", split | {"labeled": [*range(250)]})
    text = report.write([tmp_path], tmp_path / "out", published=True)
    assert "MixMatch paper, Table 5" in text
    assert "11.08 ± 0.87" in text
    assert "5.07 ± 0.65" in text  # FixMatch (RA)
    assert "13.81 ± 3.37" not in text  # for 40 labels
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert {row["status"] for row in rows} == {"finished", "published"}
    assert "There are no published rows" in report.write(
        [make(tmp_path / "digits")], tmp_path / "out", published=True
    )


@pytest.mark.parametrize(
    ("section", "source", "svhn"),
    [
        ("## FixMatch paper, Table 2\n", "FixMatch paper, Table 2", "svhn_noextra"),
        ("## USB, classic tables\n", reference._USB, "svhn"),
        ("\nFlexMatch by its authors", reference._TORCHSSL, "svhn"),
    ],
)
def test_the_published_rows_are_those_of_the_documentation(section, source, svhn):
    """`docs/recipes.md` holds the same numbers, copied from the papers a second time."""
    heading, *methods = documented(section)
    data, columns = "", []
    names = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": svhn, "STL-10": "stl10"}
    for title in heading[1:]:
        name, _, labels = title.rpartition(": ")
        data = names[name] if name else data
        columns.append((data, int(labels)))
    expected = {
        (method, *column): cell
        for method, *cells in methods
        for column, cell in zip(columns, cells, strict=True)
        if cell != "—"
    }
    assert known(source) == expected


@pytest.mark.parametrize(
    ("section", "source", "columns"),
    [
        ("## Uneven classes\n", reference._USB_LONG_TAILED, reference._LONG_TAILED),
        ("google-research/crest, over", reference._CREST, reference._CREST_COLUMNS),
        ("## Foreign unlabelled", reference._IOMATCH, reference._IOMATCH_COLUMNS),
    ],
)
def test_the_published_accuracies_of_the_documentation_are_its_errors(section, source, columns):
    expected = {}
    for method, *cells in documented(section)[1:]:
        for column, cell in zip(columns, cells, strict=True):
            accuracy, _, deviation = cell.partition(" ± ")
            expected[method, *column] = f"{100 - float(accuracy):.2f} ± {deviation}"
    assert known(source) == expected


def documented(section):
    """Returns the first table after some text of `docs/recipes.md`: rows of cells, header first."""
    text = (ROOT / "docs/recipes.md").read_text().split(section)[1]
    lines = itertools.dropwhile(lambda line: line[:1] != "|", text.splitlines())
    table_lines = itertools.takewhile(lambda line: line[:1] == "|", lines)
    heading, _, *rows = [[c.strip() for c in line.split("|")[1:-1]] for line in table_lines]
    return [heading, *rows]


def known(source):
    """Returns the errors that `--reference=paper` has from a source."""
    return {
        (row.method, row.data_set, row.labels): table.describe(row.error)
        for row in reference.PAPER
        if row.source == source
    }


def test_every_format_has_every_row_and_none_breaks_at_its_marks(tmp_path):
    groups = grouped(make(tmp_path / "run", dataset="folder:my_pets|50%.1@40-100"))
    made = table.make(groups, oracle=False)
    (latex,) = [line for line in table.latex(made).splitlines() if "fixmatch" in line]
    assert r"folder:my\_pets|50\%" in latex
    assert latex.endswith(r" \\")
    assert latex.count(" & ") == len(made.heading) - 1
    row = table.markdown(made).splitlines()[2]
    assert r"folder:my_pets\|50%" in row
    assert row.replace(r"\|", "").count("|") == len(made.heading) + 1
    assert values(groups)[0]["data_set"] == "folder:my_pets|50%"
    assert len({len(line.split("  ")) > 3 for line in table.text(made).splitlines()}) == 1


HOSTILE = "=cmd|'/C calc'!A1 <script>x</script> [a](b) `c` *d* _e_ $f$ %g \\h &amp; ~~i~~"


@pytest.mark.parametrize("first", ["=1+1", "+1", "-1", "@x", "＝1"])
def test_a_spreadsheet_computes_no_text(tmp_path, first):
    groups = grouped(make(tmp_path / "run", dataset=f"{first}.1@40-100"))
    row = values(groups)[0]
    assert row["data_set"] == f"'{first}"
    assert row["method"] == "fixmatch"
    assert table.comma_separated(table.Table([], [], ["a"], [[-1.5]])) == "a\n-1.5\n"
    for text in (first, f"'{first}", f"''{first}", "'", "", "x", "'x"):
        assert original(inert(text)) == text


def test_text_is_text_in_every_format(tmp_path):
    groups = grouped(make(tmp_path / "run", dataset=f"{HOSTILE}.1@40-100"))
    made = table.make(groups, oracle=False)
    row = table.markdown(made).splitlines()[2]
    assert not re.search(r"(?<!\\)[<>`*\[\]$&~]", row)
    assert r"\_e\_" in row
    (row,) = [line for line in table.latex(made).splitlines() if "fixmatch" in line]
    inside = row.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "")
    inside = re.sub(r"\\text(less|greater){}|{[\[*]}|\\[&%$#_{}]| & |\\\\$", "", inside)
    assert not re.search(r"[\\&%$#_{}~^\[*<>]", inside), inside
    assert values(groups)[0]["data_set"] == f"'{HOSTILE}"


def test_a_name_in_latex_is_no_argument_of_the_line_before(tmp_path):
    made = table.Table(["a"], [["[5pt]"], ["*"]], [], [])
    assert [*table.latex(made).splitlines()][5:7] == [r"{[}5pt] \\", r"{*} \\"]


def test_describe():
    assert table.describe(Spread(4.256, 0.049)) == "4.26 ± 0.05"
    assert table.describe(Spread(4.2, None)) == "4.20"
    assert table.describe(None) == ""
