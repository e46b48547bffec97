"""`inbox promote`: a registered version becomes what is served.

What enters: a model and a version. What leaves: the champion alias moved by compare-and-set, the bundle published to disk. The
promise: what is published was verified first, and who promoted what, when, from what and why is on record.
"""

from __future__ import annotations

import getpass
import tempfile
from dataclasses import dataclass
from pathlib import Path

from features.errors import NeverTrained, PromotionRefused
from features.home import Home
from models.bundle import bundle_key, load, publish
from models.registry import CHALLENGER, CHAMPION, Registry, Version


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
        Promote even when it was not shown to beat its simplest baseline; said so in the record.

    Raises
    ------
    NeverTrained, UnknownVersion, PromotionRefused, PromotionConflict, BundleCorrupt, RegistryFailed
    """
    registry = Registry(home.tracking_uri, home.mlruns / "artifacts")
    version = _asked(registry, model, reference)
    champion = _champion(registry, model)
    doubt = _doubt(version)
    if doubt and not force:
        raise PromotionRefused(model, version.version, doubt)
    with tempfile.TemporaryDirectory() as place:
        bundle = registry.download(version, Path(place) / "bundle")
        # What cannot be served must not become champion; what lost the race must not be served.
        load(bundle, bundle_key(home))
        if champion != version.version:
            verdict = {"passed": not doubt, "doubt": doubt, "forced": bool(doubt and force)}
            words = reason or "promoted from the command line"
            by = getpass.getuser()
            registry.promote(model, version.version, expected=champion, by=by, reason=words, verdict=verdict)
        publish(home, model, version.version, bundle)
    return Promoted(model, version.version, champion if champion != version.version else None)


def _asked(registry: Registry, model: str, reference: str) -> Version:
    """The version meant. Promoting twice is no error: without a challenger the champion is meant."""
    versions = registry.versions(model)
    if not versions:
        raise NeverTrained(model)
    if reference == CHALLENGER and not any(CHALLENGER in version.aliases for version in versions):
        return registry.resolve(model, CHAMPION)
    return registry.resolve(model, reference)


def _champion(registry: Registry, model: str) -> str | None:
    return next((found.version for found in registry.versions(model) if CHAMPION in found.aliases), None)


def _doubt(version: Version) -> str:
    """Why a version should not serve; empty when nothing speaks against it."""
    if version.metrics.get("test_auc_low", 1.0) <= 0.5:
        return "its ranking on later rows cannot be told from chance"
    for metric, over in (("test_auc_gain", "AUC"), ("hours_gain", "log-likelihood")):
        gain = version.metrics.get(metric)
        if gain is not None and gain <= 0:
            return f"it does not beat its simplest baseline on later rows ({over} {gain:+.3f})"
        if gain is not None:
            return ""
    return "it was never judged on later rows"
