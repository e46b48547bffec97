"""What a user agent says on its own about who made an event.

What enters: the raw ``user_agent`` column. What leaves: one of ``contract.AGENTS`` per value. The promise: a value's
class depends on that value alone, never on other rows or on the order in which rows arrive.

Known crawlers come from the package crawler-user-agents (MIT), which ships its list. Weighed: its own ``is_crawler``
takes 0.1 ms a value; the same patterns, alternated a few hundred at a time in RE2, take 2 µs.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

import pyarrow as pa
import pyarrow.compute as pc
from crawleruseragents import CRAWLER_USER_AGENTS_DATA

APPLE_PREFETCH = "Mozilla/5.0"
"""Apple Mail Privacy Protection fetches every image of every message, with this and nothing more."""
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
"""Gmail fetches with this before a message is shown (SparkPost, "Gmail is Prefetching Images", January 2022)."""

IMAGE_PROXIES = r"GoogleImageProxy|ggpht\.com|YahooMailProxy|FastmailUA|Shortwave Image Fetcher"
"""Mail providers that fetch an image when a person opens the message, in their own name."""
MAIL_SCANNERS = (
    r"(?i)barracuda|proofpoint|mimecast|safelinks|microsoft-urlanalyzer|ironport|ciscosecureemail|symantec|messagelabs|"
    r"forcepoint|fireeye|trend ?micro|\btmes\b|sophos|fortiguard|fortimail|cloudmark|zscaler|vadesecure|"
    r"python-requests|python-urllib|aiohttp|go-http-client|headlesschrome|phantomjs|^(?:curl|wget|java)\b"
)
"""Gateways that click links before people can, and the libraries that scripts are written with."""

# RE2 leaves its fast path for one alternation of all patterns; a few hundred at a time stay on it.
PATTERNS_AT_A_TIME = 200
LONGEST = 1024
"""Characters of a user agent that are looked at: browsers send a few hundred."""
REMEMBERED = 1 << 16
# An example from an Android web view is a person reading inside another app, whatever the list calls it.
IN_APP_BROWSER = "; wv)"


def classify_agents(user_agents: pa.Array) -> pa.Array:
    """Class of each user agent.

    Parameters
    ----------
    user_agents
        Strings, nulls allowed; the same length and order as the answer.

    >>> classify_agents(pa.array([None, "Mozilla/5.0", "Thunderbird/128.0", "curl/8.5.0"])).to_pylist()
    ['unknown', 'prefetch', 'person', 'scanner']
    """
    cut = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(user_agents.cast(pa.string())), 0, LONGEST)
    stripped = pc.utf8_trim_whitespace(cut).fill_null("")
    encoded = stripped.dictionary_encode()
    return _classes(encoded.dictionary).take(encoded.indices)


@lru_cache(REMEMBERED)
def agent_of(user_agent: str | None) -> str:
    """Class of one user agent, as ``classify_agents`` gives it; for code that meets events one at a time.

    Arrow compiles its patterns at every call (tens of milliseconds); these are compiled once.

    >>> agent_of("Mozilla/5.0"), agent_of(None)
    ('prefetch', 'unknown')
    """
    stripped = (user_agent or "").strip()[:LONGEST].strip()
    if not stripped:
        return "unknown"
    if stripped in (APPLE_PREFETCH, GMAIL_PREFETCH):
        return "prefetch"
    if re.search(IMAGE_PROXIES, stripped):
        return "image_proxy"
    return "scanner" if any(pattern.search(stripped) for pattern in _compiled()) else "person"


def _classes(distinct: pa.Array) -> pa.Array:
    """The first class that applies; the list of crawlers names image proxies too, so proxies are asked first."""
    prefetch = pc.is_in(distinct, value_set=pa.array([APPLE_PREFETCH, GMAIL_PREFETCH]))
    asked = {
        "unknown": pc.equal(distinct, ""),
        "prefetch": prefetch,
        "image_proxy": pc.match_substring_regex(distinct, IMAGE_PROXIES),
        "scanner": _any_match(distinct, (MAIL_SCANNERS, *_crawler_patterns())),
    }
    conditions = pa.StructArray.from_arrays(list(asked.values()), names=list(asked))
    return pc.case_when(conditions, *asked, "person")


def _any_match(values: pa.Array, patterns: tuple[str, ...]) -> pa.Array:
    found = pc.match_substring_regex(values, patterns[0])
    for pattern in patterns[1:]:
        found = pc.or_(found, pc.match_substring_regex(values, pattern))
    return found


@cache
def _crawler_patterns() -> tuple[str, ...]:
    patterns = [
        f"(?:{crawler['pattern']})"
        for crawler in CRAWLER_USER_AGENTS_DATA
        if not any(IN_APP_BROWSER in instance for instance in crawler["instances"])
    ]
    starts = range(0, len(patterns), PATTERNS_AT_A_TIME)
    return tuple("|".join(patterns[start : start + PATTERNS_AT_A_TIME]) for start in starts)


@cache
def _compiled() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.ASCII) for pattern in (MAIL_SCANNERS, *_crawler_patterns()))
