"""Exports of a trained model to other formats; needs neither training code nor data."""

from ssljax import trained as trained  # its location in version 0.1.0
