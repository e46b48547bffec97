"""The outermost door: who may ask, in what form, how much, how slowly, how many at once.

What enters: anything that arrives. What leaves: requests with a known key and a whole, bounded body; for all others,
and for everything that goes wrong further in, a problem. The promise: it never raises, never leaves a caller hanging,
and nothing that was sent appears in an error or a log line; paths are named by route, because they may hold a
subscriber's id.

Events come through a side door: ``/v1/events/{provider}`` takes no key of ours. A provider's ``Door`` says before the body is
read what it can say by then, and the handler asks it again once the body is whole.

The leads open to a key or to a session (``leads.session``), which a key was exchanged for: a session reads them and ends
itself, and opens nothing else. Their page alone comes without either, with status 401, to ask for a key; it holds nobody's
data.

Load is shed here, before anything is parsed, as far as a request's class can be seen from its size; ``admission`` says
how and why.

It wraps the whole ASGI application, Bento's middleware included. Whatever further in answers with an error status in a
form of its own (Bento's plain texts, a 404) leaves as a problem too.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from time import monotonic, perf_counter, time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from features.errors import (
    BodyTooLarge,
    NotJson,
    Overloaded,
    RequestError,
    SlowBody,
    UnknownKey,
    UntrustedEvents,
)
from serving.admission import PLACE, SMALL_BODY, Admission, Class, Place
from serving.failures import described
from serving.keys import KeyRecord, KeyRing
from serving.leads.desk import DEADLINE
from serving.leads.page import leads_page
from serving.leads.session import is_good, read_cookie
from serving.meters import Meters
from serving.problems import GATEWAY_TIMEOUT, INTERNAL_ERROR, MEDIA_TYPE, STATUS, Reply, bare_problem, problem
from serving.settings import ServingSettings
from serving.webhooks.door import JSON, Door

log = logging.getLogger("inbox.guard")
access_log = logging.getLogger("inbox.access")

REQUEST_ID = "inbox.request_id"
"""Where the request's id is found in the ASGI scope."""

KNOWN = "inbox.known"
"""In the ASGI scope of a request whose caller is known, by key or by signature."""

KEY = "inbox.key"
"""In the ASGI scope of a request that brought a key: what is kept of it."""

DOOR = "inbox.door"
"""Where the door that a request with events came through is found in the ASGI scope."""

SCORES = "/v1/scores"
ONE_SCORE = "/v1/scores/{subscriber_id}"
EVENTS = "/v1/events/"
ONE_EVENTS = "/v1/events/{provider}"
LEADS = "/v1/leads"
LEADS_CSV = "/v1/leads.csv"
ONE_LEAD = "/v1/leads/{subscriber_id}"
LEADS_PAGE = "/leads"
LEADS_SESSION = "/leads/session"
BY_SESSION = frozenset(
    {("GET", LEADS), ("GET", LEADS_CSV), ("GET", ONE_LEAD), ("GET", LEADS_PAGE), ("DELETE", LEADS_SESSION)}
)
"""What a session opens."""
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
DOCS = frozenset({"/", "/docs.json"})
STATIC = "/static_content/"

_PLAIN = PROBES | DOCS | {SCORES, LEADS, LEADS_CSV, LEADS_PAGE, LEADS_SESSION}

CLIENT_GONE = 499
"""Counted, never sent: the caller hung up before its body was whole."""

BODIES_ARRIVING = 8
"""So many of the largest batches of one provider may be on their way or waiting, all together."""

LINES_A_MINUTE = 10
"""Of the access log, for callers that nobody knows: else they could fill the disk."""
_MINUTE_S = 60.0

_ERROR_STATUS = 400
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_KEPT_HEADERS = frozenset({b"allow", b"retry-after"})


class _ClientGone(Exception):
    """The caller hung up."""


