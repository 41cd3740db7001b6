"""Text in CSV files: spreadsheets compute what begins like a formula, whoever wrote it."""

_FORMULA = tuple("=+-@\t\r＝＋－＠")


def inert(text: str) -> str:
    """The text with an apostrophe before what a spreadsheet would compute."""
    return f"'{text}" if _is_marked(f"'{text}") else text


def original(text: str) -> str:
    """What `inert` was given."""
    return text[1:] if _is_marked(text) else text


def _is_marked(text: str) -> bool:
    return text.startswith("'") and text.lstrip("'").startswith(_FORMULA)
