"""Errors as callers see them: the one table from error to status, and problem+json (RFC 9457).

What enters: an error of ours, or the bare status of somebody else's. What leaves: a status, headers and a body. The
promise: nothing that was sent comes back, and an error that is not the caller's own says nothing about its cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import orjson

from features.errors import (
    BodyTooLarge,
    EventsNotTaken,
    LeadsUnavailable,
    MalformedRequest,
    NoLeadBook,
    NotJson,
    Overloaded,
    ReplayedEvents,
    RequestError,
    SlowBody,
    UnknownKey,
    UnknownLead,
    UntrustedEvents,
)

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR, GATEWAY_TIMEOUT = 500, 504

STATUS: dict[str, int] = {
    MalformedRequest.code: 400,
    UnknownKey.code: 401,
    UntrustedEvents.code: 401,
    NoLeadBook.code: 404,
    UnknownLead.code: 404,
    SlowBody.code: 408,
    ReplayedEvents.code: 409,
    BodyTooLarge.code: 413,
    NotJson.code: 415,
    Overloaded.code: 429,
    EventsNotTaken.code: 503,
    LeadsUnavailable.code: 503,
}
"""Of every error of a request, by its code. All others are 500."""

SHARED_SECRETS = frozenset({"brevo", "mailjet", "postmark"})
"""Providers of events who send credentials instead of a signature."""

_DETAILS = {
    404: "There is nothing at this path; /docs.json lists what there is.",
    405: "This path does not take this method; /docs.json lists what there is.",
    500: "Something went wrong inside. The log has more under this request_id.",
    503: "The service is not ready: no model is in service yet.",
    504: "The service took too long. Try again, with fewer subscribers at a time.",
}


@dataclass(frozen=True)
class Reply:
    """A whole answer: its status, headers in ASGI's form, and body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def problem(error: RequestError, request_id: str) -> Reply:
    """The answer to a request that cannot be had."""
    status = STATUS[error.code]
    field = {"field": error.field} if isinstance(error, MalformedRequest) else {}
    return _reply(status, error.code, str(error), request_id, field, _headers(error))


def bare_problem(status: int, request_id: str, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    """The answer when only a status is known: no such path, a method not allowed, not ready, an error inside."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return _reply(status, code, _DETAILS.get(status, f"{phrase}."), request_id, {}, headers or [])


def _headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    match error:
        case UnknownKey():
            return [(b"www-authenticate", b"Bearer")]
        case UntrustedEvents():
            basic = error.provider in SHARED_SECRETS
            return [(b"www-authenticate", b'Basic realm="events"' if basic else b"Signature")]
        case Overloaded() | EventsNotTaken() | LeadsUnavailable():
            return [(b"retry-after", str(error.retry_after_s).encode())]
        case SlowBody():
            return [(b"connection", b"close")]
        case _:
            return []


def _reply(
    status: int, code: str, detail: str, request_id: str, extra: dict[str, str], headers: list[tuple[bytes, bytes]]
) -> Reply:
    body = orjson.dumps(
        {
            "type": f"urn:inbox-scoring:problem:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": request_id,
            **extra,
        }
    )
    own = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    return Reply(status, [*own, *headers], body)
