"""What a renderer installs: scores for the subscriber of the message it is rendering, in time, or the caller's defaults.

A render never fails because of it. Whatever happens to the service, the network or an answer, the caller gets complete
objects, with status ``fallback`` where there was nothing better.

It never imports the service's code and needs nothing but httpx (and Jinja2 for ``inbox_client.jinja``).

Weighed: one core that does no input or output (``core``) and two thin drivers (``clients``), so that the sync and the
async client cannot come to differ; a deadline that binds every operation on the network (``wire``) instead of a thread
per call, which costs more than the call.
"""

from __future__ import annotations

from inbox_client.about import VERSION as __version__
from inbox_client.answers import ChurnAnswer, Defaults, LeadScoreAnswer, SendTimeAnswer, SubscriberScores
from inbox_client.asking import Context
from inbox_client.clients import AsyncScoresClient, ScoresClient
from inbox_client.snapshot import Snapshot
from inbox_client.tally import Stats

__all__ = [
    "AsyncScoresClient",
    "ChurnAnswer",
    "Context",
    "Defaults",
    "LeadScoreAnswer",
    "ScoresClient",
    "SendTimeAnswer",
    "Snapshot",
    "Stats",
    "SubscriberScores",
    "__version__",
]
