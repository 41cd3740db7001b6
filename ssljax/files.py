"""JSON files of run directories and exports."""

import json
from pathlib import Path
from typing import Any

from ssljax.errors import UsageError


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file.

    Raises:
      UsageError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file all at once: a reader sees the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)
