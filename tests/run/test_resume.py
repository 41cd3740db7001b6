"""Tests the comparison of data on resuming."""

import pytest

from ssljax.run import resume


def record(*names):
    return {"image_shape": [8, 8, 1], "class_names": names}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("caf\u00e9", "cafe\u0301"),  # é as one character, and as e and a combining accent
        ("caf\udce9", "caf\\xe9"),  # an undecodable byte, as recorded by an older version
    ],
)
def test_a_class_that_is_written_in_another_way_is_the_same(before, after):
    assert resume.other_kind("a run", record("a", before), record("a", after)) == ""
    message = resume.other_kind("a run", record("a", before), record(after, "a"))
    assert message.startswith("a run has class 0 as 'a', which in config.dataset is 'caf")
