"""Where questions about leads wait for their turn, away from the event loop.

What enters: work. What leaves: its result, or ``Overloaded``. The promise: however many ask, a renderer's scores do not wait
for it: pages have one thread, downloads another, and both have few places.

A download is worked on block by block, and a block only once the caller has taken the one before. A caller who leaves, or
does not take a block within the service's answer deadline, ends it; so does the end of ``WHOLE_WITHIN_S``. The deadline of an
answer cannot be that of a download: a large list over a slow line takes longer than the ten seconds after which anything else
hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from features.errors import Overloaded
from features.home import Home
from serving.leads.answers import Answers, Download, InService
from serving.leads.query import LeadQuery, Selection
from serving.leads.reader import BookReader

T = TypeVar("T")

MOST_WAITING = 16
"""Questions at once, the one being answered included."""
MOST_DOWNLOADS = 4
WHOLE_WITHIN_S = 900.0
"""A million leads took six seconds over loopback; this is for a slow line."""
CSV_MEDIA_TYPE = "text/csv; charset=utf-8"
DEADLINE = "inbox.deadline"
"""Where the deadline of an answer is found in the ASGI scope."""


class Places:
    """A few places at once."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for the length of a block.

        Raises
        ------
        Overloaded
            When there is none.
        """
        if self.taken >= self.most:
            raise Overloaded(1)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Desk:
    """Answers about leads for the length of a service.

    Parameters
    ----------
    block_within_s
        By when a caller must have taken a block of a download.
    """

    def __init__(self, home: Home, engine: InService, block_within_s: float) -> None:
        self.block_within_s = block_within_s
        self.questions, self.downloads = Places(MOST_WAITING), Places(MOST_DOWNLOADS)
        self._threads = [ThreadPoolExecutor(1, name) for name in ("leads", "leads-download")]
        self._readers = [BookReader(home) for _ in self._threads]
        self._pages, self._files = (Answers(reader, engine) for reader in self._readers)

    async def page(self, query: LeadQuery, request_id: str) -> bytes:
        """See ``Answers.page``."""
        with self.questions.one():
            return await _in(self._threads[0], lambda: self._pages.page(query, request_id))

    async def one(self, subscriber_id: str, request_id: str) -> bytes:
        """See ``Answers.one``."""
        with self.questions.one():
            return await _in(self._threads[0], lambda: self._pages.one(subscriber_id, request_id))

    def download(self, selection: Selection) -> Streamed:
        """A selection as a file."""
        return Streamed(self, selection)

    async def begun(self, selection: Selection) -> Download:
        """See ``Answers.download``."""
        return await _in(self._threads[1], lambda: self._files.download(selection))

    async def next_block(self, download: Download) -> bytes | None:
        """The next part of a download; None after the last."""
        return await _in(self._threads[1], lambda: next(download.blocks, None))

    def close(self) -> None:
        """Finish what was begun."""
        for thread, reader in zip(self._threads, self._readers, strict=True):
            thread.shutdown(cancel_futures=True)
            reader.close()


class Streamed(Response):
    """A download: what can go wrong at once goes wrong before anything is sent."""

    def __init__(self, desk: Desk, selection: Selection) -> None:
        super().__init__(media_type=CSV_MEDIA_TYPE)
        self.desk, self.selection = desk, selection
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        try:
            with self.desk.downloads.one():
                await self._send(scope, send, gone)
        finally:
            gone.cancel()

    async def _send(self, scope: Scope, send: Send, gone: asyncio.Future[None]) -> None:
        ends_at = monotonic() + WHOLE_WITHIN_S
        download = await self.desk.begun(self.selection)
        # The names of the columns come with the first rows: by then whatever the rows need is known to be there.
        block: bytes | None = await self.desk.next_block(download)
        block = (block or b"") + (await self.desk.next_block(download) or b"")
        self.headers["content-disposition"] = f'attachment; filename="leads-{download.book_id}.csv"'
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while block is not None and not gone.done():
            if block:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            self._extend(scope, ends_at)
            block = await self.desk.next_block(download)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _extend(self, scope: Scope, ends_at: float) -> None:
        """Count the answer's deadline anew: the caller has taken a block."""
        deadline: asyncio.Timeout = scope[DEADLINE]
        left_s = min(self.desk.block_within_s, ends_at - monotonic())
        deadline.reschedule(asyncio.get_running_loop().time() + left_s)


async def _in(thread: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
