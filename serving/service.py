"""The Bento: how the application is started, guarded, watched and stopped. The only file that imports BentoML.

What enters: the environment (see ``settings``) and a home directory. What leaves: a service on a port. The promise:
nothing is loaded before a worker starts, and what was answered is written down before it stops.

::

    BENTOML_DO_NOT_TRACK=True INBOX_HOME=/path/to/home bentoml serve serving.service:Scoring --port 3000
    BENTOML_DO_NOT_TRACK=True bentoml build && bentoml serve inbox-scoring:latest
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import bentoml
from _bentoml_sdk import Service
from _bentoml_sdk.service.openapi import generate_spec
from bentoml._internal.server.http.traffic import TimeoutMiddleware

from features.inbox import Inbox
from features.stores import open_store
from serving.app import Engine, create_app
from serving.breaker import Breaker
from serving.guard import Guard
from serving.keys import KeyRing
from serving.leads.desk import Desk
from serving.prediction_log import PredictionLog
from serving.scorer import Scorer
from serving.settings import read_settings
from serving.swap import Shelf, Swapper
from serving.webhooks.certificates import Certificates
from serving.webhooks.doors import open_doors
from serving.webhooks.follower import Follower
from serving.webhooks.reception import Reception

if TYPE_CHECKING:
    from starlette.types import ASGIApp

T = TypeVar("T")

ENVIRONMENT = {
    "BENTOML_DO_NOT_TRACK": "True",
    # Matrices here are small: BLAS threads cost a thousand subscribers 7 ms and gain nothing.
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of a few megabytes, needed for every request, is kept: to give it back and get it again costs more than to use it.
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "16777216",
}
"""Of every worker process."""

app = create_app()


class GuardedService(Service[T]):
    """A Bento service whose whole ASGI application stands behind the guard."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Bento's application without its timer, behind the guard, which has a better one.

        Bento's does not notice an error before the first byte, but lets the caller hang until it runs out; and every
        pending timer holds its request's context, which garbage collection has to walk through.
        """
        app.state.settings = settings = read_settings()
        inner = super().to_asgi(is_main=is_main)
        inner.user_middleware = [layer for layer in inner.user_middleware if layer.cls is not TimeoutMiddleware]
        app.state.certificates = certificates = Certificates(settings.ses_certificates)
        doors = open_doors(settings, certificates)
        return Guard(inner, settings, KeyRing(settings.keys), app.state.meters, doors)

    @property
    def openapi_spec(self) -> Any:
        """FastAPI describes in the words of 3.1; Bento would head it 3.0.2."""
        return generate_spec(self, openapi_version="3.1.0")

    @property
    def doc(self) -> str:
        """Shown above the API's description. Bento's own text would fetch badges from the network."""
        return str(self.inner.__doc__)


@bentoml.service(
    name="inbox-scoring",
    service_class=GuardedService,
    workers=1,
    http={"host": "127.0.0.1", "port": 3000},
    # All three spell out the path and so the subscriber's id: the guard logs and counts by route instead.
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ["/v1/scores", "/leads"]},
    envs=[{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
)
@bentoml.asgi_app(app, path="/")
class Scoring:
    """Send time, churn and lead scores for email subscribers."""

    def __init__(self) -> None:
        # Threads that have worked without the interpreter wait less for it: a thousand rows out of SQLite beside two busy
        # threads took 11 ms instead of 21.
        sys.setswitchinterval(0.0005)
        _set_up_logging()
        settings = app.state.settings
        # Made once: scorers come and go with the bundles, all over the same store.
        budget_s = settings.store_budget_ms / 1000
        self.breaker = breaker = Breaker(open_store(settings.stores, budget_s), budget_s)
        stale_after_s = settings.stale_after / timedelta(seconds=1)
        shelf = Shelf(settings.stores, lambda bundles: Scorer(bundles, breaker, stale_after_s))
        predictions = PredictionLog(settings.stores.predictions)
        self.engine = Engine(shelf.scorer, settings.clock(), settings.max_ids, predictions, app.state.meters)
        app.state.engine = self.engine
        _watch(predictions, shelf, breaker)
        # What is loaded stays long: garbage collection need not walk through it again and again. A bundle that is
        # swapped out is in no cycle, so it goes all the same.
        gc.collect()
        gc.freeze()
        self.swapper = Swapper(shelf, self.engine)
        stores = settings.stores
        self.follower = Follower(stores)
        self.reception = app.state.reception = Reception(
            stores,
            Inbox(stores),
            self.engine.clock,
            app.state.meters,
            app.state.certificates,
            self.follower.wake,
        )
        _watch_events(self.follower)
        self.leads = app.state.leads = Desk(stores, self.engine, settings.answer_deadline_s)
        Thread(target=_end_with, args=(os.getppid(),), name="supervisor", daemon=True).start()

    async def __is_ready__(self) -> bool:
        """Ready to score once a model is in service."""
        return bool(self.engine.scorer.versions)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Write down what was taken in or answered and not written yet."""
        self.leads.close()
        self.reception.close()
        self.follower.close()
        self.swapper.close()
        self.engine.close()
        self.breaker.close()


