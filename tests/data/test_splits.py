"""Tests splits against a second transcription of the published scripts."""

import numpy as np
import pytest

from ssljax.data.splits import Split, SplitName, fingerprint, make_split, parse


def test_parse_takes_a_published_name_apart():
    assert parse("cifar10.3@250-5000") == SplitName("cifar10", 3, 250, 5000)


def test_parse_leaves_dots_and_colons_to_the_data_set():
    assert parse("folder:my.pets.1@100-50") == SplitName("folder:my.pets", 1, 100, 50)
    assert parse("tfds:oxford_iiit_pet:4.0.0.12@37-0") == SplitName(
        "tfds:oxford_iiit_pet:4.0.0", 12, 37, 0
    )


def test_parse_reads_all_as_every_label():
    assert parse("digits.0@all-1") == SplitName("digits", 0, None, 1)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "digits",
        "digits@40-100",
        "digits.1@40",
        "digits.1-100",
        "digits.1@-100",
        "digits.1@40-",
        "digits.one@40-100",
        "digits.-1@40-100",
        "digits.1@every-100",
        "digits.1@40-all",
        "digits.1@40.5-100",
        ".1@40-100",
        "digits.1@40-100\n",
        "digits.1@40-100/",
    ],
)
def test_parse_refuses_another_form_and_shows_an_example(name):
    with pytest.raises(ValueError, match=r"for example digits\.1@40-100") as error:
        parse(name)
    assert repr(name) in str(error.value)


def test_parse_refuses_a_seed_that_is_too_large():
    assert parse("digits.4294967295@40-0").seed == 2**32 - 1
    with pytest.raises(ValueError, match="'digits.4294967296@40-0' has a seed above 4294967295"):
        parse("digits.4294967296@40-0")


def needy(share, written):
    """Returns the next class to serve; Python's max, like argmax, takes the first maximum."""
    most = max(1, *written)
    return max(range(len(share)), key=lambda c: share[c] - written[c] / most)


def published_share(labels):
    sizes = [list(labels).count(c) for c in range(max(labels) + 1)]
    return [size / max(sizes) for size in sizes]


def published_labeled(labels, seed, size, share):
    """`create_split.py` of mixmatch and fixmatch: the records of `-label.tfrecord`."""
    records = [
        np.array([i for i, label in enumerate(labels) if label == c], np.int64)
        for c in range(len(share))
    ]
    before = np.random.get_state()
    if seed != 0:
        np.random.seed(seed)
        for group in records:
            np.random.shuffle(group)
    np.random.set_state(before)
    written = [0] * len(share)
    picked = set()
    while len(picked) < size:
        c = needy(share, written)
        picked.add(int(records[c][written[c]]))
        written[c] += 1
    return sorted(picked)


def published_unlabeled(labels, left_out, share):
    """The records of `-unlabel.tfrecord` in order.

    mixmatch's `create_split.py` omits the labelled ones; fixmatch's `create_unlabeled.py` is the
    same program without omissions.
    """
    waiting = [[] for _ in share]  # each class's records in original order
    written = [0] * len(share)
    file = []
    for record, label in enumerate(labels):
        if record in left_out:
            continue
        waiting[label].append(record)
        while waiting[c := needy(share, written)]:
            file.append(waiting[c].pop(0))
            written[c] += 1
    return file + [record for records in waiting for record in records]


def published_split(labels, *, seed, size, valid, include_labeled, share=None):
    labels = [int(label) for label in labels]
    share = published_share(labels) if share is None else share
    labeled = published_labeled(labels, seed, size, share)
    file = published_unlabeled(labels, () if include_labeled else labeled, share)
    return labeled, file[valid:], file[:valid]  # libml/data.py: skip(valid), take(valid)


