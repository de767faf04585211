"""Numbers for reading, in one notation everywhere: shares, significant digits, decimals, and sizes of files."""

from __future__ import annotations

NOTHING = "–"  # where there is no number
MINUS = "−"


def percent(p: float | None) -> str:
    """A share for reading: "42 %", "4.2 %", "0.31 %", "< 0.01 %"."""
    if p is None:
        return NOTHING
    value = 100 * p
    if 0 < value < 0.01:
        return "< 0.01 %"
    size = abs(value)
    digits = 0 if size >= 9.95 or size == 0 else 1 if size >= 0.995 else 2
    return f"{decimals(value, digits)} %"


def number(value: float | None) -> str:
    """Three significant digits, without an exponent between 0.001 and 100 000."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value != value or abs(value) == float("inf"):
        return "not finite"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")
    else:
        text = f"{value:.2e}"
    return text.replace("-", MINUS)


def decimals(value: float | None, digits: int = 2, sign: str = "") -> str:
    """So many digits after the point: "0.50", "−0.50"; with the sign "+" also "+0.50". Zero has no minus."""
    if value is None:
        return NOTHING
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", MINUS)


def size(n_bytes: int) -> str:
    """The size of a file for reading: "9.6 kB", "96 MB", "1.2 GB"."""
    units = ((10**9, "GB"), (10**6, "MB"))
    unit, name = next((each for each in units if n_bytes >= each[0]), (1000, "kB"))
    value = n_bytes / unit
    return f"{value:.{0 if value >= 10 else 1}f} {name}"
