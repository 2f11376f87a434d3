"""The one exception that reaches the user as a sentence."""

from __future__ import annotations

# Exit codes of every command. `verify` gives 1 to checks that do not hold; the others to a task that failed.
OK = 0
FAILED = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can put right: one sentence that says what, where, the value found and what to do."""

    def __init__(self, sentence: str, exit_code: int = COULD_NOT_RUN) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
