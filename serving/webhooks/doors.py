"""The doors of one installation.

What enters: settings. What leaves: a door for every provider there is. The promise: a provider without a secret has a
closed one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from features.providers import PROVIDERS
from serving.settings import ServingSettings, words
from serving.webhooks.certificates import Certificates
from serving.webhooks.door import Closed, Door
from serving.webhooks.mailgun import MailgunDoor
from serving.webhooks.sendgrid import SendGridDoor, public_key
from serving.webhooks.shared_secret import SharedSecretDoor, credential
from serving.webhooks.sns import SnsDoor


def open_doors(settings: ServingSettings, certificates: Certificates | None = None) -> Mapping[str, Door]:
    """One door for each provider."""
    certificates = certificates or Certificates(settings.ses_certificates)
    max_age_s = settings.webhook_max_age_hours * 3600
    topics = settings.ses_topics.split()
    doors: list[Door] = []
    if keys := words(settings.sendgrid_public_key):
        doors.append(SendGridDoor([public_key(key) for key in keys], max_age_s))
    if keys := words(settings.mailgun_signing_key):
        doors.append(MailgunDoor(keys, max_age_s))
    if topics:
        doors.append(SnsDoor(topics, certificates, max_age_s))
    for provider, secret in _shared(settings).items():
        if known := words(secret):
            doors.append(SharedSecretDoor(provider, [credential(one) for one in known]))
    opened = {door.provider: door for door in doors}
    return {provider: opened.get(provider) or Closed(provider) for provider in PROVIDERS}


def _shared(settings: ServingSettings) -> dict[str, SecretStr]:
    return {
        "postmark": settings.postmark_secret,
        "brevo": settings.brevo_secret,
        "mailjet": settings.mailjet_secret,
    }
