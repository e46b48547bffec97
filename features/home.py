"""Where everything lives under one home directory.

What enters: a directory (default: the current one, the repository root) and, for the online store alone, perhaps a
server's URL. What leaves: paths. The promise: no other module joins a path to the home by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

STORE_URL = "INBOX_STORE_URL"
"""The environment variable that ``store_url`` comes from. Only the front doors read it: the verbs' and serving's."""


@dataclass(frozen=True)
class Home:
    """The embedded stores of one installation, all under ``root``.

    Parameters
    ----------
    root
        The installation's directory.
    store_url
        Of the Redis or Valkey server that keeps the online store, ``redis://``, ``rediss://`` or ``unix://``; it may
        hold a password. None: a SQLite file under ``root``. See ``stores.open_store``.
    """

    root: Path
    store_url: str | None = field(default=None, repr=False)

    @property
    def var(self) -> Path:
        return self.root / "var"

    @property
    def event_log(self) -> Path:
        """Directory of the event log: ``events/*.parquet``, ``subscribers.parquet``, ``campaigns.parquet``."""
        return self.var / "log"

    @property
    def merges(self) -> Path:
        """Who is whom, and who is forgotten: beside the log, because it decides what the log says."""
        return self.event_log / "merges.db"

    @property
    def inbox(self) -> Path:
        return self.var / "inbox.db"

    @property
    def identity(self) -> Path:
        """The keys that make subscriber ids of addresses."""
        return self.var / "identity.json"

    @property
    def quarantine(self) -> Path:
        return self.var / "quarantine"

    @property
    def catalogue(self) -> Path:
        return self.var / "catalogue.json"

    @property
    def materialized(self) -> Path:
        """The catalogue by which the online store's rows are laid out and judged."""
        return self.var / "materialized.json"

    @property
    def offline(self) -> Path:
        """Directory of Feast's offline sources, one sub-directory of Parquet files per feature view."""
        return self.var / "feast" / "offline"

    @property
    def registry(self) -> Path:
        return self.var / "feast" / "registry.db"

    @property
    def online(self) -> Path:
        return self.var / "feast" / "online.db"

    @property
    def bundles(self) -> Path:
        """Directory of model bundles: ``{model}/{version}/`` and the pointer ``{model}/current.json``."""
        return self.var / "bundles"

    @property
    def predictions(self) -> Path:
        return self.var / "predictions"

    @property
    def leads(self) -> Path:
        """Directory of the lead books: one Parquet file per export of the whole list."""
        return self.var / "leads"

    @property
    def exports(self) -> Path:
        return self.var / "exports"

    @property
    def reports(self) -> Path:
        return self.var / "reports"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{(self.mlruns / 'mlflow.db').resolve()}"
