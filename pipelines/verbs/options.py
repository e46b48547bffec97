"""Options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from features.clock import parse_duration
from features.contract import MODELS
from features.errors import UnknownModel, UnusableOption
from features.home import STORE_URL, Home
from features.resp import Address

HomeOption = Annotated[
    Path, typer.Option("--home", help="Directory of the installation; its stores are under var/ and mlruns/.")
]
ModelsArgument = Annotated[
    list[str] | None, typer.Argument(help=f"Which models: {', '.join(MODELS)}. All of them unless given.")
]
HorizonOption = Annotated[
    list[str] | None,
    typer.Option("--horizon", help="Label horizon of a model, like `churn=90d` or `send_time=8d`. May be repeated."),
]
AllowFeatureOption = Annotated[
    list[str] | None, typer.Option(help="A feature that may tell the answer alone. May be repeated.")
]
HERE = Path()


def home_at(path: Path) -> Home:
    """The home there, with the online store that ``INBOX_STORE_URL`` names, if it does.

    Raises
    ------
    UnusableOption
        When a file is in its place, or the URL is none.
    """
    if path.exists() and not path.is_dir():
        raise UnusableOption("--home", f"{path} is a file; give a directory")
    store_url = os.environ.get(STORE_URL) or None
    if store_url:
        Address.parse(store_url)
    return Home(path, store_url)


def chosen_models(models: Sequence[str] | None) -> list[str]:
    """The asked models, or all.

    Raises
    ------
    UnknownModel
    """
    for model in models or ():
        if model not in MODELS:
            raise UnknownModel(model, MODELS)
    return list(models or MODELS)


def horizons(texts: Sequence[str] | None) -> dict[str, timedelta]:
    """
    >>> horizons(["churn=90d"])
    {'churn': datetime.timedelta(days=90)}
    """
    found = {}
    for text in texts or ():
        model, _, duration = text.partition("=")
        if model not in MODELS:
            raise UnusableOption("--horizon", f"{text!r} names no model; write it like churn=90d")
        found[model] = parse_duration(duration, f"--horizon {model}")
    return found
