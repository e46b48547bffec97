"""What this package is called where others see it.

What enters: nothing. What leaves: the version and the User-Agent. The promise: they are written here and nowhere else.
"""

from __future__ import annotations

VERSION = "0.1.0"
USER_AGENT = f"inbox-client/{VERSION}"
