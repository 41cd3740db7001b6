"""Tests batch sizes of the forward pass."""

import numpy as np
import pytest

from ssljax import forward
from ssljax.forward import Outputs


@pytest.mark.parametrize(
    ("images", "devices", "most", "size"),
    [
        (1, 1, 512, 1), (3, 1, 512, 4), (5, 4, 512, 8), (100_000, 1, 512, 256),
        (100_000, 2, 512, 512), (100_000, 2, 100, 100), (100_000, 4, 2, 4), (0, 2, 512, 2),
    ],
)  # fmt: skip
def test_a_batch_is_as_small_as_the_images_and_as_large_as_allowed(images, devices, most, size):
    assert forward.batch_size(images, devices, most) == size


def test_a_batch_is_begun_before_the_outputs_of_the_last_one_are_taken():
    begun = []

    def compute(images):
        begun.append(len(images))
        return Outputs(images.sum(axis=(1, 2, 3)), images[:, 0, 0, 0], None)

    batches = (np.full((n, 2, 2, 1), n, np.uint8) for n in (4, 4, 0, 3))
    found = []
    for outputs in forward.in_batches(compute, batches, 4):
        found.append(outputs)
        assert len(begun) == min(len(found) + 1, 4)
    assert begun == [4] * 4  # all of the same size
    assert [outputs.logits.tolist() for outputs in found] == [[16] * 4, [16] * 4, [], [12] * 3]
    assert found[0].features is None
