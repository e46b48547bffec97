"""Email service providers' webhooks as events: one file per provider, one pure function each.

What enters: the body of a webhook, verified elsewhere. What leaves: what each item of it says, in ``told``'s three kinds.
The promise: nothing of the content raises, and every item is accounted for.

``PROVIDERS`` maps a provider's name to the function that reads one of its items; ``canonical.canonical`` makes events of
what is found. Weighed: a table of field names per provider instead of functions. What providers differ in is not names but
cases (which bounce is one, whose open it is, which clock is right), and cases read best as code.

What is documented but set aside, everywhere: attempts that will be repeated, because their end is told; and messages not sent
because of an earlier bounce, complaint or opt-out, because that was told when it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from features.payload import as_list, parse, unread
from features.providers.brevo import brevo
from features.providers.mailgun import mailgun
from features.providers.mailjet import mailjet
from features.providers.postmark import postmark
from features.providers.sendgrid import sendgrid
from features.providers.ses import ses
from features.told import Aside, Found, Told, Unread

__all__ = ["PROVIDERS", "Adapter", "Aside", "Found", "Told", "Unread", "read"]

Adapter = Callable[[Any], list[Found]]
"""From one parsed item of a provider's payload to what it says, at least one record."""

PROVIDERS: Mapping[str, Adapter] = {
    "sendgrid": sendgrid,
    "ses": ses,
    "mailgun": mailgun,
    "postmark": postmark,
    "brevo": brevo,
    "mailjet": mailjet,
}


def read(provider: str, body: bytes) -> list[Found]:
    """What a webhook's body says, in its order. A body may hold one item or an array of them, for every provider.

    >>> read("sendgrid", b'[{"event": "processed?"}]')[0].reason
    'event is not one that SendGrid documents'
    """
    try:
        items = as_list(parse(body))
    except ValueError:
        return [unread("the body is no JSON", body.decode("utf-8", "replace"))]
    adapter = PROVIDERS[provider]
    return [found for item in items for found in adapter(item)]
