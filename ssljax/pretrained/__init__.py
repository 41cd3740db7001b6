"""Other people's weights: read from files, and fitted into a model."""
