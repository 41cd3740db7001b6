import dataclasses
import functools

import jax
import numpy as np
import pytest

from ssljax import recipe
from ssljax.run import artifacts, evaluate, results
from ssljax.training import parallel
from ssljax.training.step import to_float


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch_size", [7, 512])
def test_every_image_counts_once(config, devices, batch_size, untraced):
    config.eval_batch_size = batch_size
    experiment = recipe.build(config)
    experiment = dataclasses.replace(experiment, devices=experiment.devices[:devices])
    state = experiment.init_state()
    images, labels = experiment.dataset.test_images[:101], experiment.dataset.test_labels[:101]

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    apply = jax.jit(functools.partial(experiment.model.apply, train=False))
    logits, _ = apply(variables, to_float(images))
    logits = np.asarray(logits, np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weights = parallel.replicate(state.weights("raw"), experiment.devices)
    batches = [
        (images[i : i + batch_size], labels[i : i + batch_size]) for i in range(0, 101, batch_size)
    ]
    scores = evaluate.mean_metrics(experiment.evaluator(), {"raw": weights}, batches)["raw"]

    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-9)
    assert scores["loss"] == pytest.approx(-log_softmax[range(101), labels].mean(), rel=1e-5)


def test_ema_weights_and_raw_weights_are_told_apart(config, untraced):
    experiment = recipe.build(config)
    state = experiment.init_state()
    state = state.replace(ema=jax.tree.map(lambda x: x + 0.5, state.ema))
    replicated = parallel.replicate(state, experiment.devices)
    scores, _ = evaluate.evaluate_state(experiment, experiment.evaluator(), replicated)
    assert scores["test/loss_ema"] != scores["test/loss_raw"]
    raw = parallel.replicate(state.weights("raw"), experiment.devices)
    valid = experiment.split.valid
    batches = experiment.dataset.batches(valid, 512)
    direct = evaluate.mean_metrics(experiment.evaluator(), {"raw": raw}, batches)
    assert scores["valid/loss_raw"] == direct["raw"]["loss"]


class Counted:
    """A model that counts its images, on any device."""

    def __init__(self, model):
        self.model, self.images = model, []

    def apply(self, variables, images, train):
        jax.debug.callback(self._count, images.shape[0])
        return self.model.apply(variables, images, train=train)

    def _count(self, images):
        self.images.append(int(images))  # devices count concurrently


@pytest.mark.parametrize("devices", [1, 4])
def test_each_image_passes_through_the_network_once_for_each_weights(
    config, devices, tmp_path, untraced
):
    config.eval_batch_size = 20  # 360 test and 100 validation images: no padding
    experiment = recipe.build(config)
    experiment = dataclasses.replace(experiment, devices=experiment.devices[:devices])
    state = parallel.replicate(experiment.init_state(), experiment.devices)
    counted = Counted(experiment.model)
    experiment = dataclasses.replace(experiment, model=counted)
    _, says = evaluate.evaluate_state(experiment, experiment.evaluator(), state)
    artifacts.write_predictions(experiment, says, tmp_path, step=0)
    jax.effects_barrier()
    assert sum(counted.images) == 2 * (360 + 100)


def test_predictions_of_several_processes_are_put_in_order(monkeypatch):
    """Three processes alternate; the second one lacks a damaged image."""
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 3, (2, 100))
    confidence = generator.random(100).astype(np.float32)
    predicted[99], confidence[99] = labels[99] + 1, 1.0  # a mistake after the missing image
    images = generator.integers(0, 256, (100, 2, 2, 1), np.uint8)
    whole = evaluate._Guesses((2, 2, 1))
    parts = [evaluate._Guesses((2, 2, 1)) for _ in range(3)]
    for chosen, into in (
        (np.arange(100), [whole]),
        *((np.arange(i, 100, 3), [parts[i]]) for i in range(3)),
    ):
        if into[0] is parts[1]:
            chosen = chosen[:-1]
        elif into[0] is whole:
            chosen = np.delete(chosen, 97)
        for rows in np.array_split(chosen, 4):
            found = parallel.Evaluated({}, predicted[rows], confidence[rows])
            into[0].add(images[rows], labels[rows], found)
    alone = whole.gather("test", 100)
    assert len(alone.labels) == 99
    assert alone.mistakes[0] == 98
    assert len(alone.mistakes) == 24
    told = []
    monkeypatch.setattr(evaluate.jax, "process_count", lambda: 3)
    monkeypatch.setattr(
        evaluate.hosts, "gather", lambda tree: told.append(tree) or [x[None] for x in tree]
    )
    for part in parts[1:]:
        part.gather("test", 100)
    others = list(told)
    monkeypatch.setattr(
        evaluate.hosts, "gather",
        lambda tree: [np.stack(x) for x in zip(tree, *others, strict=True)],
    )  # fmt: skip
    together = parts[0].gather("test", 100)
    for name, expected in alone._asdict().items():
        np.testing.assert_array_equal(getattr(together, name), expected, err_msg=name)


