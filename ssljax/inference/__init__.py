"""Uses of a trained model: predictions, their reliability, and selection of images to label."""
