"""Published weights: reading them from files, and loading them into a model."""
