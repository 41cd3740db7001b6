"""A trained model in the forms that others serve; needs no training code and no data."""

from ssljax import trained as trained  # where 0.1.0 had it
