"""A copy's server gave no scores: was it the copy, or the machine, or we?

Only what is the copy's own doing may count as a fault that was seen. Three things are: an engine
that refuses the checkpoint in its own words, log-probabilities that are no numbers, and an engine
whose log says what it died of. A deadline, a full memory, a signal, a lost connection, or a request
of ours that is called wrong would have met any checkpoint.
"""

from __future__ import annotations

import re
import time
from typing import Final

from fixtures.running import Running
from fixtures.serving import log as server_log
from fixtures.serving.server import Refused

# fixtures/serving/client.py and probe.py, where an answer holds a NaN or an infinity
_NUMBERS: Final = re.compile(
    r"log-probability of .* is (?:null|\S+, not a number)|log-probabilities hold a NaN|"
    r"Out of range float values"
)
# fixtures/serving/server.py and log.py, where the engine said nothing of a cause
_WORDLESS: Final = re.compile(r"exited with|ended by|its watchdog|its first (?:request|answer)")
# Ours, the system's and vLLM's words for what no checkpoint brings about.
_ELSEWHERE: Final = re.compile(
    r"not ready after|silent for|no answer within|timed? ?out|timeout"
    r"|out of memory|OutOfMemory|cannot allocate memory|MemoryError|free memory|available memory"
    r"|no space left|too many open files|read-only file system|permission denied"
    r"|SIG(?:KILL|TERM|INT|HUP)|address already in use|connection|broken pipe|NCCL|gloo"
    r"|ModuleNotFoundError|ImportError|FileNotFoundError",
    re.IGNORECASE,
)
DYING_S: Final = 5.0  # an engine answers its last request first, and logs the reason after


def blamed(running: Running | None, error: Exception) -> str | None:
    """Why the copy itself is to blame for `error`; None where it is not known to be."""
    if running is None:
        return None
    if isinstance(running.outcome, Refused):
        stage, reason = running.outcome.stage, running.outcome.reason
        own = _NUMBERS.search(reason) or not (_WORDLESS.match(reason) or _ELSEWHERE.search(reason))
        return f"the engine, at {stage}: {reason}" if own else None
    if _NUMBERS.search(str(error)):
        return str(error)
    deadline = time.monotonic() + DYING_S
    while running.outcome.alive():
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    cause = server_log.reason(running.log.read_text(errors="replace"))
    if cause is None or _ELSEWHERE.search(cause):
        return None
    return f"the engine, which died: {cause}"
