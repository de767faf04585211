"""A page that is whole in one file: no script, nothing fetched."""

from __future__ import annotations

from html import escape

from editlab.report.story.svg import style


def document(title: str, body: str) -> str:
    """HTML with the style sheet in it, around a body that is HTML already."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{style()}</style></head><body>{body}</body></html>\n"
    )
