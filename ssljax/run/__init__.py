"""Training runs: the loop, its signals, and the files of a run directory."""
