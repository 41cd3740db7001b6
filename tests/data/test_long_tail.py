"""Tests long-tailed splits against a transcription of USB's code."""

import numpy as np
import pytest

from ssljax.data import long_tail, splits
from ssljax.data.load import load
from ssljax.data.splits import LongTail, SplitName, fingerprint, parse
from ssljax.errors import UsageError


def published_counts(most, classes, ratio):
    """`make_imbalance_data` of USB's `semilearn/datasets/utils.py`."""
    mu = np.power(1 / abs(ratio), 1 / (classes - 1))
    counts = []
    for c in range(classes):
        last = c == classes - 1
        counts.append(int(most / abs(ratio)) if last else int(most * np.power(mu, c)))
    return counts[::-1] if ratio < 0 else counts


def published_split(targets, classes, labeled, unlabeled, seed):
    """`sample_labeled_unlabeled_data` of the same file, for given counts."""
    before = np.random.get_state()
    np.random.seed(seed)
    chosen, rest = [], []
    for c in range(classes):
        index = np.where(targets == c)[0]
        np.random.shuffle(index)
        chosen.extend(index[: labeled[c]])
        rest.extend(index[labeled[c] : labeled[c] + unlabeled[c]])
    np.random.set_state(before)
    return chosen, rest


def made_labels(classes, each, seed=7):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each))


def tailed(labels, tail, **options):
    given = {"num_classes": int(labels.max()) + 1, "seed": 1, "size": 100, "valid": 0}
    given |= {"include_labeled": False} | options
    return long_tail.make_split(labels, tail, **given)


def per_class(labels, indices):
    return np.bincount(labels[indices], minlength=int(labels.max()) + 1).tolist()


@pytest.mark.parametrize("ratio", [1, 10, 20, 50, 100, 150, 200, -10, -100])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_counts_are_the_published_ones(classes, ratio):
    for most in (1, 50, 150, 500, 1500, 3000, 4000, 5000):
        found = long_tail.class_counts(most, classes, ratio)
        assert found.tolist() == published_counts(most, classes, ratio)