def test_every_class_with_an_image_counts_alike():
    labels = np.array([0] * 8 + [2] * 2)  # class 1 has no image
    predicted = np.array([0] * 7 + [1] + [2, 0])
    found = evaluate.balanced(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx((7 / 8 + 1 / 2) / 2)
    f1 = 2 * 7 / (8 + 8), 2 * 1 / (2 + 1)  # 2 TP / (labels + predictions)
    assert found["macro_f1"] == pytest.approx(sum(f1) / 2)


def test_both_parts_have_figures_of_the_ema_weights_and_uneven_parts_are_known(config, untraced):
    experiment = recipe.build(config)
    state = parallel.replicate(experiment.init_state(), experiment.devices)
    scores, says = evaluate.evaluate_state(experiment, experiment.evaluator(), state)
    expected = evaluate.balanced(says.labels, says.predicted)
    for name, figure in expected.items():
        assert scores[f"test/{name}_ema"] == figure
        assert 0 <= scores[f"valid/{name}_ema"] <= 1
        assert f"test/{name}_raw" not in scores
    assert evaluate.uneven_parts(experiment) == frozenset()  # 35 to 37 images per digit
    data = experiment.dataset
    few = np.flatnonzero((data.test_labels > 0) | (np.arange(len(data.test_labels)) < 20))
    fewer = data._replace(test_images=data.test_images[few], test_labels=data.test_labels[few])
    assert evaluate.uneven_parts(dataclasses.replace(experiment, dataset=fewer)) == {"test"}


def test_the_headline_has_balanced_figures_and_names_them_where_classes_are_uneven():
    rows = [
        {
            "step": i, "test/accuracy_ema": i / 10, "test/accuracy_raw": 0.5,
            "test/balanced_accuracy_ema": i / 20, "test/macro_f1_ema": i / 40,
        }
        for i in (1, 2, 3)
    ]  # fmt: skip
    record = results.results(rows)
    assert record["headline"] == {
        "test_accuracy": 0.2, "test_balanced_accuracy": 0.1, "test_macro_f1": 0.05,
        "weights": "ema", "evaluations": 3,
    }  # fmt: skip
    assert results.headline(record, ["test"]) == (
        "headline: test accuracy 20.00 %, balanced accuracy 10.00 %, macro F1 5.00 % (EMA weights, "
        "medians of the last 3 evaluations)"
    )
    even = "headline: test accuracy 20.00 % (EMA weights, median of the last 3 evaluations)"
    assert results.headline(record) == results.headline(record, ["validation"]) == even
    assert results.describe(rows[-1], ["test"]) == (
        "test accuracy 30.00 % EMA, 50.00 % raw; test balanced accuracy 15.00 % EMA; "
        "test macro F1 7.50 % EMA"
    )
    assert results.describe(rows[-1]) == "test accuracy 30.00 % EMA, 50.00 % raw"
    # A run started by an older version: its rows have only the accuracy.
    older = results.results([{"step": 0, "test/accuracy_ema": 0.2}, *rows])
    assert set(older["headline"]) == {"test_accuracy", "weights", "evaluations"}
    assert results.headline(older, ["test"]).startswith("headline: test accuracy 20.00 % (EMA")


def test_without_images_to_evaluate_on_the_headline_says_so():
    record = results.results([{"step": 2, "loss/total": 1.0}, {"step": 4, "loss/total": 1.0}])
    assert record == {"step": 4, "headline": {}, "last": {}}
    assert results.headline(record).startswith("headline: nothing was evaluated")


def test_the_headline_is_the_median_of_the_last_twenty_evaluations():
    rows = [{"step": i, "test/accuracy_ema": i / 100} for i in range(1, 31)]
    rows.insert(3, {"step": 99, "loss/total": 1.0})  # a row that is not an evaluation
    record = results.results(rows)
    assert record["headline"] == {"test_accuracy": 0.205, "weights": "ema", "evaluations": 20}
    assert results.headline(record) == (
        "headline: test accuracy 20.50 % (EMA weights, median of the last 20 evaluations)"
    )


def test_the_classes_of_a_row_are_described_as_far_as_they_are_known():
    row = {"guess/mask_rate_rarest": 0.123, "guess/mask_rate_frequent": 1.0}
    row |= {"guess/accuracy_rarest": None, "guess/accuracy_frequent": 0.5}
    assert results.describe_classes(row) == (
        "rarest class: mask rate 0.12; most frequent class: mask rate 1.00, guess accuracy 0.50"
    )
    assert results.describe_classes({"loss/total": 1.0}) == ""


def test_without_test_images_the_headline_is_about_validation_images():
    rows = [{"step": i, "valid/accuracy_ema": i / 10, "valid/loss_ema": 1.0} for i in (1, 2, 3)]
    record = results.results(rows)
    assert record["headline"] == {"validation_accuracy": 0.2, "weights": "ema", "evaluations": 3}
    assert record["last"] == {"valid/accuracy_ema": 0.3, "valid/loss_ema": 1.0}
    assert results.headline(record).startswith("headline: validation accuracy 20.00 % (EMA")
