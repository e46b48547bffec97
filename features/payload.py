"""Reading JSON that anybody may have written.

What enters: bytes, or one parsed value of any shape. What leaves: texts, mappings and instants of the asked kind, or None;
digests; and a payload as it may be kept in quarantine. The promise: no value of any shape raises, no text has a lone
surrogate, and a payload that is shown has neither an address nor raw evidence in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from features.intake import AT, REDACTED, WORD
from features.told import Unread

NOT_KEPT = "<not kept>"
"""Stands where a payload had raw evidence or other words about a person."""
_PRIVATE_KEYS = frozenset(
    (
        *("agent", "useragent", "client", "clientinfo", "ip", "ipaddress", "geo", "geolocation"),
        *("url", "link", "originallink", "mirrorlink", "recipientdomain", "attributes", "subject", "content"),
        *("headers", "commonheaders", "from", "fromfull", "to", "tofull", "cc", "bcc"),
    )
)
"""Keys of what is not kept, without their punctuation and in lower case."""
_DEEPEST = 60
_LARGEST_INTEGER = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECONDS_FROM = 10**11
"""Seconds of the year 5138; milliseconds of 1973."""
_SIGN = re.compile("[:=]")
_BETWEEN = {":": "|", "=": "&"}
_AT = re.compile(rf"{AT}|\\u0040")
_WORD = re.compile(rf'(?:"[^"\n]{{1,64}}"(?={_AT.pattern}))?(?:{WORD}|\\u0040)+')
"""Whole words are looked at, so that no text takes longer than its length. Quotes may stand around a name before the sign."""


def parse(body: bytes) -> Any:
    """The JSON of a body; what orjson refuses but others write (NaN, halves of surrogate pairs, large integers) is read.

    Raises
    ------
    ValueError
        It is no JSON at all.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(written: str) -> int | float:
    """Python refuses to read an integer of thousands of digits, and with it the whole body."""
    return int(written) if len(written) <= 32 else float(written)


def as_list(parsed: Any) -> list[Any]:
    """The items of a body that holds one event or an array of them."""
    return parsed if isinstance(parsed, list) else [parsed]


def mapping(value: Any) -> dict[str, Any]:
    """An object as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> tuple[str, ...] | None:
    """A list of texts, or one text: trimmed, without blanks; None when nothing is left."""
    if not isinstance(value, list):
        word = text(value)
        return None if word is None else (word,)
    return tuple([word for word in map(text, value) if word is not None]) or None


def text(value: Any) -> str | None:
    """A text, trimmed, or an integer as text; None for anything else and for blanks."""
    if type(value) is str:
        return (value if value.isascii() else _whole(value)).strip() or None
    if type(value) is int and -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
        return str(value)
    return None


def _whole(value: str) -> str:
    """Without halves of surrogate pairs, which nothing can store."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return value


def listed(value: Any) -> Any:
    """A list that is written as JSON in a text, as the list; anything else as it is."""
    written = text(value)
    return _written_json(written, value) if written is not None and written.startswith("[") else value


def custom(value: Any) -> dict[str, Any]:
    """Custom data as an object, also when it is written as JSON, ``key:value|key:value`` or ``key=value&key=value``."""
    if isinstance(value, dict):
        return value
    written = text(value)
    if written is None:
        return {}
    if written.startswith("{"):
        found = _written_json(written, {})
        return found if isinstance(found, dict) else {}
    sign = _SIGN.search(written)
    return {} if sign is None else _pairs(written, _BETWEEN[sign[0]], sign[0])


def _pairs(written: str, between: str, sign: str) -> dict[str, Any]:
    fields = (field.partition(sign) for field in written.split(between))
    return {key.strip(): value.strip() for key, given, value in fields if given}


def _written_json(written: str, otherwise: Any) -> Any:
    try:
        return parse(written.encode())
    except ValueError:
        return otherwise


def epoch_us(value: Any) -> int | None:
    """An instant in seconds since 1970 UTC, as a number or its text, in microseconds."""
    number = _number(value)
    if number is None or abs(number) >= _MILLISECONDS_FROM:
        return None
    return number * 1_000_000 if isinstance(number, int) else round(number * 1_000_000)


def loose_epoch_us(value: Any) -> int | None:
    """As ``epoch_us``, but milliseconds are known by their size."""
    number = _number(value)
    if number is None or abs(number) < _MILLISECONDS_FROM:
        return epoch_us(number)
    return round(number * 1_000) if abs(number) < _MILLISECONDS_FROM * 1_000 else None


def _number(value: Any) -> int | float | None:
    if type(value) is int:
        return value if -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER else None
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is str and len(value) <= 32:
        return _read_number(value)
    return None


def _read_number(written: str) -> int | float | None:
    if "_" in written:
        # As Python's own numbers may have it, and nobody else's.
        return None
    try:
        return _number(int(written) if written.strip().isdecimal() else float(written))
    except ValueError:
        return None


def iso_us(value: Any) -> int | None:
    """An ISO 8601 instant with its offset in microseconds; digits beyond them are cut off. Without an offset: None."""
    if type(value) is not str or len(value) > 64:
        return None
    try:
        instant = datetime.fromisoformat(value)
        return None if instant.tzinfo is None else (instant - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def digest(*parts: object) -> str:
    """32 hexadecimal digits of the parts, in their order."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def of_message(provider: str, message_id: str | None) -> str | None:
    """A campaign for a message that names none, so that its opens and clicks find its send."""
    return None if message_id is None else f"m_{digest(provider, message_id)[:24]}"


def looks_like_an_address(word: str) -> bool:
    """Whether anything stands on both sides of an @, however it is escaped."""
    if word.isascii() and not any(sign in word for sign in "@%&\\"):
        return False
    return any(at.start() > 0 and at.end() < len(word) for at in _AT.finditer(word))


def redact(written: str) -> str:
    """The same text with every word that holds an @, however it is escaped, replaced."""
    if _AT.search(written) is None:
        return written
    return _WORD.sub(lambda word: REDACTED if _AT.search(word[0]) else word[0], written)


def unread(reason: str, item: Any) -> Unread:
    """An item for the quarantine, with a reason that quotes nothing of it. A mere text has no keys to know evidence by."""
    return Unread(reason, orjson.dumps(_shown(item, 0)).decode())


def _shown(value: Any, depth: int) -> Any:
    """A value as it may be kept: without addresses and evidence, and always writable as JSON."""
    if type(value) is str:
        return redact(_whole(value))
    if value is None or type(value) is bool:
        return value
    if isinstance(value, int | float):
        return value if _number(value) is not None else "<unwritable number>"
    if depth >= _DEEPEST:
        return "<nested too deeply>"
    if isinstance(value, dict):
        return {redact(_whole(key)): _shown_of(key, inner, depth + 1) for key, inner in value.items()}
    return [_shown(inner, depth + 1) for inner in value] if isinstance(value, list) else NOT_KEPT


def _shown_of(key: str, value: Any, depth: int) -> Any:
    plain = "".join(filter(str.isalnum, key)).lower()
    return NOT_KEPT if plain in _PRIVATE_KEYS and value is not None else _shown(value, depth)
