import dataclasses

import jax
import numpy as np
import pytest

from ssljax import recipe
from ssljax.run import evaluate, results
from ssljax.training import parallel
from ssljax.training.step import to_float


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch_size", [7, 512])
def test_every_image_counts_once(config, devices, batch_size):
    config.eval_batch_size = batch_size
    experiment = recipe.build(config)
    experiment = dataclasses.replace(experiment, devices=experiment.devices[:devices])
    state = experiment.init_state()
    images, labels = experiment.dataset.test_images[:101], experiment.dataset.test_labels[:101]

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = experiment.model.apply(variables, to_float(images), train=False)
    logits = np.asarray(logits, np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weights = parallel.replicate((state.params, state.batch_stats), experiment.devices)
    batches = [
        (images[i : i + batch_size], labels[i : i + batch_size]) for i in range(0, 101, batch_size)
    ]
    scores = experiment.evaluator()({"raw": weights}, batches)["raw"]

    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-9)
    assert scores["loss"] == pytest.approx(-log_softmax[range(101), labels].mean(), rel=1e-5)


def test_ema_weights_and_raw_weights_are_told_apart(config):
    experiment = recipe.build(config)
    state = experiment.init_state()
    state = state.replace(ema=jax.tree.map(lambda x: x + 0.5, state.ema))
    replicated = parallel.replicate(state, experiment.devices)
    scores = evaluate.evaluate_state(experiment, experiment.evaluator(), replicated)
    assert scores["test/loss_ema"] != scores["test/loss_raw"]
    raw = parallel.replicate((state.params, state.batch_stats), experiment.devices)
    valid = experiment.split.valid
    direct = experiment.evaluator()({"raw": raw}, experiment.dataset.batches(valid, 512))
    assert scores["valid/loss_raw"] == direct["raw"]["loss"]


def test_the_headline_is_the_median_of_the_last_twenty_evaluations():
    rows = [{"step": i, "test/accuracy_ema": i / 100} for i in range(1, 31)]
    rows.insert(3, {"step": 99, "loss/total": 1.0})  # a row that is no evaluation
    record = results.results(rows)
    assert record["headline"] == {"test_accuracy": 0.205, "weights": "ema", "evaluations": 20}
    assert results.headline(record) == (
        "headline: test accuracy 20.50 % (EMA weights, median of the last 20 evaluations)"
    )


def test_without_test_images_the_headline_is_about_validation_images():
    rows = [{"step": i, "valid/accuracy_ema": i / 10, "valid/loss_ema": 1.0} for i in (1, 2, 3)]
    record = results.results(rows)
    assert record["headline"] == {"validation_accuracy": 0.2, "weights": "ema", "evaluations": 3}
    assert record["last"] == {"valid/accuracy_ema": 0.3, "valid/loss_ema": 1.0}
    assert results.headline(record).startswith("headline: validation accuracy 20.00 % (EMA")
