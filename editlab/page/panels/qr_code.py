"""A link to this page as a QR code, for others to open with a camera."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from markupsafe import Markup

from editlab.report.html import tag

LOOPBACK = ("localhost", "127.0.0.1", "::1")  # addresses that open nothing on another machine
LONGEST = 500  # characters of an address


def qr_code(address: str, query: dict[str, str], of: str, words: str) -> Markup:
    """The QR code of a link to the page at `address` with this query; nothing where others cannot open the page.

    `of` names the link to those who do not see the code, `words` stand below the code. A click makes it larger.
    """
    where = urlsplit(address)
    if where.scheme not in ("http", "https") or where.hostname in (None, *LOOPBACK) or len(address) > LONGEST:
        return Markup()
    import segno  # only for an audience

    link = where._replace(query=urlencode(query), fragment="").geturl()
    drawn = segno.make_qr(link).svg_inline(border=2, light="white", omitsize=True)
    label = f"QR code of the link to {of}; a click makes it larger or smaller"
    code = tag("div", Markup(drawn), role="img", aria_label=label)
    return tag("details", tag("summary", code + tag("span", words)))
