"""Escapes text in CSV files, because spreadsheets evaluate text that looks like a formula."""

_FORMULA = tuple("=+-@\t\r＝＋－＠")


def inert(text: str) -> str:
    """Returns the text with an apostrophe before anything that a spreadsheet would evaluate."""
    return f"'{text}" if _is_marked(f"'{text}") else text


def original(text: str) -> str:
    """Reverses `inert`."""
    return text[1:] if _is_marked(text) else text


def _is_marked(text: str) -> bool:
    return text.startswith("'") and text.lstrip("'").startswith(_FORMULA)
