"""What a click's address says: which link it was, without keeping the address.

What enters: the raw ``url`` column, or one url. What leaves: null, ``contract.UNSUBSCRIBE_LINK``, ``contract.HONEYPOT_LINK`` or
12 hex digits that are the same for the same host and path. The promise: query, fragment, user and password, where recipients
are named, leave no trace, and neither does an e-mail address in the path.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from features.contract import HONEYPOT_LINK, UNSUBSCRIBE_LINK

UNSUBSCRIBE = re.compile(
    # English, French, German, Dutch
    r"unsub(?:scri|s?\b)|(?<![a-z])opt[-_ .]?out(?![a-z])|d[eé]s?ab?bonn|d[eé]sinscri|abmeld|abbestell|austrag(?:en|ung)|"
    r"uitschrij|afmeld|"
    # Spanish, Portuguese, Italian
    r"(?:^|[/=])bajas?(?:$|[/?&.])|darse?[-_ ]?de[-_ ]?baja|desuscri|cancelar[-_ ]?(?:la[-_ ]?)?(?:sus?cri|inscri|assinatura)|"
    r"descadastr|disiscri|annulla[-_ ]?iscri|cancella[-_ ]?iscri|"
    # Swedish, Norwegian, Danish, Finnish, Polish, Czech, Hungarian, Romanian, Turkish
    r"avregistrer|avprenumer|avmeld|frameld|peruuta[-_ ]?tilau|wypisz|rezygnuj|odhl[aá][sš]|leiratkoz|dezabon|abonelikten|"
    # Russian, Ukrainian, Japanese, Chinese, Korean
    r"отпис|відпис|配信停止|退订|退訂|수신거부"
)
"""Words of a path or a query under which programs and providers let people leave."""

HONEYPOT = re.compile(
    r"honey[-_]?pot|(?:bot|spider|crawler|scanner|link|click)[-_]?trap|bot[-_]?check|(?:^|/)trap(?:$|[/?.])"
)
"""Words by which a list marks a link that no person can see. A mouse-trap is for sale; a path that is ``trap`` is not."""

EMAIL = re.compile(r"[^/@\s]+@[^/@\s]+")
LONGEST = 4096
"""A browser's url is shorter; what is beyond says nothing more."""
REMEMBERED = 1 << 16


def classify_links(urls: pa.Array) -> pa.Array:
    """Link of each url; strings, nulls allowed; the same length and order as the answer.

    >>> classify_links(pa.array([None, "https://a.example/baja", "https://a.example/honeypot"])).to_pylist()
    [None, 'unsubscribe', 'honeypot']
    """
    encoded = urls.cast(pa.string()).dictionary_encode()
    return pa.array([_link(url) for url in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


@lru_cache(REMEMBERED)
def link_of(url: str | None) -> str | None:
    """Link of one url; null when there is none or it is no address of the web.

    >>> link_of("https://a.example/shoes?to=ann") == link_of("HTTPS://A.example:443/shoes#top")
    True
    """
    return None if url is None else _link(url)


def _link(url: str) -> str | None:
    try:
        parts = urlsplit(_with_scheme(url.strip()[:LONGEST]))
        host = parts.hostname or ""
    except ValueError:
        return None
    said = unquote(f"{parts.path}?{parts.query}").lower()
    if HONEYPOT.search(said):
        return HONEYPOT_LINK
    if UNSUBSCRIBE.search(said) or host.startswith(("unsubscribe.", "unsub.", "optout.")):
        return UNSUBSCRIBE_LINK
    if parts.scheme not in ("http", "https") or not host:
        return None
    path = EMAIL.sub("@", unquote(parts.path)).rstrip("/")
    return sha256(f"{host}{path}".encode("utf-8", "replace")).hexdigest()[:12]


def _with_scheme(url: str) -> str:
    """Some providers leave ``https://`` out."""
    return url if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:(?!\d)", url) else f"https://{url.removeprefix('//')}"
