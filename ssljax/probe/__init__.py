"""`--mode=probe`: the errors of frozen features with a few labels, as a baseline for training."""
