"""What a user can do wrong, said once and whole: a list of faults, each with where, what, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str
    """File with line, or command with argument: `jobs/demo.yaml:12`."""
    what: str
    """What is wrong there, with the value as it was given."""
    fix: str = ""
    """What to write or do instead, where that is known."""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what} {self.fix}".rstrip()
        return text.replace("\n", "\\n")  # a fault is one line, even where a file's name is two


class UserError(Exception):
    """All the faults of one command; the command line prints them and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        self.faults = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`Did you mean "seed"?` for a near miss, else the whole menu of what is known."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else f"Known here: {', '.join(sorted(known))}."
