"""Tests losses against numbers computed by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import losses


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=2e-6, atol=1e-7)


def test_cross_entropy_of_soft_targets_is_in_nats_and_per_example():
    # exp(logits) are 1 : 2 : 3, so the probabilities are 1/6, 1/3, 1/2; adding 7 changes nothing.
    logits = jnp.log(jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])) + jnp.array([[0.0], [7.0]])
    targets = jnp.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    soft = 0.5 * math.log(6) + 0.25 * math.log(3) + 0.25 * math.log(2)
    close(losses.cross_entropy(logits, targets), [soft, math.log(3)])


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = jnp.array([[1000.0, 0.0], [1000.0, 0.0]])
    targets = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    close(losses.cross_entropy(logits, targets), [1000.0, 0.0])


def test_squared_error_is_a_mean_over_classes_per_example():
    # Probabilities 1/4, 3/4 against 1, 0, and 1/2, 1/2 against 0.6, 0.4.
    logits = jnp.array([[0.0, math.log(3)], [5.0, 5.0]])
    targets = jnp.array([[1.0, 0.0], [0.6, 0.4]])
    close(losses.squared_error(logits, targets), [(0.75**2 + 0.75**2) / 2, 0.1**2])


@pytest.mark.parametrize(
    ("temperature", "sharpened"),
    [
        (1.0, [0.1, 0.2, 0.7]),
        (0.5, [0.01 / 0.54, 0.04 / 0.54, 0.49 / 0.54]),
        (0.25, [0.0001 / 0.2418, 0.0016 / 0.2418, 0.2401 / 0.2418]),
    ],
)
def test_sharpen_takes_powers_and_normalises(temperature, sharpened):
    rows = jnp.array([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2]])
    expected = [sharpened, [sharpened[2], sharpened[0], sharpened[1]]]
    close(losses.sharpen(rows, temperature), expected)


def test_sharpen_keeps_certainty_and_indifference():
    rows = jnp.array([[0.0, 1.0], [0.5, 0.5]])
    close(losses.sharpen(rows, 0.5), rows)


def test_entropy_of_one_half_twice_is_a_bit():
    close(losses.entropy(jnp.array([[1.0, 1.0], [0.0, 200.0]])), [np.log(2), 0.0])


def test_divergence_by_hand_and_from_itself():
    half, quarter = jnp.zeros((1, 2)), jnp.log(jnp.array([[0.25, 0.75]]))
    close(losses.kl_divergence(half, quarter), [0.5 * np.log(2) + 0.5 * np.log(2 / 3)])
    close(losses.kl_divergence(quarter, half), [0.25 * np.log(0.5) + 0.75 * np.log(1.5)])
    close(losses.kl_divergence(quarter, quarter + 5), [0.0])


def test_interleaved_passes_are_one_a_sub_batch_and_logits_come_back_in_order():
    def apply(params, images):
        return images[:, 0, 0] + params, jnp.max(images)

    images = jnp.arange(8.0).reshape(8, 1, 1, 1)
    logits, batch_stats = losses.apply_interleaved(apply, 10.0, images, 2)
    close(logits[:, 0], np.arange(8) + 10)
    close(batch_stats, [7.0, 5.0])  # [0, 1, 6, 7] and [4, 5, 2, 3]


def test_mixup_keeps_lam_of_each_row_and_adds_its_partner():
    lam, partner = jnp.array([1.0, 0.75, 0.5]), jnp.array([1, 2, 0])
    distributions = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    close(losses.mixup(distributions, lam, partner), [[1.0, 0.0], [0.125, 0.875], [0.75, 0.25]])
    images = jnp.array([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 2, 2, 3))
    mixed = losses.mixup(images, lam, partner)
    expected = np.array([1.0, 0.75 * 2 + 0.25 * 4, 0.5 * 4 + 0.5 * 1]).reshape(3, 1, 1, 1)
    close(mixed, np.broadcast_to(expected, (3, 2, 2, 3)))


def numbered_parts(n, batch):
    """Returns parts in which row i of part p holds 1000 p + i, twice."""
    return [jnp.arange(batch)[:, None] + jnp.array([[1000 * p, 1000 * p]]) for p in range(n)]


def test_interleave_of_three_batches_of_64_puts_each_row_where_the_published_code_does():
    # interleave_offsets(64, 2) = [0, 21, 42, 64]: the longest group comes last.
    first, second, third = (part[:, 0].tolist() for part in numbered_parts(3, 64))
    mixed = losses.interleave(numbered_parts(3, 64))
    assert [part.shape for part in mixed] == [(64, 2)] * 3
    assert mixed[0][:, 0].tolist() == first[:21] + second[21:42] + third[42:]
    assert mixed[1][:, 0].tolist() == second[:21] + first[21:42] + second[42:]
    assert mixed[2][:, 0].tolist() == third[:42] + first[42:]


@pytest.mark.parametrize(("n", "batch"), [(3, 64), (3, 65), (3, 66), (2, 5), (4, 7), (3, 2)])
def test_interleaved_parts_hold_about_the_nth_part_of_the_first(n, batch):
    parts = losses.interleave(numbered_parts(n, batch))
    low, high = batch // n, -(-batch // n)
    for part in parts:
        labeled = int(np.sum(np.asarray(part[:, 0]) < 1000))
        assert low <= labeled <= high
    # The first part, whose statistics are kept, holds about one nth of every source.
    sources = np.bincount(np.asarray(parts[0][:, 0]) // 1000, minlength=n)
    assert all(low <= count <= high for count in sources)
    everything = np.concatenate([np.asarray(part[:, 0]) for part in parts])
    assert len(set(everything.tolist())) == n * batch


@pytest.mark.parametrize(("n", "batch"), [(3, 64), (3, 65), (2, 5), (4, 7), (3, 2), (1, 4)])
def test_interleaving_twice_restores_the_parts(n, batch):
    parts = numbered_parts(n, batch)
    for restored, part in zip(losses.interleave(losses.interleave(parts)), parts, strict=True):
        np.testing.assert_array_equal(restored, part)


def test_alignment_multiplies_by_the_ratio_and_normalises():
    guesses = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    target, model = np.array([0.5, 0.25, 0.25]), np.array([0.2, 0.2, 0.6])
    expected = guesses * (target + 1e-6) / (model + 1e-6)
    expected /= expected.sum(axis=1, keepdims=True)
    found = losses.align(jnp.float32(guesses), jnp.float32(target), jnp.float32(model))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_guesses_are_balanced_by_the_mean_of_the_steps_there_were():
    guesses = jnp.float32([[0.5, 0.5], [0.9, 0.1]])
    balanced, queue = losses.balance(guesses, jnp.zeros((4, 2)))
    np.testing.assert_allclose(queue, [[0, 0]] * 3 + [[0.7, 0.3]], rtol=1e-6)
    expected = np.array([[0.5 / 0.7, 0.5 / 0.3], [0.9 / 0.7, 0.1 / 0.3]])
    np.testing.assert_allclose(balanced, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_queue_forgets_the_oldest_rows():
    queue = losses.push(jnp.arange(4.0)[:, None], jnp.float32([[8], [9]]))
    np.testing.assert_array_equal(queue[:, 0], [2, 3, 8, 9])
    np.testing.assert_array_equal(losses.push(queue, jnp.arange(6.0)[:, None])[:, 0], [2, 3, 4, 5])


def test_of_two_rows_for_one_place_the_later_one_is_written():
    table = jnp.full((6, 2), -1.0)
    index = jnp.array([4, 0, 4, 2, 0, 4])
    rows = jnp.arange(12.0).reshape(6, 2)
    written = losses.write(table, index, rows)
    expected = np.full((6, 2), -1.0)
    for i, row in zip(index, rows, strict=True):
        expected[i] = row
    np.testing.assert_array_equal(written, expected)
    counts = jnp.array([True, True, False, True, False, False])
    written = losses.write(table, index, rows, counts)
    np.testing.assert_array_equal(written[np.array([4, 0, 2])], rows[np.array([0, 1, 3])])
    np.testing.assert_array_equal(written[np.array([1, 3, 5])], np.full((3, 2), -1.0))


def test_rows_that_are_mixed_later_are_those_that_are_mixed_now():
    lam, partner = jnp.array([1.0, 0.75, 0.5, 0.6]), jnp.array([1, 2, 0, 3])
    images = jnp.arange(24.0).reshape(4, 2, 1, 3)
    later = losses.mixed(images, lam, partner)
    close(later.value(), losses.mixup(images, lam, partner))
    assert len(later[1:]) == 3
    close(later[jnp.array([2, 0])].value(), losses.mixup(images, lam, partner)[jnp.array([2, 0])])

    def apply(params, images):
        return images.value()[:, 0, 0] + params, jnp.max(images.lam)

    logits, largest = losses.apply_interleaved(apply, 10.0, later, 2)
    close(logits, losses.mixup(images, lam, partner)[:, 0, 0] + 10)
    close(largest, [1.0, 0.75])  # rows 0 and 3, then 2 and 1