def _end_with(supervisor: int) -> None:
    """A worker whose supervisor was killed would hold the port for ever, and nobody could stop it."""
    while os.getppid() == supervisor:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _watch(predictions: PredictionLog, shelf: Shelf, breaker: Breaker) -> None:
    meters = app.state.meters
    meters.watch_count("inbox_predictions_written", "Rows logged.", lambda: predictions.written_rows)
    meters.watch_count("inbox_predictions_dropped", "Rows not logged: queue full.", lambda: predictions.dropped_rows)
    meters.watch_count("inbox_predictions_lost", "Rows not logged: disk.", lambda: predictions.lost_rows)
    meters.watch_level("inbox_predictions_waiting", "Rows still to be logged.", lambda: predictions.waiting_rows)
    meters.watch_count("inbox_bundle_swaps", "Bundles put in service, the first ones included.", lambda: shelf.swaps)
    meters.watch_count("inbox_bundle_refusals", "Published bundles that were refused.", lambda: shelf.refusals)
    meters.watch_level("inbox_bundles_in_service", "Models that answer.", lambda: len(shelf.bundles))
    meters.watch_level("inbox_bundles_refused", "Models whose newest bundle is refused.", lambda: len(shelf.refused))
    meters.watch_count("inbox_store_breaker_opened", "Times the online store was given up.", lambda: breaker.opened)
    meters.watch_count("inbox_store_failed_reads", "Reads of the online store that failed.", lambda: breaker.failures)
    meters.watch_level("inbox_store_breaker_open", "1 while it is given up.", lambda: float(breaker.is_open))
    meters.watch_count(
        "inbox_store_damaged_rows", "Stored rows that were not what was written.", lambda: breaker.store.damaged_rows
    )


def _watch_events(follower: Follower) -> None:
    meters, progress = app.state.meters, follower.progress
    meters.watch_level(
        "inbox_live_waiting_events", "Accepted events not in the online store yet.", lambda: progress.waiting_events
    )
    meters.watch_level("inbox_live_failed_subscribers", "Whose row is not up to date.", lambda: progress.failed)
    meters.watch_level("inbox_live_seconds", "What the last look at the inbox took.", lambda: progress.seconds)
    meters.watch_count("inbox_live_events", "Events brought into the online store.", lambda: progress.events)
    meters.watch_count("inbox_live_refolded", "Rows folded anew from the log.", lambda: progress.refolded)
    meters.watch_count("inbox_live_failures", "Looks at the inbox that failed.", lambda: progress.failures)


def _set_up_logging() -> None:
    """Let our lines through Bento's root, which stops below WARNING, and silence uvicorn's, which hold the path."""
    logging.getLogger("inbox").setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True
