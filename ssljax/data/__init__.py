"""Which images, in which order: splits, data sets, sampling."""
