"""`inbox retrain`: the one command a schedule needs, from the log to a new champion or a refusal that says why.

What enters: a home with a log. What leaves: for each asked model a ``Step``: promoted, refused, not trainable, or nothing new.
The promise: on an unchanged log a second run does nothing; killed at any moment, the next run does what is not done; two at
once are told apart; only a version that passed every gate is ever promoted.

What is done is read from two places. A version in the registry carries what it was made from, so a training that was
finished is never repeated; the ledger ``var/retrain.json`` keeps how each model's last run ended, refusals without a version
included. The ledger is written last: what it lacks is looked up in the registry or done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

import orjson

from features.errors import PromotionConflict, PromotionRefused
from features.home import Home
from features.log import EventLog
from models.registry import Registry, Version
from models.spec import ModelSpec
from pipelines.console import Narrator
from pipelines.promote import champion_of, open_registry, promote, verdict_of
from pipelines.train import KEY_TAG, Outcome, Recipe, alone, code_fingerprint, made, train_recipe
from training.dataset import Dataset
from training.tuning import Budget, Tuned, tune


class Ending(StrEnum):
    """How a model's step ended, or how it will when it is only planned."""

    PROMOTED = "promoted"
    NOTHING_NEW = "nothing new"
    REFUSED = "refused"
    UNTRAINABLE = "not trainable"
    PLANNED = "planned"


DONE, REFUSED, UNTRAINABLE, RUNNING = 0, 3, 4, 5
"""Exit codes; 1 is a failure that was said, as of every verb."""
EXIT_CODES = {
    Ending.PROMOTED: DONE,
    Ending.NOTHING_NEW: DONE,
    Ending.PLANNED: DONE,
    Ending.REFUSED: REFUSED,
    Ending.UNTRAINABLE: UNTRAINABLE,
}


@dataclass(frozen=True)
class Step:
    """What became of one model."""

    model: str
    ending: Ending
    version: str | None
    words: str


@dataclass(frozen=True)
class Entry:
    """One model's line in the ledger."""

    key: str
    ending: str
    version: str | None
    words: str
    at: str


