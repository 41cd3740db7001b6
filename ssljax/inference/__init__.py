"""What is done with a trained model: predictions, how far to trust them, what to label next."""