def test_counts_of_the_published_tables():
    counts = long_tail.class_counts(1500, 10, 100).tolist()
    assert counts == [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]
    assert long_tail.class_counts(3000, 10, -100).tolist()[::9] == [30, 3000]
    assert long_tail.class_counts(3000, 10, 1).tolist() == [3000] * 10


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("classes", "each"), [(10, 400), (100, 60)])
def test_the_images_are_usb_s(classes, each, seed):
    labels = made_labels(classes, each)
    split = tailed(labels, LongTail(20, -20, each // 2), size=each // 4, seed=seed)
    expected = published_split(
        labels,
        classes,
        published_counts(each // 4, classes, 20),
        published_counts(each // 2, classes, -20),
        seed,
    )
    assert split.labeled.tolist() == sorted(expected[0])
    assert split.unlabeled.tolist() == [int(i) for i in expected[1]]
    assert not len(split.valid)
    both = tailed(
        labels, LongTail(20, -20, each // 2), size=each // 4, seed=seed, include_labeled=True
    )
    assert both.unlabeled.tolist() == [int(i) for i in expected[0] + expected[1]]
    assert [part.dtype for part in both] == [np.int64] * 3


def test_validation_images_are_balanced_and_nothing_else():
    labels = made_labels(10, 100)
    tail = LongTail(10, 10, None)
    split, without = tailed(labels, tail, size=40, valid=23), tailed(labels, tail, size=40)
    assert per_class(labels, split.valid) == [3] * 3 + [2] * 7
    assert not set(split.valid) & {*split.labeled, *split.unlabeled}
    assert split.labeled.tolist() == without.labeled.tolist()
    # As many unlabelled images as possible: all remaining ones of the first class.
    assert per_class(labels, split.unlabeled) == published_counts(57, 10, 10)
    assert per_class(labels, without.unlabeled) == published_counts(60, 10, 10)


def test_as_many_as_there_are():
    labels = made_labels(10, 100)
    for tail, size, labeled, unlabeled in (
        (LongTail(50, 1, None), 40, (40, 50), (60, 1)),
        (LongTail(50, -50, None), 50, (50, 50), (99, -50)),  # except the labelled image
        (LongTail(50, 50, None), None, (100, 50), (0, 50)),
        (LongTail(50, 50, 80), None, (20, 50), (80, 50)),
        (LongTail(50, 50, 0), 30, (30, 50), (0, 50)),
    ):
        split = tailed(labels, tail, size=size)
        most, ratio = labeled
        assert per_class(labels, split.labeled) == published_counts(most, 10, ratio)
        most, ratio = unlabeled
        assert per_class(labels, split.unlabeled) == published_counts(most, 10, ratio)


def test_a_split_is_the_same_again_and_another_with_another_seed():
    labels = made_labels(10, 100)
    one, again, other = (tailed(labels, LongTail(10, 10, 50), size=40, seed=s) for s in (1, 1, 2))
    assert fingerprint(one) == fingerprint(again) != fingerprint(other)
    assert per_class(labels, one.labeled) == per_class(labels, other.labeled)


@pytest.mark.parametrize(
    ("tail", "options", "message"),
    [
        (LongTail(10, 10, 70), {"size": 40}, "class 0 has only 100 images, but 40 labelled, 70 un"),
        (LongTail(10, -10, 99), {"size": 40}, "class 9 has only 100 .* 4 labelled, 99 unlabelled"),
        (LongTail(10, 1, 30), {"size": 70, "valid": 11}, "70 labelled, 30 unlabelled and 2 valid"),
        (LongTail(10, 10, None), {"size": 101}, "class 0 has only 100 images, but 101 labelled"),
        (LongTail(10, 10, None), {"valid": 1001}, "class 0 has only 100 .* and 101 validation"),
        (LongTail(10, 10, 300), {"size": None}, "class 0 has only 100 images, but 0 labelled, 300"),
        (LongTail(10, 10, 5), {"size": 0}, "no labelled images were asked for; allowed: at"),
        (LongTail(10, 1, 100), {"size": None}, "no labelled images were asked for"),
        (LongTail(10, 10, 5), {"num_classes": 11, "size": 40}, "class 10 has only 0 images, but 4"),
    ],
)
def test_what_the_images_do_not_give_is_refused(tail, options, message):
    with pytest.raises(ValueError, match=message):
        tailed(made_labels(10, 100), tail, **options)


def test_images_without_a_label_are_refused():
    labels = np.where(np.arange(1000) % 10, made_labels(10, 100), -1)
    with pytest.raises(ValueError, match="100 of 1000 training images have no label; allowed"):
        tailed(labels, LongTail(10, 10, None))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10_lt100.1@1500-0", ("cifar10", 1, 1500, 0, (100, 100, None))),
        ("cifar10_lt100.1@1500+3000-0", ("cifar10", 1, 1500, 0, (100, 100, 3000))),
        ("cifar10_lt100u1.0@500+4000-50", ("cifar10", 0, 500, 50, (100, 1, 4000))),
        ("cifar100_lt10u-10.2@150+300-0", ("cifar100", 2, 150, 0, (10, -10, 300))),
        ("digits_lt20.1@all+all-0", ("digits", 1, None, 0, (20, 20, None))),
        ("folder:a_lt5/b_lt20.1@40+all-9", ("folder:a_lt5/b", 1, 40, 9, (20, 20, None))),
        ("tfds:pets:4.0.0_lt20.1@40+9-0", ("tfds:pets:4.0.0", 1, 40, 0, (20, 20, 9))),
    ],
)
def test_a_long_tailed_name_is_taken_apart(name, expected):
    *plain, tail = expected
    assert parse(name) == SplitName(*plain, LongTail(*tail))
    assert splits.without_numbers(name) == name.rpartition(".")[0]
    later = splits.with_later_seed(name, 3)
    assert parse(later) == parse(name)._replace(seed=expected[1] + 3)
    assert splits.without_seed(later) == splits.without_seed(name)
    assert splits.whole(name) == f"{expected[0]}.0@all-0"
    assert splits.function_of(name) == expected[0].partition(":")[0]
    place = expected[0].partition(":")[2] if name.startswith("folder") else ""
    assert splits.place(name) == place
    assert splits.without_place(name) == name.replace(f":{place}", ":") if place else name


def test_a_place_may_itself_be_called_long_tailed():
    for data_set in ("folder:my_lt10", "npz:a/my_lt10", "my_data.pets_lt10", "tfds:pets_lt10"):
        assert parse(f"{data_set}.1@40-9") == SplitName(data_set, 1, 40, 9)
        assert splits.whole(f"{data_set}.1@40-9") == f"{data_set}.0@all-0"
    assert splits.place("folder:my_lt10.1@40-9") == "my_lt10"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digits.1@40+9-0",
            "has a \\+, which is for long-tailed names, for example cifar10_lt100.1",
        ),
        ("digits_lt0.1@40-0", "has the ratio 0; allowed after _lt and u: from 1 up, and from -1 d"),
        ("digits_lt5u0.1@40-0", "has the ratio 0"),
        ("digits_lt5.1@40+x-0", "is not <data set>.<seed>@<labels>-<validation images>"),
    ],
)
def test_another_form_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        parse(name)


def test_a_name_composes_with_every_data_set_in_memory(tmp_path):
    path, images = tmp_path / "pets.npz", np.zeros((90, 8, 8, 3), np.uint8)
    arrays = {"train_images": images, "train_labels": np.arange(90) % 3}
    np.savez(path, **arrays, valid_images=images[:6], valid_labels=np.arange(6) % 3)
    data, split = load(f"npz:{path}_lt4.1@8+16-0", unlabeled="strict")
    assert np.bincount(data.labels[split.labeled]).tolist() == [8, 4, 2]
    assert np.bincount(data.labels[split.unlabeled]).tolist() == [24, 12, 6]
    assert split.valid.tolist() == [*range(90, 96)]  # the data set's validation images
    data, split = load("digits_lt20.3@40+80-10", unlabeled="exclude_labeled")
    assert per_class(data.labels, split.labeled) == published_counts(40, 10, 20)
    assert per_class(data.labels, split.unlabeled) == published_counts(80, 10, 20)
    assert per_class(data.labels, split.valid) == [1] * 10

    np.savez(path, **arrays, unlabeled_images=images, test_images=images, test_labels=[0] * 90)
    with pytest.raises(ValueError, match="90 of 180 training images have no label"):
        load(f"npz:{path}_lt4.1@8+16-0", unlabeled="strict")
    with pytest.raises(UsageError, match="natural, as config.dataset digits_lt5.* how many of eac"):
        load("digits_lt5.1@40-0", unlabeled="all", labels_per_class="balanced")
