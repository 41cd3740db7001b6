"""What the modes of the command line do, each a function of a `flags.Command`."""
