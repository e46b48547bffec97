"""The page itself, one file of HTML, and what the browser is told about it.

What enters: the files beside this module. What leaves: bytes and headers. The promise: the page runs its own style and script
and nothing else, loads nothing from elsewhere, is put in nobody's frame and kept in no cache.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
MEDIA_TYPE = "text/html; charset=utf-8"

SAFE_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer about leads."""


@dataclass(frozen=True)
class Shown:
    """A page and its headers."""

    body: bytes
    headers: dict[str, str]


@cache
def leads_page() -> Shown:
    """The page. It names its style and script by their hashes, so that no other can run."""
    style, script = ((STATIC / name).read_text(encoding="utf-8") for name in ("leads.css", "leads.js"))
    frame = (STATIC / "leads.html").read_text(encoding="utf-8")
    body = frame.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Shown(body.encode(), {**SAFE_HEADERS, "content-security-policy": policy, "content-type": MEDIA_TYPE})


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