class _NotHere(Exception):
    """There is no such thing at this path."""

    def __init__(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        self.status, self.headers = status, [*headers]
        super().__init__(status)


class _TooSlow(Exception):
    """The application did not finish by the deadline."""


def route_of(path: str) -> str:
    """The route's template. There are few, whatever is asked for.

    >>> route_of("/v1/scores/s00017")
    '/v1/scores/{subscriber_id}'
    """
    if path.startswith(SCORES + "/"):
        return ONE_SCORE
    if path.startswith(EVENTS):
        return ONE_EVENTS
    if path.startswith(LEADS + "/"):
        return ONE_LEAD
    if path.startswith(STATIC):
        return STATIC
    return path if path in _PLAIN else "other"


class Bodies:
    """Bodies of one kind on their way: each of them and all together are bounded, and none may dawdle."""

    def __init__(
        self, limit_bytes: int, together_bytes: int, deadline_s: float, shed: Class, admission: Admission
    ) -> None:
        self.limit_bytes, self.together_bytes, self.deadline_s = limit_bytes, together_bytes, deadline_s
        self._shed, self._admission = shed, admission
        self.arriving_bytes = 0
        """Of bodies that are not whole yet, and of those that are held."""

    def announced(self, headers: dict[bytes, bytes], media_types: Collection[bytes]) -> int:
        """How many bytes are announced, 0 where nothing is.

        Raises
        ------
        NotJson
        BodyTooLarge
        """
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type not in media_types or headers.get(b"content-encoding", b"identity") != b"identity":
            raise NotJson
        length = headers.get(b"content-length", b"")
        announced = int(length) if length.isdigit() else 0
        if announced > self.limit_bytes:
            raise BodyTooLarge(self.limit_bytes)
        return announced

    async def whole(self, receive: Receive) -> bytes:
        """Read a body.

        Raises
        ------
        SlowBody
        BodyTooLarge
        Overloaded
        """
        try:
            async with asyncio.timeout(self.deadline_s):
                return await self._read(receive)
        except TimeoutError:
            raise SlowBody(self.deadline_s) from None

    @contextmanager
    def held(self, body: bytes) -> Iterator[None]:
        """Count a whole body as long as somebody works on it."""
        self.arriving_bytes += len(body)
        try:
            yield
        finally:
            self.arriving_bytes -= len(body)

    async def _read(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGone
                body += message.get("body", b"")
                self.arriving_bytes += len(message.get("body", b""))
                self._check_size(len(body))
                more = message.get("more_body", False)
        finally:
            self.arriving_bytes -= len(body)
        return bytes(body)

    def _check_size(self, size: int) -> None:
        """Of one body, and of all together: large ones may not take more memory on their way than in their places."""
        if size > self.limit_bytes:
            raise BodyTooLarge(self.limit_bytes)
        if size > SMALL_BODY and self.arriving_bytes > self.together_bytes:
            self._admission.refuse(self._shed)


class Gate:
    """Where one provider's events come in: what it may take of memory and places is its own."""

    def __init__(self, door: Door, settings: ServingSettings, meters: Meters) -> None:
        self.door, places = door, settings.max_webhooks
        limit, together = settings.webhook_limit_bytes, BODIES_ARRIVING * settings.webhook_limit_bytes
        if door.largest_body is not None:
            limit = min(limit, door.largest_body)
            together = max(places, BODIES_ARRIVING) * limit
        self.admission = Admission(settings.max_in_flight, settings.bulk_wait_s, meters, places)
        self.bodies = Bodies(limit, together, settings.body_deadline_s, "events", self.admission)


class Strangers:
    """Lines about callers that nobody knows: a few a minute, and how many more there were."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now, self._began, self._seen = now, now(), 0

    def may_be_logged(self) -> bool:
        """Count one; whether it has a line of its own."""
        self._seen += 1
        return self._seen <= LINES_A_MINUTE

    def sum_up(self) -> None:
        """Once a minute, say how many had none."""
        if self._now() - self._began < _MINUTE_S:
            return
        if self._seen > LINES_A_MINUTE:
            access_log.info("%d more requests of unknown callers", self._seen - LINES_A_MINUTE)
        self._began, self._seen = self._now(), 0


class Guard:
    """ASGI middleware around everything else."""

    def __init__(
        self, app: ASGIApp, settings: ServingSettings, keys: KeyRing, meters: Meters, doors: Mapping[str, Door]
    ) -> None:
        self.app, self.settings, self.keys, self.meters = app, settings, keys, meters
        self.gates = {provider: Gate(door, settings, meters) for provider, door in doors.items()}
        self.strangers = Strangers()
        self.open_routes = PROBES | ({*DOCS, STATIC} if settings.docs_open else set())
        self.clock = settings.clock()
        self.admission = Admission(settings.max_in_flight, settings.bulk_wait_s, meters)
        deadline_s, limit = settings.body_deadline_s, settings.body_limit_bytes
        self.questions = Bodies(limit, self.admission.bulk_places * limit, deadline_s, "bulk", self.admission)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._exchange(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, route = perf_counter(), route_of(scope["path"])
        request_id = scope[REQUEST_ID] = uuid.uuid4().hex
        answer = _Answer(send, request_id)
        try:
            await self._pass_on(scope, receive, answer, route, started)
        except RequestError as error:
            await answer.replace(_refusal(route, error, request_id))
        except _ClientGone:
            answer.status = CLIENT_GONE
        except _NotHere as error:
            await answer.replace(bare_problem(error.status, request_id, error.headers))
        except _TooSlow:
            await answer.replace(bare_problem(GATEWAY_TIMEOUT, request_id))
        except Exception as error:  # noqa: BLE001 - one of the two outermost doors
            log.error("%s (request %s)", described(error), request_id)
            await answer.replace(bare_problem(INTERNAL_ERROR, request_id))
        if not answer.status:
            log.error("the application did not answer (request %s)", request_id)
            await answer.replace(bare_problem(INTERNAL_ERROR, request_id))
        self._record(scope, route, answer.status, perf_counter() - started)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: _Answer, route: str, arrived: float) -> None:
        """Let the request in, or raise the reason why not."""
        if route in self.open_routes:
            await self._run(scope, receive, answer)
            return
        if route == ONE_EVENTS:
            await self._pass_events_on(scope, receive, answer, arrived)
            return
        headers = dict(scope["headers"])
        scope[KEY] = self._key(headers, (scope["method"], route))
        scope[KNOWN] = True
        size = 0
        if scope["method"] == "POST":
            announced = self.questions.announced(headers, JSON)
            # Whoever would be turned away afterwards need not be read first.
            self.admission.check(_looks(announced))
            body = await self.questions.whole(receive)
            receive, size = _replayed(body, receive), len(body)
        with Place(self.admission, _looks(size), arrived) as scope[PLACE]:
            await scope[PLACE].settle()
            await self._run(scope, receive, answer)

    async def _pass_events_on(self, scope: Scope, receive: Receive, answer: _Answer, arrived: float) -> None:
        """The same for a provider's events."""
        gate = self.gates.get(scope["path"].removeprefix(EVENTS))
        if gate is None:
            raise _NotHere(HTTPStatus.NOT_FOUND)
        if scope["method"] != "POST":
            raise _NotHere(HTTPStatus.METHOD_NOT_ALLOWED, (b"allow", b"POST"))
        try:
            body = await self._events(dict(scope["headers"]), receive, gate)
        except RequestError as error:
            self.meters.refused_events[gate.door.provider, reason_of(error)] += 1
            raise
        scope[DOOR] = gate.door
        with gate.bodies.held(body), Place(gate.admission, "events", arrived) as scope[PLACE]:
            self.meters.admitted["events"] += 1
            await self._run(scope, _replayed(body, receive), answer)
        scope[KNOWN] = answer.status < _ERROR_STATUS

    async def _events(self, headers: dict[bytes, bytes], receive: Receive, gate: Gate) -> bytes:
        gate.door.greet(headers, self.clock().timestamp())
        gate.bodies.announced(headers, gate.door.media_types)
        gate.admission.check("events")
        return await gate.bodies.whole(receive)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            async with asyncio.timeout(self.settings.answer_deadline_s) as deadline:
                scope[DEADLINE] = deadline
                await self.app(scope, receive, answer.send)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _TooSlow from None

    def _key(self, headers: dict[bytes, bytes], asked: tuple[str, str]) -> KeyRecord | None:
        """What is kept of the key that was brought; None where a session does instead.

        Raises
        ------
        UnknownKey
        """
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        is_bearer = scheme.lower() == b"bearer"
        # A proxy's own Basic comes along with every request: it is no key, and no reason against a session.
        if asked in BY_SESSION and not is_bearer:
            if not is_good(read_cookie(headers.get(b"cookie", b"")), self.keys, time()):
                raise UnknownKey
            return None
        record = self.keys.record(key.strip()) if is_bearer else None
        if record is None:
            raise UnknownKey
        return record

    def _record(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        self.meters.observe(method, route, status, seconds)
        # Who is shed is only counted: a line for each would cost as much again, when there is no time for it.
        self.strangers.sum_up()
        if route in PROBES or status == STATUS[Overloaded.code]:
            return
        if scope.get(KNOWN) or self.strangers.may_be_logged():
            access_log.info("%s %s %d %.1f ms (request %s)", method, route, status, seconds * 1000, scope[REQUEST_ID])


class _Answer:
    """What goes back to the caller: at most one answer, and errors only as problems."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self._replaced = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass on what the application says, but for errors in a form of its own."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if message["status"] >= _ERROR_STATUS and not _is_problem(headers):
                kept = [(name, value) for name, value in headers if name in _KEPT_HEADERS]
                await self.replace(bare_problem(message["status"], self._request_id, kept))
                return
            self.status = message["status"]
        await self._send(message)

    async def replace(self, reply: Reply) -> None:
        """Say this instead of whatever the application will say. Too late once it has begun."""
        if self.status:
            return
        self._replaced, self.status = True, reply.status
        await self._send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await self._send({"type": "http.response.body", "body": reply.body})


def _refusal(route: str, error: RequestError, request_id: str) -> Reply:
    """A problem; to a stranger before the page of leads, the page itself, which asks for a key."""
    if route == LEADS_PAGE and isinstance(error, UnknownKey):
        page = leads_page()
        headers = [(name.encode(), value.encode()) for name, value in page.headers.items()]
        length = (b"content-length", str(len(page.body)).encode())
        return Reply(HTTPStatus.UNAUTHORIZED, [*headers, length, (b"www-authenticate", b"Bearer")], page.body)
    return problem(error, request_id)


def _looks(size: int) -> Class:
    """A request's class, guessed by the size of its body."""
    return "send" if size <= SMALL_BODY else "bulk"


def reason_of(error: RequestError) -> str:
    """A few words from a fixed set."""
    return error.reason if isinstance(error, UntrustedEvents) else error.code


def _is_problem(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(MEDIA_TYPE.encode()) for name, value in headers)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the whole body at once, then whatever comes after it."""
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal whole
        if whole is None:
            return await receive()
        message, whole = whole, None
        return message

    return replay
