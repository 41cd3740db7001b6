"""Shadows TensorFlow in processes that do not need it, because importing it takes seconds."""

raise ImportError("the tests' processes do without TensorFlow")
