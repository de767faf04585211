"""A page that is whole in one file: no script, nothing fetched."""

from __future__ import annotations

from markupsafe import Markup

from editlab.report.story.svg import style


def document(title: str, body: Markup) -> str:
    """A whole page around `body`, with the style sheet in it."""
    page = Markup(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<title>{title}</title><style>{style}</style></head><body>{body}</body></html>\n"
    ).format(title=title, style=Markup(style()), body=body)
    return str(page)
