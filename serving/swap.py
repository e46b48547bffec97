"""From pointers on disk to models in service: a promotion or a rollback comes into a running service by itself.

What enters: a home's ``bundles/{model}/current.json``, watched. What leaves: one scorer after another, each complete,
over the same store. The promise: what cannot be verified, parsed or scored never comes into service and never puts out
of service what is; an answer is made by one scorer alone, so versions are never mixed.

A ``Shelf`` holds the bundles in service and is the one place where they are loaded, for the service as for a batch. A
``Swapper`` is the service's thread that keeps looking.

Weighed: the kernel could tell of a changed pointer at once (inotify), but not on a network file system nor through
every container mount; a look twice a second costs less than a thousandth of a core and needs only files that can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Protocol

import numpy as np

from features.catalogue import VIEWS, Catalogue, as_of_name
from features.clock import microseconds
from features.contract import MODELS
from features.errors import BundleCorrupt, BundleMissing, ScoringError
from features.home import Home
from features.online import Found
from features.state import States, identity
from models.bundle import Bundle, bundle_key, current, load
from serving.answers import render_json
from serving.app import ScorerLike
from serving.failures import described
from serving.schemas import ScoreRequest
from serving.scorer import Scorer

log = logging.getLogger("inbox.swap")

POLL_S = 0.5
"""A load takes one to two seconds beside a busy service, up to four on an overloaded machine: together less than five."""
RETRY_S = 30.0
"""After how long a refused bundle is tried again though nothing changed: the reason may have been a passing one, such
as a disk error or a machine too busy for the checking process."""
STOP_WITHIN_S = 2.0
REHEARSAL = ("somebody", "a-stranger")

Stamp = tuple[int, ...]
"""Inode, size and time of change (which permissions change too); empty where nothing is; an error's number alone where
that cannot be told."""


@dataclass(frozen=True)
class Refusal:
    """Why a model's published bundle is not in service."""

    reason: str
    lying: tuple[Stamp, ...]
    """How pointer, directory and files lay on disk when it was tried."""
    retry_at: float


class Shelf:
    """The bundles in service of one home, and the scorer over them. Making one loads whatever is promoted.

    Parameters
    ----------
    make_scorer
        Makes a scorer of bundles by model. Store, breaker and whatever else outlives scorers is its own to know.

    Attributes
    ----------
    scorer
        The last good one; without models until the first bundle loads.
    swaps, refusals
        Bundles put in service, those found at first included; bundles refused, each counted and logged once, however
        often it is tried again.
    """

    def __init__(
        self,
        home: Home,
        make_scorer: Callable[[Mapping[str, Bundle]], Scorer],
        models: Sequence[str] = MODELS,
        retry_s: float = RETRY_S,
    ) -> None:
        self.home, self.make_scorer, self.models, self.retry_s = home, make_scorer, tuple(models), retry_s
        self.bundles: Mapping[str, Bundle] = {}
        self.scorer = make_scorer(self.bundles)
        self.refused: dict[str, Refusal] = {}
        self.swaps = self.refusals = 0
        self._taken: dict[str, Stamp] = {}
        for model in self.models:
            self.attend(model)

    @property
    def problems(self) -> list[str]:
        """Why what was asked for is not in service, or not its newest version: a sentence for each such model."""
        idle = {model: "not promoted yet" for model in self.models if model not in self.bundles}
        refused = {model: refusal.reason for model, refusal in self.refused.items()}
        return [f"{model}: {reason}" for model, reason in (idle | refused).items()]

    def attend(self, model: str) -> bool:
        """Bring a model's published bundle into ``scorer`` if it is new or worth another try. Whether it came in.

        Takes microseconds when nothing changed, else about as long as ``models.bundle.load``. Never raises: whatever is
        wrong with a bundle, what was in service before stays. For one thread.
        """
        lying: tuple[Stamp, ...] = ()
        try:
            lying = _lying(self.home, model)
            if not self._is_worth_a_try(model, lying):
                return False
            self._bring_in(model)
        except ScoringError as error:
            self._refuse(model, lying, str(error))
            return False
        except Exception as error:  # noqa: BLE001 - the thread's outermost door; at start, one bundle must not stop all
            self._refuse(model, lying, described(error))
            return False
        self._taken[model] = lying[0]
        self.refused.pop(model, None)
        return True

    def _is_worth_a_try(self, model: str, lying: tuple[Stamp, ...]) -> bool:
        pointer, refusal = lying[0], self.refused.get(model)
        if not pointer:
            # Never promoted; or the pointer was removed, and no model is taken out of service by accident.
            return False
        if refusal is None:
            return pointer != self._taken.get(model)
        return lying != refusal.lying or monotonic() >= refusal.retry_at

    def _bring_in(self, model: str) -> None:
        bundle = _loaded(self.home, model)
        bundles = {**self.bundles, model: bundle}
        scorer = self.make_scorer(bundles)
        _rehearse(scorer)
        self.bundles, self.scorer = bundles, scorer
        self.swaps += 1
        log.info("%s %s is in service", model, bundle.version)

    def _refuse(self, model: str, lying: tuple[Stamp, ...], reason: str) -> None:
        before = self.refused.get(model)
        self.refused[model] = Refusal(reason, lying, monotonic() + self.retry_s)
        if before is None or (before.reason, before.lying) != (reason, lying):
            self.refusals += 1
            stays = f"version {self.bundles[model].version} stays" if model in self.bundles else "it is not served"
            log.error("%s: %s. %s", model, stays, reason)


