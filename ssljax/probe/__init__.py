"""`--mode=probe`: how good frozen features are with a few labels, the bar for training."""
