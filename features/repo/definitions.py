"""What `feast -c features/repo apply` registers: module-level names, because that is where Feast looks for them.

What enters: the catalogue of the default home, or of the one that ``INBOX_HOME`` names. What leaves: Feast objects. The
promise: the only file that creates them as module-level names, so that Feast never sees one twice.
"""

from __future__ import annotations

import os
from pathlib import Path

from features.catalogue import Catalogue
from features.home import Home
from features.views import define

home = Home(Path(os.environ.get("INBOX_HOME") or Path(__file__).resolve().parents[2]))
definitions = define(Catalogue.known(home.catalogue), home.offline)

# Feast imports this file only to apply it. It makes the registry's own directory, but no parent of it.
home.registry.parent.mkdir(parents=True, exist_ok=True)

project = definitions.project
subscriber = definitions.entity
engagement_velocity, recency, spending, content_affinity, send_time_profile, profile = definitions.views
churn, lead_score, send_time = definitions.services
