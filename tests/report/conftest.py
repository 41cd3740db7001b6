import pytest

from ssljax.report import svg


@pytest.fixture
def undrawn(monkeypatch):
    """Makes every figure an empty picture: drawing a page takes seconds."""
    empty = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><defs/></svg>'
    monkeypatch.setattr(svg, "render", lambda figure: empty)
