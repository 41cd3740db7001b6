"""Programs compiled for chips that are not there: `--mode=compile`."""
