"""The online store on Redis or Valkey: one string per subscriber, read with one MGET.

What enters: subscriber ids and packed states. What leaves: states in the order asked for. The promise is that of
``online.StateStore``; and a read ends by its time-out, whatever the server does.

::

    {prefix}{id}        bytes 0-7  the row's anchor, float64, little-endian; NaN = none
                        bytes 8-   the row (see ``packing``)
    {prefix less its    the newest anchor ever written, likewise; no id can make this key
    last character}

Rows are compared and replaced by scripts on the server, so no writer comes in between. One server or a primary with
replicas, not a cluster: a read asks for all its keys at once. Several lists on one server take a database number each.
A server that evicts (``maxmemory-policy``) only makes subscribers unknown until they are written again.

Weighed:

- The client is our own (``resp``, which says why), and a read unpacks the bytes where they were received.
- Rows per script call. 20,000 rows of 1.8 kB with 1 / 20 / 1000 per call are written in 0.52 / 0.17 / 0.50 s. Nobody
  reads while a call runs: beside calls of 1000 a read takes up to 56 ms, beside calls of 20 no more than beside calls of 1.
- Counting by SCAN takes about 6 s per million keys. A counter of our own would be wrong after the first eviction.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from itertools import chain
from math import isnan, nan
from time import monotonic
from typing import TypeVar

from features.catalogue import Catalogue
from features.errors import StoreUnavailable
from features.online import READ_TIMEOUT_S, WRITER_TIMEOUT_S, Found, differing
from features.packing import pack, unpack
from features.resp import Address, Answer, Refusal, Wire, binary_command, command, connect, encoded
from features.state import States, anchors

T = TypeVar("T")

PREFIX = "inbox:state:"
ANCHOR = struct.Struct("<d")
ROWS_PER_CALL = 20
ROWS_PER_TRIP = 1_000
"""Bounds what is in flight: about 2 MB."""
KEYS_PER_SCAN = 1_000
TAKEN, LOST = 1, 2
"""What became of a row: stored, or not because another writer was faster. 0 is a row that is older than the stored."""

_COMMON = """
local newest, latest, outcomes = KEYS[#KEYS], 0 / 0, {}
local function anchor_of(key)
    local start = redis.call('GETRANGE', key, 0, 7)
    if #start < 8 then return 0 / 0 end
    return (struct.unpack('<d', start))
end
-- NaN is the one number that is not itself.
local function may_follow(new, old) return new >= old or old ~= old end
local function put(key, value)
    local new = struct.unpack('<d', value)
    if may_follow(new, latest) then latest = new end
    if not may_follow(new, anchor_of(key)) then return 0 end
    redis.call('SET', key, value)
    return 1
end
local function finish()
    if latest == latest and may_follow(latest, anchor_of(newest)) then
        redis.call('SET', newest, struct.pack('<d', latest))
    end
    return outcomes
end
"""
_WRITE = f"""{_COMMON}
for i, value in ipairs(ARGV) do outcomes[i] = put(KEYS[i], value) end
return finish()
"""
_SWAP = f"""{_COMMON}
for i = 1, #KEYS - 1 do
    local seen = redis.call('GET', KEYS[i]) or ''
    if seen == ARGV[2 * i - 1] then outcomes[i] = put(KEYS[i], ARGV[2 * i]) else outcomes[i] = 2 end
end
return finish()
"""
_NAMES = {script: sha1(script.encode()).hexdigest().encode() for script in (_WRITE, _SWAP)}


class RedisStateStore:
    """A ``StateStore`` on a server that speaks Redis' protocol.

    Connections are kept, one per thread. One that failed is thrown away; one that the server closed meanwhile is
    replaced without anybody noticing.

    Two lists must not share a database number and prefix. Nothing in a row says whose list it is of: the same id in both
    is one key, and whichever wrote last is believed by both.

    Parameters
    ----------
    url
        See ``resp.Address.parse``.
    timeout_s
        How long a read may take, connecting included.
    prefix
        Of all keys; at least one character.

    Raises
    ------
    UnusableOption
        When the URL is none. Nobody is connected to yet.
    """

    def __init__(self, url: str, timeout_s: float = READ_TIMEOUT_S, prefix: str = PREFIX) -> None:
        self.address, self.timeout_s, self.prefix = Address.parse(url), timeout_s, prefix
        self.damaged_rows = 0
        self._newest = prefix[:-1]
        self._local = threading.local()

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        """See ``StateStore.read``. One round trip, but for a thread's first."""
        distinct = dict.fromkeys(subscriber_ids)
        rows: list[memoryview | None] = []
        if distinct:
            keys = [self.prefix + subscriber_id for subscriber_id in distinct]
            rows = self._asked(lambda wire, until: wire.values(keys, ANCHOR.size, until), timeout_s)
        if len(distinct) < len(subscriber_ids):
            row_of = dict(zip(distinct, rows, strict=True))
            rows = [row_of[subscriber_id] for subscriber_id in subscriber_ids]
        return self._unpacked(rows, catalogue)

    def write(self, subscriber_ids: Sequence[str], states: States) -> int:
        """See ``StateStore.write``. A thousand rows at a time: what was written before a failure stays."""
        taken = 0
        for part in _slices(len(states), ROWS_PER_TRIP):
            rows = [[value] for value in _values(states[part])]
            taken += self._run(_WRITE, subscriber_ids[part], rows, again=True).count(TAKEN)
        return taken

    def revise(
        self, subscriber_ids: Sequence[str], change: Callable[[States, Found], States], catalogue: Catalogue
    ) -> int:
        """See ``StateStore.revise``. Optimistic: rows that another writer changed meanwhile are read and changed again.

        Raises
        ------
        StoreUnavailable
            When it fails, or others are faster for 30 seconds; some rows may have been stored then. When the connection
            breaks while rows are being stored, nobody knows which.
        """
        until = monotonic() + WRITER_TIMEOUT_S
        seen, taken = [b""] * len(subscriber_ids), 0
        places = list(range(len(subscriber_ids)))
        while places and monotonic() < until:
            ids = [subscriber_ids[i] for i in places]
            for i, value in zip(places, self._seen(ids), strict=True):
                seen[i] = value
            # All of them again, each as it was when it was last seen: `change` may go by position.
            states, found = self._unpacked([value[ANCHOR.size :] if value else None for value in seen], catalogue)
            after = change(states.copy(), found)
            moved, changed = found | differing(states, after), _values(after)
            places = [i for i in places if moved[i]]
            ids = [subscriber_ids[i] for i in places]
            rows = [[seen[i], changed[i]] for i in places]
            parts = _slices(len(places), ROWS_PER_TRIP)
            outcomes = [outcome for part in parts for outcome in self._run(_SWAP, ids[part], rows[part], again=False)]
            taken += outcomes.count(TAKEN)
            places = [i for i, outcome in zip(places, outcomes, strict=True) if outcome == LOST]
        if places:
            raise StoreUnavailable("other writers were faster for too long")
        return taken

    def delete(self, subscriber_id: str) -> bool:
        """See ``StateStore.delete``."""
        return self._ask(command("DEL", self.prefix + subscriber_id)) == 1

    def count(self) -> int:
        """See ``StateStore.count``. Walks through all keys of the server; exact while nobody writes."""
        return sum(map(len, self._pages()))

    def newest(self) -> float | None:
        """See ``StateStore.newest``. It stays when its row is deleted or evicted."""
        stored = self._ask(command("GET", self._newest))
        if isinstance(stored, bytes) and len(stored) == ANCHOR.size:
            return float(ANCHOR.unpack(stored)[0])
        # Nothing was written yet, or the server has evicted it.
        latest = max((anchor for page in self._pages() for anchor in self._anchors(page)), default=nan)
        return None if isnan(latest) else latest

    def create(self) -> None:
        """Nothing to do: without rows, reading finds nobody."""

    def drop(self) -> None:
        """Forget everybody. Keys of others stay."""
        for page in self._pages():
            if page:
                self._ask(binary_command(b"UNLINK", *page))
        self._ask(command("UNLINK", self._newest))

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        wire = self._local.__dict__.pop("wire", None)
        if wire is not None:
            wire.close()

    def _unpacked(self, rows: Sequence[bytes | memoryview | None], catalogue: Catalogue) -> tuple[States, Found]:
        # It joins them, and memory views are joined like bytes.
        unpacked = unpack(rows, catalogue)
        self.damaged_rows += unpacked.damaged
        return unpacked.states, unpacked.found

    def _seen(self, subscriber_ids: Sequence[str]) -> list[bytes]:
        """Values as they are stored, empty where there is none."""
        keys = [self.prefix + subscriber_id for subscriber_id in subscriber_ids]
        values = self._asked(lambda wire, until: wire.values(keys, 0, until))
        return [b"" if value is None else bytes(value) for value in values]

    def _anchors(self, keys: Sequence[bytes]) -> list[float]:
        last = b"%d" % (ANCHOR.size - 1)
        questions = [binary_command(b"GETRANGE", key, b"0", last) for key in keys]
        starts = self._asked(lambda wire, until: wire.ask_all(questions, until))
        known = [ANCHOR.unpack(start)[0] for start in starts if isinstance(start, bytes) and len(start) == ANCHOR.size]
        return [anchor for anchor in known if not isnan(anchor)]

    def _pages(self) -> Iterator[list[bytes]]:
        """The keys of all rows, some hundreds at a time."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self.prefix) + "*"
        cursor = "0"
        while True:
            answer = self._ask(command("SCAN", cursor, "MATCH", pattern, "COUNT", str(KEYS_PER_SCAN)))
            match answer:
                case [bytes(following), [*keys]]:
                    cursor = following.decode("ascii", "replace")
                    yield [key for key in keys if isinstance(key, bytes)]
                case _:
                    raise StoreUnavailable("it answers SCAN with something else than keys")
            if cursor == "0":
                return

    def _run(self, script: str, subscriber_ids: Sequence[str], rows: Sequence[list[bytes]], again: bool) -> list[int]:
        """What became of each row, in one round trip. ``rows`` has each one's arguments for the script."""
        keys = [encoded(self.prefix + subscriber_id) for subscriber_id in subscriber_ids]
        newest = encoded(self._newest)
        calls = [
            [b"%d" % (len(keys[part]) + 1), *keys[part], newest, *chain.from_iterable(rows[part])]
            for part in _slices(len(rows), ROWS_PER_CALL)
        ]
        answers = self._asked(lambda wire, until: _called(wire, script, calls, until), WRITER_TIMEOUT_S, again)
        outcomes = [outcome for answer in answers for outcome in answer]
        if len(outcomes) != len(rows):
            raise StoreUnavailable("it answers for other rows than were sent")
        return outcomes

    def _ask(self, question: bytes) -> Answer:
        return self._asked(lambda wire, until: wire.ask(question, until))

    def _asked(self, ask: Callable[[Wire, float], T], timeout_s: float | None = None, again: bool = True) -> T:
        """Ask over this thread's connection, within a time-out for all of it.

        Parameters
        ----------
        again
            Whether it may be asked twice: a server that had closed the connection shows only when it is asked.
        """
        until = monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        kept = self._local.__dict__.pop("wire", None)
        try:
            if kept is not None:
                try:
                    return self._over(kept, ask, until)
                except ConnectionError:
                    if not again:
                        raise
            return self._over(connect(self.address, until), ask, until)
        except OSError as error:
            raise StoreUnavailable(str(error)) from error

    def _over(self, wire: Wire, ask: Callable[[Wire, float], T], until: float) -> T:
        try:
            answer = ask(wire, until)
        except BaseException:
            wire.close()
            raise
        # Only now: after a failure nobody knows what the next bytes belong to.
        self._local.wire = wire
        return answer


def _values(states: States) -> list[bytes]:
    """What is stored for each state: anchor and row."""
    starts = anchors(states).astype("<f8").tobytes()
    return [starts[8 * i : 8 * i + 8] + row for i, row in enumerate(pack(states))]


def _called(wire: Wire, script: str, calls: Sequence[list[bytes]], until: float) -> list[list[int]]:
    """Answers of a script to several calls. A server that has not got it, or lost it in a restart, gets it again."""
    answers = wire.ask_all([binary_command(b"EVALSHA", _NAMES[script], *call) for call in calls], until)
    missing = [i for i, answer in enumerate(answers) if isinstance(answer, Refusal) and answer.code == "NOSCRIPT"]
    again = wire.ask_all([binary_command(b"EVAL", script.encode(), *calls[i]) for i in missing], until)
    for i, answer in zip(missing, again, strict=True):
        answers[i] = answer
    return [_outcomes(answer) for answer in answers]


def _outcomes(answer: Answer) -> list[int]:
    if isinstance(answer, Refusal):
        raise StoreUnavailable(str(answer))
    if not isinstance(answer, list):
        raise StoreUnavailable("it answers a script with something else than a list")
    return [outcome for outcome in answer if isinstance(outcome, int)]


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
