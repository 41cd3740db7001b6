import numpy as np
import pytest
from probe.test_classifiers import CLASSES, clusters

from ssljax.data import splits
from ssljax.probe import measure
from ssljax.probe.measure import Images, Row


def images():
    return Images(*clusters(1, 200), *clusters(2, 60), "test", CLASSES)


def test_numbers_of_labels_are_1_2_5_per_class_and_what_is_asked_for():
    assert measure.sizes(images(), (), 37) == [4, 8, 20, 37, 40, 80]
    assert measure.sizes(images(), (8, 40), 37) == [8, 40]
    with pytest.raises(ValueError, match="labels is 3; allowed: from 4 to 200"):
        measure.sizes(images(), (3,), None)
    few = images()._replace(labels=np.where(np.arange(200) < 3, 0, -1))
    with pytest.raises(ValueError, match="3 training images have a label, of 4 classes"):
        measure.sizes(few, (), 3)


def test_labelled_sets_are_those_of_the_data_sets_names(monkeypatch):
    seen, make = [], splits.make_split

    def watch(labels, **options):
        seen.append((options["seed"], options["size"], options["balanced"]))
        return make(labels, **options)

    monkeypatch.setattr(splits, "make_split", watch)
    rows = measure.measure(images(), [4, 8], 3, balanced=True)
    assert seen == [(s, n, True) for n in (4, 8) for s in (1, 2, 3)]
    assert [(row.method, row.labels) for row in rows] == [
        (method, n) for n in (4, 8) for method in measure.METHODS
    ]
    assert all(len(row.errors) == 3 and row.mean < 10 for row in rows)


def test_the_bound_has_all_labels():
    best = measure.bound(images())
    assert (best.labels, best.std) == (200, None)
    assert best.mean < 5


def row(method, labels, *errors):
    return Row(method, labels, errors)


def rows(probe, spread, labels=40):
    return [
        row("linear probe", labels, *probe),
        row("nearest neighbours", labels, *probe),
        row("label propagation", labels, *spread),
    ]


@pytest.mark.parametrize(
    ("probe", "spread", "best", "message"),
    [
        ((20.0, 21.0, 22.0), (15.0, 16.5, 16.0), 8.0, "5.17 points less: .* is likely to pay"),
        ((20.0, 21.0, 22.0), (22.0, 20.0, 21.0), 8.0, "would gain 13.0 points, .* may pay nev"),
        (
            (8.2, 8.4, 8.3),
            (7.0, 7.1, 7.2),
            8.0,
            "more labels would change little, so that semi-sup",
        ),
    ],
)
def test_the_sentence_follows_from_the_errors(probe, spread, best, message):
    import re

    bound = row("linear probe", 5000, best)
    said = measure.verdict(rows(probe, spread), bound, 40)
    assert said.startswith("With 40 labels the linear probe has an error of ")
    assert re.search(message, said)
    assert said.count(".\n") == 0
    assert said.endswith(".")


def test_a_bound_of_no_more_labels_says_nothing_and_the_gain_alone_decides():
    same = row("linear probe", 40, 9.0)
    said = measure.verdict(rows((9.0, 9.1), (5.0, 5.2)), same, None)
    assert said.startswith("With 40 labels the linear probe has an error of 9.05 ± 0.07 %; label")
    assert "is likely to pay" in said
    said = measure.verdict(rows((9.0, 9.1), (9.0, 9.1)), same, None)
    assert "is unlikely to pay" in said


def test_the_table_has_a_column_for_each_classifier():
    text = measure.table(rows((20.0, 22.0), (15.0, 16.0)), 10)
    assert text.splitlines()[0].split() == [
        "labels", "per", "class", "linear", "probe", "nearest", "neighbours", "label", "propagation"
    ]  # fmt: skip
    assert "21.00 ± 1.41" in text
    assert text.splitlines()[1].split()[:2] == ["40", "4"]
