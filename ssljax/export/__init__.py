"""A trained model in the forms that others serve; needs no training code and no data."""
