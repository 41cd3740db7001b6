"""Files, checkpoints and remote copies of run directories."""
