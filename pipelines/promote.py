"""`inbox promote` and `inbox rollback`: a registered version becomes what is served.

What enters: a model and a version. What leaves: the champion alias moved by compare-and-set, the bundle published to disk. The
promise: what is published was verified first, what was refused by a gate serves only by force, and who changed what, when,
from what and why is on record.

A promotion goes by the verdict that is kept with the version. A rollback asks no gate: the version served before, and
seconds count.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.errors import BundleCorrupt, ModelError, NeverTrained, PromotionRefused, RollbackRefused, UnknownVersion
from features.home import Home
from models.bundle import Bundle, bundle_key, current, load, publish
from models.registry import CHALLENGER, CHAMPION, PROMOTE, ROLLBACK, Promotion, Registry, Version
from training.verdict import Gate, Verdict

VERDICT_TAG = "verdict"
"""On a version: the verdict as JSON."""


class PublishFailed(ModelError):
    """The disk would not take a bundle; nothing changed."""

    code = "publish_failed"

    def __init__(self, model: str, version: str, path: Path, reason: str) -> None:
        self.model, self.version, self.path = model, version, path
        super().__init__(
            f"{model} version {version} could not be written to {path}: {reason}. What served before goes on serving; "
            "make room there and try again."
        )


@dataclass(frozen=True)
class Promoted:
    """What serves now, and what served before (None: nothing)."""

    model: str
    version: str
    replaced: str | None


def promote(home: Home, model: str, reference: str = CHALLENGER, reason: str = "", force: bool = False) -> Promoted:
    """Make a version the champion and publish its bundle.

    Parameters
    ----------
    reference
        A version's number or an alias; the newest challenger by default.
    force
        Promote whatever the gates said; what they said is in the record, and that it was forced.

    Raises
    ------
    NeverTrained, UnknownVersion, PromotionRefused, PromotionConflict, BundleCorrupt, PublishFailed, RegistryFailed
    """
    registry = open_registry(home)
    version = _asked(registry, model, reference)
    champion = champion_of(registry, model)
    serves = champion is not None and champion.version == version.version
    doubt = "" if serves else _doubt(version, champion)
    if doubt and not force:
        raise PromotionRefused(model, version.version, doubt)
    evidence = {"passed": not doubt, "doubt": doubt, "forced": bool(doubt and force)}
    with verified(home, registry, version) as bundle:
        if serves:
            # Twice is no error; a promotion that was killed before it published is finished here.
            _publish(home, version, bundle)
            return Promoted(model, version.version, None)
        return _change(home, registry, version, champion, bundle, reason, evidence, PROMOTE)


def rollback(home: Home, model: str, to: str | None = None, reason: str = "") -> Promoted:
    """Make the version that served before the champion again. One that was killed before it published is finished instead.

    Parameters
    ----------
    to
        A version that served once; the one before the champion unless given. Once more goes further back.

    Raises
    ------
    RollbackRefused
        When nothing served before, or ``to`` never did.
    UnknownVersion, PromotionConflict, BundleCorrupt, PublishFailed, RegistryFailed
    """
    registry = open_registry(home)
    champion = champion_of(registry, model)
    if champion is None:
        raise RollbackRefused(model, "nothing serves")
    changes = registry.promotions(model)
    if to in (None, champion.version) and _is_unfinished(home, changes, champion):
        with verified(home, registry, champion) as bundle:
            _publish(home, champion, bundle)
        return Promoted(model, champion.version, changes[-1].replaced)
    target = _before(model, changes, champion.version, to)
    version = registry.resolve(model, target)
    evidence = {"passed": True, "doubt": "", "forced": False}
    with verified(home, registry, version) as bundle:
        return _change(home, registry, version, champion, bundle, reason, evidence, ROLLBACK)


def open_registry(home: Home) -> Registry:
    """The home's own registry."""
    return Registry(home.tracking_uri, home.mlruns / "artifacts")


def champion_of(registry: Registry, model: str) -> Version | None:
    """The version that serves, None when none does."""
    try:
        return registry.resolve(model, CHAMPION)
    except UnknownVersion:
        return None


def verdict_of(version: Version) -> Verdict:
    """What the gates said of a version; without gates when it was registered before there were any.

    A verdict that cannot be read is one that refuses.
    """
    text = version.tags.get(VERDICT_TAG)
    if text is None:
        return Verdict(version.model, None, ())
    try:
        return Verdict.from_json(text)
    except ValueError:
        return Verdict(version.model, None, (Gate(VERDICT_TAG, False, "its record cannot be read"),))


