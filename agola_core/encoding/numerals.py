"""Numbers in texts from outside: options, URLs, headers, configurations.

They have ASCII digits alone. `int` and `float` also take digits of other scripts, `1_000`, ` 5 `, `nan` and `inf`, and
raise another error for thousands of digits; `str.isdigit` takes `²`.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")


def whole_number(text: str) -> int | None:
    """Return the whole number from 0 that a text says, of at most 18 digits; None if it is none.

    Example:
        >>> [whole_number(text) for text in ("12", "+1", "1_000", " 5 ", "٣", "")]
        [12, None, None, None, None, None]
    """
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """Return the number from 0 that a text says, such as `2` or `0.5`; None if it is none.

    Example:
        >>> [decimal_number(text) for text in ("2", "0.5", "1e3", "nan", "-1", "٣")]
        [2.0, 0.5, None, None, None, None]
    """
    return float(text) if _DECIMAL.fullmatch(text) else None
