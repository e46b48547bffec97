"""`inbox`: the front door.

What enters: a command line. What leaves: an exit code: 0 done, 1 refused or failed for a reason that was said, 2 wrongly
called, 70 a defect of ours. The promise: an error is one sentence with what to do next, never a traceback for a bad file.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer._click import Command
from typer.main import get_command

from features.errors import ScoringError

VERBS = {
    "demo": "Run the whole loop, on a simulated list or on yours.",
    "simulate": "Make a list with a known truth behind it.",
    "ingest": "Take events, subscribers and campaigns into the log.",
    "consume": "Take events in from a stream, as they come.",
    "train": "Train models and register them as challengers.",
    "backtest": "Judge what a model trained until a past moment would have said since.",
    "promote": "Make a registered version the one that serves.",
    "retrain": "Train what is new, judge it, promote what passes. For cron.",
    "rollback": "Make the version that served before serve again.",
    "models": "List versions, their quality and who serves.",
    "monitor": "Hold what was said against what happened: drift, quality, lift.",
    "classify-events": "Say of every event whether a person or a machine made it.",
    "materialize": "Write everybody's state to the online store.",
    "serve": "Answer scores over HTTP.",
    "score": "Score everybody into one table.",
    "export": "Write the lead export a marketer opens.",
    "merge": "Make two subscribers one person.",
    "forget": "Remove a person from everything.",
    "doctor": "Say what is configured, running or missing, and how to mend it.",
}

DEFECT = 70


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit."""
    # As an exception, so that what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one verb; its exit code."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        return _tell_verbs()
    verb, *rest = arguments
    if verb not in VERBS:
        _errors().print(f"[red]inbox:[/] there is no verb {escape(verb)!r}; there are {', '.join(VERBS)}.")
        return 2
    try:
        _verb(verb).main(list(rest), prog_name=f"inbox {verb}")
    except ScoringError as error:
        _errors().print(f"[red]inbox:[/] {escape(str(error))} [dim]({error.code})[/]")
        return 1
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:
        _errors().print("[red]inbox:[/] interrupted")
        return 130
    except Exception:  # noqa: BLE001 - the outermost door
        _errors().print("[red]inbox:[/] a defect of ours; please report what follows.")
        traceback.print_exc()
        return DEFECT
    return 0


def _verb(verb: str) -> Command:
    """A verb's file is loaded when it is called: MLflow and Feast take seconds that `--help` should not."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(verb, short_help=VERBS[verb])(import_module(f"pipelines.verbs.{verb.replace('-', '_')}").command)
    # Vendors' notes to themselves, not to who runs a verb. After the import, because vendors set filters of their own.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    return get_command(app)


def _tell_verbs() -> int:
    table = Table("verb", "what it does", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for verb, words in VERBS.items():
        table.add_row(f"[bold]{verb}[/]", words)
    console = Console(highlight=False)
    console.print("[bold]inbox VERB[/]: send time, churn and lead scores for email lists.\n", table)
    console.print("\n`inbox VERB --help` shows each with an example. New here? Run `inbox demo`.")
    return 0


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)