def served(promotions: Sequence[Promotion]) -> list[str]:
    """The versions that a rollback can go back through, the one that serves last.

    A promotion is put on top, a rollback takes off down to where it went.

    >>> def line(version, action): return Promotion("churn", version, None, "", "", "", {}, action)
    >>> served([line("1", "promote"), line("2", "promote"), line("3", "promote"), line("2", "rollback")])
    ['1', '2']
    """
    stack: list[str] = []
    for change in promotions:
        if change.action == ROLLBACK and change.version in stack:
            del stack[stack.index(change.version) :]
        stack = [*(version for version in stack if version != change.version), change.version]
    return stack


def _is_unfinished(home: Home, changes: Sequence[Promotion], champion: Version) -> bool:
    """Whether the last change is a rollback to the champion that was never published."""
    if not changes or (changes[-1].action, changes[-1].version) != (ROLLBACK, champion.version):
        return False
    try:
        published = current(home, champion.model)
    except BundleCorrupt:
        return True
    return published is None or published.name != champion.version


def _before(model: str, promotions: Sequence[Promotion], champion: str, to: str | None) -> str:
    """Where a rollback goes."""
    if to is not None:
        if to == champion:
            raise RollbackRefused(model, f"version {to} serves already")
        if to not in {change.version for change in promotions}:
            raise RollbackRefused(model, f"version {to} never served; a first time is a promotion")
        return to
    earlier = [version for version in served(promotions) if version != champion]
    if not earlier:
        raise RollbackRefused(model, f"nothing served before version {champion}")
    return earlier[-1]


def _asked(registry: Registry, model: str, reference: str) -> Version:
    """The version meant. Promoting twice is no error: without a challenger the champion is meant."""
    versions = registry.versions(model)
    if not versions:
        raise NeverTrained(model)
    if reference == CHALLENGER and not any(CHALLENGER in version.aliases for version in versions):
        return registry.resolve(model, CHAMPION)
    return registry.resolve(model, reference)


def _doubt(version: Version, champion: Version | None) -> str:
    """Why a version should not serve; empty when nothing speaks against it."""
    verdict = verdict_of(version)
    if not verdict.passed:
        return verdict.words()
    serving = None if champion is None else champion.version
    if verdict.champion != serving:
        against = "without a champion" if verdict.champion is None else f"against version {verdict.champion}"
        return f"it was judged {against}, and {serving or 'nothing'} serves now; the next training judges anew"
    return ""


@contextmanager
def verified(home: Home, registry: Registry, version: Version) -> Iterator[Path]:
    """A directory with the version's bundle that loads: the published one if it still does, else the registry's.

    Raises
    ------
    BundleCorrupt, RegistryFailed
    """
    published = home.bundles / version.model / version.version
    if _loads(published, home, version):
        yield published
        return
    with tempfile.TemporaryDirectory() as place:
        bundle = registry.download(version, Path(place) / "bundle")
        # What cannot be served must not become champion.
        _refuse_other(load(bundle, bundle_key(home)), bundle, version)
        yield bundle


def _loads(directory: Path, home: Home, version: Version) -> bool:
    if not directory.is_dir():
        return False
    try:
        _refuse_other(load(directory, bundle_key(home)), directory, version)
    except BundleCorrupt:
        return False
    return True


def _refuse_other(bundle: Bundle, directory: Path, version: Version) -> None:
    if (bundle.model, bundle.version) != (version.model, version.version):
        said = f"it is {bundle.model} {bundle.version}, not {version.model} {version.version}"
        raise BundleCorrupt(directory, said)


def _change(
    home: Home,
    registry: Registry,
    version: Version,
    champion: Version | None,
    bundle: Path,
    reason: str,
    evidence: dict[str, object],
    action: str,
) -> Promoted:
    """Move the alias and publish under one lock; what lost a race is not published."""
    replaced = None if champion is None else champion.version
    registry.promote(
        version.model,
        version.version,
        expected=replaced,
        by=_who(),
        reason=reason or f"{action} from the command line",
        verdict=evidence,
        action=action,
        publish=lambda: _publish(home, version, bundle),
    )
    return Promoted(version.model, version.version, replaced)


def _publish(home: Home, version: Version, bundle: Path) -> None:
    try:
        publish(home, version.model, version.version, bundle)
    except OSError as error:
        raise PublishFailed(version.model, version.version, home.bundles, str(error)) from error


def _who() -> str:
    """The user's name; their number in a container that has none for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
