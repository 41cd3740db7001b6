"""Semi-supervised image classification in JAX: one pure training step, one file a method."""