class Ledger:
    """How each model's last retrain ended, in ``var/retrain.json``; replaced as a whole, never torn."""

    def __init__(self, home: Home) -> None:
        self.path = home.var / "retrain.json"

    def read(self) -> dict[str, Entry]:
        """By model; a ledger that cannot be read is an empty one: everything is looked up again."""
        try:
            return {model: Entry(**raw) for model, raw in orjson.loads(self.path.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep(self, step: Step, key: str) -> None:
        """Write how a model's step ended."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(key, step.ending.value, step.version, step.words, now)
        entries = {model: asdict(one) for model, one in (self.read() | {step.model: entry}).items()}
        beside = self.path.with_suffix(".tmp")
        beside.write_bytes(orjson.dumps(entries, option=orjson.OPT_INDENT_2))
        beside.replace(self.path)


def retrain(
    home: Home, models: Sequence[str], narrator: Narrator, recipe: Recipe | None = None, dry_run: bool = False
) -> list[Step]:
    """Train what is new, judge it, and promote what passes.

    Parameters
    ----------
    dry_run
        Only say what would be done.

    Raises
    ------
    TrainingRunning
        When another one is at work on this home.
    EmptyLog, UnknownModel, UnusableOption, FeatureStoreFailed, RegistryFailed
    """
    recipe = recipe or Recipe()
    recipe.refuse_unusable(home, models)
    job = _Job(home, recipe, open_registry(home), Ledger(home), EventLog(home).fingerprint())
    if dry_run:
        return [_planned(model, job.look(model)) for model in dict.fromkeys(models)]
    with alone(home):
        plan = {model: job.look(model) for model in dict.fromkeys(models)}
        steps = {model: job.finished(model, found) for model, found in plan.items() if found is not None}
        new = [model for model in plan if model not in steps]
        if new:
            train_recipe(
                home, new, narrator, recipe, lambda outcome: steps.update({outcome.spec.name: job.end(outcome)})
            )
        return [steps[model] for model in plan]


@dataclass(frozen=True)
class _Job:
    """One run of retrain."""

    home: Home
    recipe: Recipe
    registry: Registry
    ledger: Ledger
    fingerprint: str

    def key(self, model: str) -> str:
        return self.recipe.key(self.home, model, self.fingerprint)

    def look(self, model: str) -> Entry | Version | None:
        """What is there already: an end, a version that still has to be promoted or refused, or nothing."""
        key = self.key(model)
        entry = self.ledger.read().get(model)
        version = made(self.registry, model, key)
        if entry is None or entry.key != key:
            return version
        # A refusal was about the champion of then: when another one serves, the candidate is judged anew.
        outdated = entry.ending == Ending.REFUSED and entry.version is not None and version is None
        return None if outdated else entry

    def _served(self, version: Version) -> bool:
        return version.version in {change.version for change in self.registry.promotions(version.model)}

    def finished(self, model: str, found: Entry | Version) -> Step:
        """End what an earlier run left."""
        if isinstance(found, Entry):
            return Step(
                model, Ending.NOTHING_NEW, found.version, f"nothing new; {found.ending} at {found.at}: {found.words}"
            )
        champion = champion_of(self.registry, model)
        if self._served(found) and (champion is None or champion.version != found.version):
            # It was promoted and taken back: to promote it again would undo what somebody decided.
            step = Step(model, Ending.NOTHING_NEW, found.version, f"version {found.version} served and was taken back")
            self.ledger.keep(step, self.key(model))
            return step
        return self._settle(found, "taken up: ")

    def end(self, outcome: Outcome) -> Step:
        """Promote or refuse what was just trained. The key is the version's own: the log may have grown since."""
        model = outcome.spec.name
        if outcome.version is None:
            step = Step(model, Ending.UNTRAINABLE, None, outcome.refusal or "")
            self.ledger.keep(step, self.key(model))
            return step
        return self._settle(self.registry.resolve(model, outcome.version), "")

    def _settle(self, version: Version, prefix: str) -> Step:
        words = verdict_of(version).words()
        try:
            done = promote(self.home, version.model, version.version, f"retrain: {words}")
        except (PromotionRefused, PromotionConflict) as refusal:
            why = refusal.reason if isinstance(refusal, PromotionRefused) else str(refusal)
            step = Step(version.model, Ending.REFUSED, version.version, f"{prefix}{why}")
            if verdict_of(version).passed:
                # Somebody promoted in between. Not kept: the next run judges against the champion that serves then.
                return step
        else:
            instead = f"instead of version {done.replaced}" if done.replaced else "where nothing served"
            step = Step(version.model, Ending.PROMOTED, version.version, f"{prefix}{instead}: {words}")
        self.ledger.keep(step, version.tags[KEY_TAG])
        return step


def _planned(model: str, found: Entry | Version | None) -> Step:
    if found is None:
        return Step(model, Ending.PLANNED, None, "would be trained, judged and, if every gate is passed, promoted")
    if isinstance(found, Entry):
        return Step(
            model, Ending.NOTHING_NEW, found.version, f"nothing new; {found.ending} at {found.at}: {found.words}"
        )
    said = "promoted" if verdict_of(found).passed else "refused"
    return Step(model, Ending.PLANNED, found.version, f"trained already; would be {said}: {verdict_of(found).words()}")


def exit_code(steps: Sequence[Step]) -> int:
    """Of several models the most serious: a refusal by a gate, then one that cannot be trained."""
    codes = {EXIT_CODES[step.ending] for step in steps}
    return next((code for code in (REFUSED, UNTRAINABLE) if code in codes), DONE)


def tuned_recipe(home: Home, recipe: Recipe, budget: Budget, narrator: Narrator) -> Recipe:
    """The recipe with a search before every fit; trials are kept under ``var/tuning`` until the data changes."""

    def tuner(data: Dataset, spec: ModelSpec) -> Tuned:
        made_from = [data.fingerprint, spec.described(), code_fingerprint()]
        digest = sha256(orjson.dumps(made_from, option=orjson.OPT_SORT_KEYS)).hexdigest()
        kept = home.var / "tuning" / f"{spec.name}-{digest[:16]}.jsonl"
        found = tune(data, spec, budget, kept, recipe.allowed)
        narrator.say(f"    {spec.name}: {found.words}")
        return found

    return replace(recipe, tuner=tuner, tuning=str(budget))
