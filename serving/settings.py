"""Where things are and how much is allowed: read once, when the service starts.

What enters: the environment (``INBOX_…``). What leaves: frozen settings. The promise: an unusable value stops the
start with its variable's name; nothing reads the environment afterwards. Secrets among them (a password in the online
store's URL, what webhooks are known by) are masked wherever settings are shown; API keys are hashes on disk.

While a provider's secret is changed, its variable holds the old and the new one, with a blank between them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from pydantic import AwareDatetime, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.errors import UnusableOption
from features.home import Home
from serving.schemas import MAX_IDS
from serving.webhooks.sendgrid import public_key
from serving.webhooks.shared_secret import FORMS, credential

PREFIX = "INBOX_"


class ServingSettings(BaseSettings):
    """Each field is an environment variable, ``INBOX_HOME`` and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    home: Path = Field(default=Path(), description="The installation's directory; its stores are under var/.")
    keys_file: Path | None = Field(
        default=None, description="Hashes of the API keys; var/keys.json of the home unless given."
    )
    body_limit_bytes: int = Field(
        default=1_048_576, gt=0, description="1,000 ids of 256 four-byte characters just fit."
    )
    body_deadline_s: float = Field(default=5.0, gt=0, description="By when a whole body must have arrived.")
    answer_deadline_s: float = Field(default=10.0, gt=0, description="Ends what hangs; an answer takes milliseconds.")
    max_ids: int = Field(default=MAX_IDS, ge=1, le=MAX_IDS)
    max_in_flight: int = Field(
        default=128,
        ge=1,
        description="Accepted requests at once, a quarter of them bulk; further ones are shed with 429.",
    )
    bulk_wait_s: float = Field(
        default=1.0, gt=0, description="Bulk requests are shed while more work than this waits before them."
    )
    store_url: SecretStr | None = Field(
        default=None,
        description="Redis or Valkey that keeps the online store, redis://, rediss:// or unix://; without it, SQLite.",
    )
    store_budget_ms: float = Field(
        default=25.0,
        gt=0,
        description="What a read of the online store may cost; one that takes longer counts as down.",
    )
    stale_after_hours: float = Field(default=36.0, gt=0, description="Features older than this are labelled stale.")
    now: AwareDatetime | None = Field(
        default=None, description="Pretend to start at this instant, to replay an old log."
    )
    webhook_limit_bytes: int = Field(default=4_194_304, gt=0, description="Of one body with a batch of events.")
    max_webhooks: int = Field(
        default=32,
        ge=1,
        description="Bodies of events of one provider taken in at once; further ones are shed with 429, to come again.",
    )
    webhook_max_age_hours: float = Field(
        default=48.0,
        gt=0,
        le=24 * 30,
        description="Signatures older than this are refused; providers repeat for a day and more. Tokens that were used "
        "are remembered for 35 days.",
    )
    sendgrid_public_key: SecretStr = Field(
        default=SecretStr(""), description="The verification key that SendGrid shows for its signed event webhook."
    )
    mailgun_signing_key: SecretStr = Field(default=SecretStr(""), description="Mailgun's HTTP webhook signing key.")
    ses_topics: str = Field(
        default="", description="ARNs of the SNS topics that SES publishes to, with blanks between them."
    )
    ses_certificates: Path | None = Field(
        default=None,
        description="Directory of SNS's signing certificates under their own names; without it, they are fetched.",
    )
    postmark_secret: SecretStr = Field(default=SecretStr(""), description=f"Postmark's credentials, {FORMS}.")
    brevo_secret: SecretStr = Field(default=SecretStr(""), description=f"Brevo's credentials, {FORMS}.")
    mailjet_secret: SecretStr = Field(default=SecretStr(""), description=f"Mailjet's credentials, {FORMS}.")
    docs_open: bool = Field(default=True, description="Whether the API's description can be read without a key.")

    @field_validator("sendgrid_public_key")
    @classmethod
    def _check_public_key(cls, value: SecretStr) -> SecretStr:
        for word in words(value):
            public_key(word)
        return value

    @field_validator("postmark_secret", "brevo_secret", "mailjet_secret")
    @classmethod
    def _check_credentials(cls, value: SecretStr) -> SecretStr:
        for word in words(value):
            credential(word)
        return value

    @property
    def stores(self) -> Home:
        return Home(self.home, (self.store_url or SecretStr("")).get_secret_value() or None)

    @property
    def keys(self) -> Path:
        return self.keys_file or self.stores.var / "keys.json"

    @property
    def stale_after(self) -> timedelta:
        return timedelta(hours=self.stale_after_hours)

    def clock(self) -> Callable[[], datetime]:
        """Tell the time in UTC; with ``now`` set, time begins there and passes at its usual pace."""
        if self.now is None:
            return lambda: datetime.now(UTC)
        start, since = self.now.astimezone(UTC), monotonic()
        return lambda: start + timedelta(seconds=monotonic() - since)


def words(secret: SecretStr) -> list[str]:
    """The secrets in a variable."""
    return secret.get_secret_value().split()


def read_settings() -> ServingSettings:
    """Read the environment.

    Raises
    ------
    UnusableOption
        With the name of the variable that cannot be used.
    """
    try:
        return ServingSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise UnusableOption(PREFIX + "_".join(map(str, first["loc"])).upper(), first["msg"]) from None
