"""A session of the leads page: a cookie that a key was exchanged for.

What enters: the record of a key, or a cookie. What leaves: a cookie, or whether it is good. The promise: no session outlives
its hours or its key, and the service remembers none: a cookie says whose it is and until when, signed with what is kept of
that very key.

Weighed: the page could keep the key itself, in the browser's storage. Any script on the page, and whoever sits down at the
machine later, could read it there, and a key opens everything. A cookie no script can read opens the leads alone and ends
by itself. Its signature leans on the key file's hashes: whoever can read that file (its owner alone) could sign one.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from serving.keys import KeyRecord, KeyRing

COOKIE = "inbox_leads"
LASTS_S = 8 * 3600
"""A working day."""

_FORM = re.compile(r"([A-Za-z0-9_-]{1,4000}={0,2})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)
_NOBODY = KeyRecord("", "", "")


def issue(record: KeyRecord, now: float) -> str:
    """A session for the owner of a key.

    Parameters
    ----------
    now
        Seconds since 1970.
    """
    until = int(now) + LASTS_S
    return f"{urlsafe_b64encode(record.name.encode()).decode()}.{until}.{_signature(record, until)}"


def is_good(cookie: str, keys: KeyRing, now: float) -> bool:
    """Whether a session's key is still active and its time not over. An unknown name takes as long as a known one."""
    parts = _FORM.fullmatch(cookie)
    if parts is None:
        return False
    until = int(parts[2])
    record = keys.named(_name(parts[1])) or _NOBODY
    signed = hmac.compare_digest(_signature(record, until), parts[3])
    return signed and record is not _NOBODY and now < until


def set_cookie(session: str, secure: bool, lasts_s: int = LASTS_S) -> str:
    """The value of ``Set-Cookie``; an empty session that lasts no time takes one away."""
    flags = "; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
    return f"{COOKIE}={session}; Max-Age={lasts_s}{flags}"


def read_cookie(header: bytes) -> str:
    """The session in a ``Cookie`` header; empty where there is none.

    >>> read_cookie(b"a=1; inbox_leads=x.y.z")
    'x.y.z'
    """
    pairs = (part.strip().partition("=") for part in header.decode("latin-1").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _signature(record: KeyRecord, until: int) -> str:
    said = f"leads|{record.name}|{until}"
    return hmac.new(record.sha256.encode(), said.encode(), hashlib.sha256).hexdigest()


def _name(encoded: str) -> str:
    try:
        return urlsafe_b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
