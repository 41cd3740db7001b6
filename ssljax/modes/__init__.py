"""Implementations of command-line modes, each a function of a `flags.Command`."""
