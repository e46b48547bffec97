"""Every error this project raises on purpose.

What enters: typed fields. What leaves: an exception whose message is composed here and ends with what to do next. The
promise: a message names columns, rows, models and paths, never a person's values.

::

    ScoringError
    |- EventError                what was sent in cannot be read
    |  |- UnreadableFile
    |  |- MissingColumns
    |  |- WrongColumnType
    |  |- EmptyInput
    |  `- UnusableOption
    |- FeatureError              state, catalogue and stores
    |  |- EmptyLog
    |  |- CatalogueMissing
    |  |- FeatureStoreFailed
    |  |- StoreUnavailable
    |  |- InboxUnavailable
    |  |- Unwritable
    |  |- IdentityUnreadable
    |  `- MergeRefused
    |- DatasetError              training refuses
    |  |- NothingEligible
    |  |- NoMatureLabels
    |  |- SingleClass
    |  |- TooFewPositives
    |  |- MissingLabels
    |  `- LeakingFeature
    |- ModelError                registry and bundles
    |  |- RegistryFailed
    |  |- UnknownModel
    |  |- UnknownVersion
    |  |- NeverTrained
    |  |- PromotionConflict
    |  |- PromotionRefused
    |  |- RollbackRefused
    |  |- BundleMissing
    |  |- BundleCorrupt
    |  |- FeatureMismatch
    |  `- TrainerFailed
    `- RequestError              a caller of the service asked for something it cannot have
       |- MalformedRequest
       |- UnknownKey
       |- SlowBody
       |- BodyTooLarge
       |- NotJson
       |- Overloaded
       |- UntrustedEvents
       |- ReplayedEvents
       |- EventsNotTaken
       |- NoLeadBook
       |- UnknownLead
       `- LeadsUnavailable
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class ScoringError(Exception):
    """Root of the tree. ``code`` is stable: scripts may match on it."""

    code: ClassVar[str] = "scoring_error"


class EventError(ScoringError):
    code = "event_error"


class UnreadableFile(EventError):
    code = "unreadable_file"

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} cannot be read: {reason}. Give a whole Parquet, CSV or JSON Lines file.")


class MissingColumns(EventError):
    code = "missing_columns"

    def __init__(self, table: str, missing: Sequence[str], found: Sequence[str]) -> None:
        self.table, self.missing, self.found = table, tuple(missing), tuple(found)
        super().__init__(
            f"{table} lacks the required column(s) {', '.join(missing)}; it has {', '.join(found) or 'none'}. "
            "Rename or add the columns and ingest again."
        )


class WrongColumnType(EventError):
    code = "wrong_column_type"

    def __init__(self, table: str, column: str, found: str, wanted: str) -> None:
        self.table, self.column, self.found, self.wanted = table, column, found, wanted
        super().__init__(f"{table}.{column} is {found}, but {wanted} is needed. Convert the column and ingest again.")


class EmptyInput(EventError):
    code = "empty_input"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} holds no rows. Nothing was changed; check the export that wrote it.")


class UnusableOption(EventError):
    code = "unusable_option"

    def __init__(self, option: str, reason: str) -> None:
        self.option, self.reason = option, reason
        super().__init__(f"{option}: {reason}")


class FeatureError(ScoringError):
    code = "feature_error"


class EmptyLog(FeatureError):
    code = "empty_log"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"There is no event in the log under {path}. Run `inbox ingest --events FILE` first.")


class CatalogueMissing(FeatureError):
    code = "catalogue_missing"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} does not exist: nothing was materialized or trained yet. Run `inbox train` first.")


class FeatureStoreFailed(FeatureError):
    code = "feature_store_failed"

    def __init__(self, action: str, reason: str) -> None:
        self.action, self.reason = action, reason
        super().__init__(f"Feast could not {action}: {reason}. `inbox doctor` says what is missing.")


class StoreUnavailable(FeatureError):
    code = "store_unavailable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The online store cannot be used: {reason}. `inbox doctor` says how it is.")


class InboxUnavailable(FeatureError):
    """Nothing of what was to be written is there: send it again later."""

    code = "inbox_unavailable"

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} cannot be used: {reason}. Try again; look at the disk if it stays so.")


class Unwritable(FeatureError):
    """What was to be written is not there; what was there before still is."""

    code = "unwritable"

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"{path} cannot be written: {reason}. Nothing half-written is read; make room on its disk, or give the right "
            "to write there, and run the same again."
        )


class IdentityUnreadable(FeatureError):
    code = "identity_unreadable"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"{path} does not hold the keys that were written to it. Put it back from a backup: new keys would make "
            "strangers of everybody known by an address."
        )


class MergeRefused(FeatureError):
    code = "merge_refused"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"These two subscribers are not merged: {reason}. Check the ids and their order.")


class DatasetError(ScoringError):
    """Training refuses. ``model`` says which one."""

    code = "dataset_error"

    def __init__(self, model: str, message: str) -> None:
        self.model = model
        super().__init__(f"{model}: {message}")


class NothingEligible(DatasetError):
    code = "nothing_eligible"

    def __init__(self, model: str, rule: str) -> None:
        self.rule = rule
        super().__init__(model, f"no row is eligible ({rule}). Check the log's dates, or ingest a longer history.")


class NoMatureLabels(DatasetError):
    code = "no_mature_labels"

    def __init__(self, model: str, horizon_days: float, history_days: float) -> None:
        self.horizon_days, self.history_days = horizon_days, history_days
        super().__init__(
            model,
            f"a label needs {horizon_days:g} days after it, and the log holds {history_days:.1f} days in all, too few "
            "to train on one part and judge on a later one. Ingest a longer history or give a shorter --horizon.",
        )


class SingleClass(DatasetError):
    code = "single_class"

    def __init__(self, model: str, label: int, rows: int) -> None:
        self.label, self.rows = label, rows
        super().__init__(
            model,
            f"all {rows:,} labels are {label}: there is nothing to tell apart. Check that the log holds the events "
            "this model learns from.",
        )


class TooFewPositives(DatasetError):
    code = "too_few_positives"

    def __init__(self, model: str, rarer: int, needed: int, rows: int) -> None:
        self.rarer, self.needed, self.rows = rarer, needed, rows
        super().__init__(
            model,
            f"the rarer class has {rarer} of {rows:,} rows and {needed} are needed. Ingest a longer history or widen "
            "--horizon.",
        )


class MissingLabels(DatasetError):
    code = "missing_labels"

    def __init__(self, model: str, missing: int, rows: int) -> None:
        self.missing, self.rows = missing, rows
        super().__init__(
            model, f"{missing:,} of {rows:,} labels are missing. Labels are 0 or 1; drop or mend the rows."
        )


class LeakingFeature(DatasetError):
    code = "leaking_feature"

    def __init__(self, model: str, feature: str, auc: float) -> None:
        self.feature, self.auc = feature, auc
        super().__init__(
            model,
            f"the feature {feature} alone tells the answer (AUC {auc:.3f}): it was most likely filled in afterwards. "
            f"Remove the column, or confirm that it is known beforehand with --allow-feature {feature}.",
        )


class ModelError(ScoringError):
    code = "model_error"


class RegistryFailed(ModelError):
    code = "registry_failed"

    def __init__(self, action: str, reason: str) -> None:
        self.action, self.reason = action, reason
        super().__init__(f"MLflow could not {action}: {reason}. `inbox doctor` says what is missing.")


class UnknownModel(ModelError):
    code = "unknown_model"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        self.model, self.known = model, tuple(known)
        super().__init__(f"There is no model {model!r}; there are {', '.join(known)}.")


class UnknownVersion(ModelError):
    code = "unknown_version"

    def __init__(self, model: str, version: str) -> None:
        self.model, self.version = model, version
        super().__init__(f"{model} has no version or alias {version!r}. `inbox models` lists what there is.")


class NeverTrained(ModelError):
    code = "never_trained"

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"{model} was never trained. Run `inbox train {model}` first; it says why where it cannot.")


class PromotionConflict(ModelError):
    code = "promotion_conflict"

    def __init__(self, model: str, expected: str, found: str) -> None:
        self.model, self.expected, self.found = model, expected, found
        super().__init__(
            f"{model}: the champion is {found}, not {expected}: somebody promoted in between. Look at `inbox models` "
            "and promote again."
        )


class PromotionRefused(ModelError):
    code = "promotion_refused"

    def __init__(self, model: str, version: str, reason: str) -> None:
        self.model, self.version, self.reason = model, version, reason
        super().__init__(f"{model} {version} is not promoted: {reason}. Promote it anyway with --force.")


class RollbackRefused(ModelError):
    code = "rollback_refused"

    def __init__(self, model: str, reason: str) -> None:
        self.model, self.reason = model, reason
        super().__init__(
            f"{model} is not rolled back: {reason}. `inbox models {model} --history` shows what served when."
        )


class BundleMissing(ModelError):
    code = "bundle_missing"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"There is no model bundle at {path}. Run `inbox train` and `inbox promote`.")


class BundleCorrupt(ModelError):
    code = "bundle_corrupt"

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"The bundle at {path} is refused: {reason}. Promote again to write it anew.")


class FeatureMismatch(ModelError):
    code = "feature_mismatch"

    def __init__(self, model: str, wanted: Sequence[str], found: Sequence[str]) -> None:
        self.model, self.wanted, self.found = model, tuple(wanted), tuple(found)
        absent = [name for name in wanted if name not in set(found)]
        extra = [name for name in found if name not in set(wanted)]
        super().__init__(
            f"{model} was trained on other features than it is given: absent {absent or 'none'}, unexpected "
            f"{extra or 'none'}{'' if absent or extra else ', same names in another order'}. Train again."
        )


class TrainerFailed(ModelError):
    code = "trainer_failed"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"LightGBM could not do that: {reason}.")


class RequestError(ScoringError):
    code = "request_error"


class MalformedRequest(RequestError):
    code = "malformed_request"

    def __init__(self, field: str, reason: str) -> None:
        self.field, self.reason = field, reason
        super().__init__(f"{field}: {reason}")


class UnknownKey(RequestError):
    code = "unknown_key"

    def __init__(self) -> None:
        super().__init__("A known key is needed: send `Authorization: Bearer KEY`.")


class SlowBody(RequestError):
    code = "slow_body"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"The body did not arrive within {seconds:g} seconds.")


class BodyTooLarge(RequestError):
    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"The body is larger than {limit_bytes:,} bytes. Send or ask for less at a time.")


class NotJson(RequestError):
    code = "not_json"

    def __init__(self) -> None:
        super().__init__("Send the body as application/json.")


class Overloaded(RequestError):
    code = "overloaded"

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The service is busy. Try again in {retry_after_s} s.")


class UntrustedEvents(RequestError):
    """A webhook that is not known to be its provider's. ``reason`` is one of ``REASONS``."""

    code = "untrusted_events"
    REASONS: ClassVar[dict[str, str]] = {
        "unconfigured": "nothing is configured here to know it by. Set its INBOX_ variable and start the service again.",
        "unsigned": "there is no whole signature or credential where it puts one. Turn signing on at the provider.",
        "forged": "the signature or credential does not match. Compare what is configured here and there.",
        "stale": "it was signed too long ago, or ahead of time. Compare the clocks.",
        "foreign": "its topic or certificate is not one that is allowed here.",
        "outdated": "SignatureVersion 2 is needed. Set that attribute of the SNS topic.",
    }

    def __init__(self, provider: str, reason: str) -> None:
        self.provider, self.reason = provider, reason
        super().__init__(f"This is not known to come from {provider}: {self.REASONS[reason]}")


class ReplayedEvents(RequestError):
    code = "replayed_events"

    def __init__(self, provider: str) -> None:
        self.provider = provider
        super().__init__(
            f"A signature of {provider} was used before, for another body. Nothing of this one was taken in."
        )


class EventsNotTaken(RequestError):
    code = "events_not_taken"

    def __init__(self, reason: str, retry_after_s: int = 10) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        super().__init__(f"This is not known to be taken in: {reason}. Send the same again in {retry_after_s} s.")


class NoLeadBook(RequestError):
    code = "no_lead_book"

    def __init__(self) -> None:
        super().__init__(
            "No lead was exported yet, so there is none to show. Run `inbox export leads`, then look again."
        )


class UnknownLead(RequestError):
    code = "unknown_lead"

    def __init__(self) -> None:
        super().__init__(
            "Nobody by this id is among the leads of the newest export: they converted, withheld consent, have no score, "
            "or came later. Check the id, or run `inbox export leads`."
        )


class LeadsUnavailable(RequestError):
    code = "leads_unavailable"

    def __init__(self, reason: str, retry_after_s: int = 5) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        super().__init__(f"Leads cannot be shown just now: {reason}. Try again in {retry_after_s} s.")
