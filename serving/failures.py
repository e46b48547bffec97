"""How an unexpected failure is told.

What enters: an exception. What leaves: words for a log line. The promise: nothing that was sent or stored is in them.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from features.errors import ScoringError


def described(error: Exception) -> str:
    """What a log line may say of an unexpected error: its kind and place. Its message may hold what was sent, so it is
    left out unless the error is ours.
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    said = f": {error}" if isinstance(error, ScoringError) else ""
    return f"{type(error).__name__} at {places}{said}"
