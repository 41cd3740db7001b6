"""Reports on run directories: tables and pictures."""