def made_labels(counts, seed=7):
    """Returns labels with these class counts, in an arbitrary fixed order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


EQUAL, UNEQUAL, LONG_TAIL = (30,) * 10, (40, 25, 33, 1, 12), (150, 50, 17, 5, 2)


@pytest.mark.parametrize("include_labeled", [False, True])
@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL, LONG_TAIL])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_split_is_the_published_one(seed, counts, include_labeled):
    labels = made_labels(counts)
    for size, valid in ((1, 0), (10, 1), (40, 20), (len(labels) - 3, 3)):
        arguments = dict(seed=seed, size=size, valid=valid, include_labeled=include_labeled)
        split = make_split(labels, **arguments)
        for ours, published in zip(split, published_split(labels, **arguments), strict=True):
            np.testing.assert_array_equal(ours, published)


@pytest.mark.slow
@pytest.mark.parametrize("include_labeled", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_splits_of_cifar_10_are_the_published_ones(cifar10, seed, include_labeled):
    for size, valid in ((40, 1), (250, 5000), (1000, 1), (4000, 5000)):
        arguments = dict(seed=seed, size=size, valid=valid, include_labeled=include_labeled)
        split = make_split(cifar10.labels, **arguments)
        for ours, published in zip(
            split, published_split(cifar10.labels, **arguments), strict=True
        ):
            np.testing.assert_array_equal(ours, published)


@pytest.mark.parametrize("include_labeled", [False, True])
def test_split_with_a_given_share_is_the_published_one(include_labeled):
    # As in STL-10: the unlabelled records count as class 0, so the shares are set to one.
    labels = made_labels(UNEQUAL)
    arguments = dict(seed=2, size=7, valid=9, include_labeled=include_labeled, share=[1.0] * 5)
    split = make_split(labels, **arguments)
    for ours, published in zip(split, published_split(labels, **arguments), strict=True):
        np.testing.assert_array_equal(ours, published)
    assert sorted(labels[split.labeled]) == [0, 0, 1, 1, 2, 3, 4]
    counted = make_split(labels, **(arguments | {"share": None}))
    assert sorted(labels[counted.labeled]) == [0, 0, 1, 2, 2, 3, 4]


def test_unlabelled_order_worked_out_by_hand():
    # Shares 1 and 2/3. Record 1 waits until record 2, the first of class 1, is written.
    split = make_split(np.array([0, 0, 1, 1, 0]), seed=0, size=1, valid=2, include_labeled=True)
    assert split.labeled.tolist() == [0]
    assert split.valid.tolist() == [0, 2]
    assert split.unlabeled.tolist() == [1, 3, 4]


def test_seed_0_labels_the_first_records_of_each_class():
    labels = made_labels(EQUAL)
    first = [np.flatnonzero(labels == c)[:4] for c in range(10)]
    split = make_split(labels, seed=0, size=40, valid=1, include_labeled=False)
    np.testing.assert_array_equal(split.labeled, np.sort(np.concatenate(first)))


def test_size_none_labels_every_record():
    labels = made_labels(UNEQUAL)
    split = make_split(labels, seed=1, size=None, valid=0, include_labeled=True)
    np.testing.assert_array_equal(split.labeled, np.arange(len(labels)))
    assert len(split.unlabeled) == len(labels)


def test_lists_without_labelled_records_are_disjoint_and_cover_the_records():
    labels = made_labels(UNEQUAL)
    split = make_split(labels, seed=1, size=40, valid=20, include_labeled=False)
    assert [len(part) for part in split] == [40, len(labels) - 60, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(len(labels)))


def test_lists_with_labelled_records_hold_each_record_once_beside_the_labelled():
    labels = made_labels(UNEQUAL)
    split = make_split(labels, seed=1, size=40, valid=20, include_labeled=True)
    assert [len(part) for part in split] == [40, len(labels) - 20, 20]
    held = np.concatenate([split.valid, split.unlabeled])
    np.testing.assert_array_equal(np.sort(held), np.arange(len(labels)))
    # The published convention is kept: a validation image can be a labelled one.
    assert set(split.labeled) & set(split.valid)


def test_validation_is_the_head_of_the_unlabelled_order():
    labels = made_labels(EQUAL)
    arguments = dict(seed=3, size=40, include_labeled=False)
    whole = make_split(labels, valid=0, **arguments)
    split = make_split(labels, valid=100, **arguments)
    np.testing.assert_array_equal(split.valid, whole.unlabeled[:100])
    np.testing.assert_array_equal(split.unlabeled, whole.unlabeled[100:])
    np.testing.assert_array_equal(split.labeled, whole.labeled)


def test_labelled_sets_of_one_seed_are_nested():
    labels = made_labels(EQUAL)
    small, large = (
        make_split(labels, seed=1, size=size, valid=1, include_labeled=False).labeled
        for size in (40, 250)
    )
    assert set(small) < set(large)


def test_labelled_sets_of_two_seeds_differ():
    labels = made_labels(EQUAL)
    one, two = (
        make_split(labels, seed=seed, size=40, valid=1, include_labeled=False).labeled
        for seed in (1, 2)
    )
    assert set(one) != set(two)


@pytest.mark.parametrize("size", [1, None])
@pytest.mark.parametrize("include_labeled", [False, True])
def test_indices_are_int64_even_where_a_list_is_empty(size, include_labeled):
    split = make_split(
        made_labels(EQUAL).astype(np.uint8),
        seed=1,
        size=size,
        valid=0,
        include_labeled=include_labeled,
    )
    assert [part.dtype for part in split] == [np.int64] * 3


@pytest.mark.parametrize("size", [0, -1, 301])
def test_a_size_that_does_not_fit_is_an_error(size):
    with pytest.raises(ValueError, match=rf"{size} labels .* allowed: 1 to 300"):
        make_split(made_labels(EQUAL), seed=1, size=size, valid=0, include_labeled=False)


def test_a_class_without_enough_images_is_an_error():
    # Class 3 has one image; equal shares would need two.
    with pytest.raises(ValueError, match="class 3 has only 1 images"):
        make_split(
            made_labels(UNEQUAL),
            seed=1,
            size=10,
            valid=0,
            include_labeled=False,
            share=np.ones(5),
        )


@pytest.mark.parametrize(("include_labeled", "most"), [(False, 260), (True, 300)])
def test_more_validation_images_than_there_are_is_an_error(include_labeled, most):
    arguments = dict(seed=1, size=40, include_labeled=include_labeled)
    assert len(make_split(made_labels(EQUAL), valid=most, **arguments).unlabeled) == 0
    with pytest.raises(ValueError, match=rf"{most + 1} validation .* allowed: 0 to {most}"):
        make_split(made_labels(EQUAL), valid=most + 1, **arguments)


def test_labels_are_not_changed_and_numpys_random_state_is_not_touched():
    labels = made_labels(EQUAL)
    copy = labels.copy()
    np.random.seed(5)
    make_split(labels, seed=1, size=40, valid=10, include_labeled=False)
    after = np.random.random_sample()
    np.random.seed(5)
    assert after == np.random.random_sample()
    np.testing.assert_array_equal(labels, copy)


def test_fingerprint_is_a_short_constant_of_the_indices():
    split = Split(*(np.array(part, np.int64) for part in ([1, 2], [3, 4], [5])))
    # A fixed value: future versions must recognise today's checkpoints.
    assert fingerprint(split) == "b1e85da6c04d5408"
    assert fingerprint(Split(*(part.astype(np.int32) for part in split))) == fingerprint(split)


def test_fingerprint_sees_the_order_and_which_list_an_index_is_in():
    variants = [
        ([1, 2], [3, 4], [5]),
        ([2, 1], [3, 4], [5]),
        ([1, 2], [4, 3], [5]),
        ([1, 2, 3], [4], [5]),  # the same numbers in sequence, with different borders
        ([1, 2], [3, 4, 5], []),
        ([1, 2], [3], [4, 5]),
        ([1, 2], [3, 4], [6]),
        ([1, 2], [3, 4], [5, 5]),
    ]
    hashes = {
        fingerprint(Split(*(np.array(part, np.int64) for part in variant))) for variant in variants
    }
    assert len(hashes) == len(variants)


@pytest.mark.parametrize("include_labeled", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stl10s_order_is_the_published_one_though_it_counts_the_rest_as_class_0(
    seed, include_labeled
):
    # As published: 5,000 labelled records, 500 per class, then 100,000 that count as class 0.
    # Shares are all one, and the labelled records come from a fold with equal class counts.
    known = made_labels((50,) * 10)
    fold = np.sort([np.flatnonzero(known == c)[seed : seed + 10] for c in range(10)], axis=None)
    published = published_unlabeled(
        [*known, *[0] * 300], () if include_labeled else fold, share=[1.0] * 10
    )
    labels = np.concatenate([known, np.full(300, -1)])
    split = make_split(
        labels, seed=seed, size=100, valid=20, include_labeled=include_labeled, labeled=fold
    )
    assert split.labeled.tolist() == fold.tolist()
    assert [*split.valid, *split.unlabeled] == published


def test_records_without_labels_are_never_labelled_and_have_no_share():
    known = made_labels(UNEQUAL)
    labels = np.full(3 * len(known), -1)
    labels[::3] = known
    arguments = dict(seed=3, valid=5, include_labeled=False)
    split = make_split(labels, size=20, **arguments)
    alone = make_split(known, size=20, **arguments)
    assert split.labeled.tolist() == (3 * alone.labeled).tolist()
    assert split.valid.tolist() == (3 * alone.valid).tolist()
    order = [*(3 * alone.unlabeled), *np.flatnonzero(labels < 0)]
    assert split.unlabeled.tolist() == order
    everything = make_split(labels, size=None, **arguments | {"valid": 0})
    assert everything.labeled.tolist() == [*range(0, len(labels), 3)]
    with pytest.raises(ValueError, match=f"allowed: 1 to {len(known)}"):
        make_split(labels, size=len(known) + 1, **arguments)


def test_strict_passes_labelled_records_over_for_validation():
    labels = made_labels(UNEQUAL)
    arguments = dict(seed=2, size=30, include_labeled=True)
    order = make_split(labels, valid=0, **arguments).unlabeled
    split = make_split(labels, valid=25, strict=True, **arguments)
    never = [i for i in order if i not in split.labeled]
    assert split.valid.tolist() == never[:25]
    assert split.unlabeled.tolist() == [i for i in order if i not in never[:25]]
    assert len(make_split(labels, valid=81, strict=True, **arguments).unlabeled) == 30
    with pytest.raises(ValueError, match="82 validation images .* allowed: 0 to 81"):
        make_split(labels, valid=82, strict=True, **arguments)


def test_a_class_without_images_is_passed_over():
    labels = np.array([0, 2, 3] * 5)  # class 1 does not occur
    split = make_split(labels, seed=1, size=6, valid=3, include_labeled=False)
    assert np.bincount(labels[split.labeled]).tolist() == [2, 0, 2, 2]
    assert np.bincount(labels[split.valid]).tolist() == [1, 0, 1, 1]
    assert len(split.unlabeled) == 6


def test_records_of_which_none_has_a_label_are_refused():
    with pytest.raises(ValueError, match="no training image has a label"):
        make_split(np.array([-1, -1]), seed=1, size=1, valid=0, include_labeled=True)


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL, LONG_TAIL])
def test_labels_are_drawn_in_proportion_and_one_of_each_class_first(counts):
    labels = made_labels(counts)
    arguments = dict(seed=1, valid=0, include_labeled=True)
    for size in (len(counts), 40, 90):
        split = make_split(labels, size=size, **arguments)
        each = np.bincount(labels[split.labeled], minlength=len(counts))
        assert each.min() >= 1
        proportional = np.array(counts) / max(counts) * each.max()
        assert np.all(np.abs(each - np.maximum(1, proportional)) <= 1)


@pytest.mark.parametrize(
    ("size", "each"),
    [(1, [1, 0, 0, 0, 0]), (5, [1, 1, 1, 1, 1]), (13, [3, 3, 3, 1, 3]), (15, [4, 4, 3, 1, 3]),
     (111, [40, 25, 33, 1, 12]), (54, [14, 14, 13, 1, 12])],
)  # fmt: skip
def test_balanced_labels_are_as_many_of_each_class_as_it_has(size, each):
    labels = made_labels(UNEQUAL)
    arguments = dict(seed=3, valid=0, include_labeled=False, balanced=True)
    split = make_split(labels, size=size, **arguments)
    assert np.bincount(labels[split.labeled], minlength=5).tolist() == each
    assert np.all(np.diff(split.labeled) > 0)
    again = make_split(labels, size=size, **arguments)
    assert fingerprint(again) == fingerprint(split)
    if size < 100:  # another seed draws different records
        other = make_split(labels, size=size, **arguments | {"seed": 4})
        assert set(other.labeled) != set(split.labeled)


def test_balanced_labels_of_equal_classes_are_the_published_ones():
    labels = made_labels(EQUAL)
    arguments = dict(seed=2, size=45, valid=20, include_labeled=True)
    balanced = make_split(labels, balanced=True, **arguments)
    assert fingerprint(balanced) == fingerprint(make_split(labels, **arguments))


def test_a_balanced_draw_passes_over_a_class_without_images():
    labels = np.array([0, 2, 2, 3] * 5)
    arguments = dict(seed=1, valid=3, include_labeled=True, strict=True, balanced=True)
    split = make_split(labels, size=9, **arguments)
    assert np.bincount(labels[split.labeled]).tolist() == [3, 0, 3, 3]
    assert not set(split.labeled) & set(split.valid)