class InService(Protocol):
    """Where the scorer in service stands: ``serving.app.Engine``."""

    scorer: ScorerLike


class Swapper:
    """Keeps ``engine.scorer`` the shelf's, from now until closed. A swap is one assignment.

    The shelf belongs to the swapper's thread from here on; its numbers may be read from any.
    """

    def __init__(self, shelf: Shelf, engine: InService, poll_s: float = POLL_S) -> None:
        self.shelf, self.engine, self.poll_s = shelf, engine, poll_s
        self._closing = Event()
        self._thread = Thread(target=self._watch, name="swap", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking. A load under way is not waited for beyond two seconds: it ends with the process."""
        self._closing.set()
        self._thread.join(STOP_WITHIN_S)

    def _watch(self) -> None:
        while not self._closing.wait(self.poll_s):
            for model in self.shelf.models:
                if self.shelf.attend(model):
                    self.engine.scorer = self.shelf.scorer


def _loaded(home: Home, model: str) -> Bundle:
    """The bundle the pointer names, if it is what its place says."""
    directory = current(home, model)
    if directory is None:
        raise BundleMissing(home.bundles / model)
    bundle = load(directory, bundle_key(home))
    if (bundle.model, bundle.version) != (model, directory.name):
        raise BundleCorrupt(directory, f"it is {bundle.model} {bundle.version}")
    return bundle


class _Rehearsal:
    """A store that knows the first of those asked for, as if just materialized, and no other."""

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        states = identity(catalogue, len(subscriber_ids))
        for view in VIEWS:
            states[as_of_name(view)][0] = microseconds(datetime.now(UTC))
        return states, np.arange(len(subscriber_ids)) == 0


def _rehearse(scorer: Scorer) -> None:
    """One whole answer before a scorer is in service: what cannot give it must not come in, and no caller waits for the
    first. Not over its own store, which may be down just now and tells nothing about a bundle.
    """
    now = datetime.now(UTC)
    store, scorer.store = scorer.store, _Rehearsal()
    scores = scorer.score(ScoreRequest(subscriber_ids=REHEARSAL, explain=True), now)
    render_json(scores, "rehearsal", now, scorer.versions, explain=True)
    scorer.store = store


def _lying(home: Home, model: str) -> tuple[Stamp, ...]:
    """How a model's pointer, the directory it names and the files there lie on disk; the pointer first."""
    pointer = home.bundles / model / "current.json"
    return tuple(_stamp(path) for path in (pointer, *_named(home, model)))


def _named(home: Home, model: str) -> list[Path]:
    try:
        directory = current(home, model)
        return [] if directory is None else [directory, *sorted(directory.iterdir())]
    except (BundleCorrupt, OSError):
        return []


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        return (error.errno or 0,)
    return found.st_ino, found.st_size, found.st_ctime_ns
