"""What a list says about itself: `list.toml` beside its events.

What enters: an optional file with a name, an origin, a licence, caveats, a default time zone and label horizons. What
leaves: an ``About``, kept with the log. The promise: whether a list is simulated is said by the list and travels with
every place its data is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import orjson

from features.clock import parse_duration
from features.contract import MODELS
from features.errors import UnusableOption
from features.home import Home

FILE_NAME = "list.toml"

_TYPES = {"simulated": bool, "caveats": list, "horizons": dict}
"""What each entry must be; a text where nothing is said."""
_WANTED = {str: "a text", bool: "true or false", list: "a list of texts", dict: 'a table of texts, like churn = "90d"'}


@dataclass(frozen=True)
class About:
    """A list's own words. ``horizons`` maps a model's name to a duration such as ``90d``."""

    name: str = "your list"
    simulated: bool = False
    origin: str = ""
    licence: str = ""
    default_timezone: str = "UTC"
    caveats: tuple[str, ...] = ()
    horizons: Mapping[str, str] = field(default_factory=dict)
    given: bool = False
    """Whether there was a `list.toml` that said so."""

    @property
    def title(self) -> str:
        return f"{self.name} (SIMULATED)" if self.simulated else self.name

    def horizon(self, model: str) -> timedelta | None:
        """The list's own label horizon for a model, if it has one."""
        text = self.horizons.get(model)
        return None if text is None else parse_duration(text, f"{FILE_NAME} horizons.{model}")

    def save(self, home: Home) -> None:
        """Keep it with the log. Words a list gave before outlast a later file that comes without any."""
        if not self.given and _kept(home).exists():
            return
        home.var.mkdir(parents=True, exist_ok=True)
        path = _kept(home)
        beside = path.with_suffix(".tmp")
        beside.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        beside.replace(path)


def about_files(events: Path) -> About:
    """What `list.toml` in the directory of an events file says; without one, only the directory's name.

    Raises
    ------
    UnusableOption
        When the file is no TOML, or says something that is not understood.
    """
    directory = events if events.is_dir() else events.parent
    path = directory / FILE_NAME
    if not path.exists():
        return About(name=directory.resolve().name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableOption(str(path), f"is no TOML file: {error}") from error
    return _checked(path, raw)


def about_home(home: Home) -> About:
    """What was last ingested under a home; the defaults when nothing was.

    Raises
    ------
    UnusableOption
        When what was kept is damaged.
    """
    path = _kept(home)
    if not path.exists():
        return About()
    try:
        raw = orjson.loads(path.read_bytes())
        return About(**(raw | {"caveats": tuple(raw["caveats"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise UnusableOption(str(path), "cannot be read; remove it and ingest again") from error


def _kept(home: Home) -> Path:
    return home.var / "list.json"


def _checked(path: Path, raw: Mapping[str, Any]) -> About:
    known = set(About.__dataclass_fields__) - {"given"}
    strange = sorted(set(raw) - known)
    if strange:
        raise UnusableOption(str(path), f"does not know {', '.join(strange)}; it may say {', '.join(sorted(known))}")
    for name, value in raw.items():
        wanted = _TYPES.get(name, str)
        if not isinstance(value, wanted) or not all(isinstance(text, str) for text in _texts(value)):
            raise UnusableOption(str(path), f"{name} is not {_WANTED[wanted]}")
    others = sorted(set(raw.get("horizons", {})) - set(MODELS))
    if others:
        raise UnusableOption(str(path), f"horizons knows no {', '.join(others)}; there are {', '.join(MODELS)}")
    about = About(**(dict(raw) | {"caveats": tuple(raw.get("caveats", ())), "given": True}))
    if about.default_timezone not in available_timezones():
        raise UnusableOption(str(path), f"default_timezone {about.default_timezone!r} is no IANA time zone")
    for model in about.horizons:
        about.horizon(model)
    return about


def _texts(value: Any) -> list[Any]:
    """What a list or table holds."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
