"""Slurm's accounts: what became of one job, whom it was ended by, and what memory it used; by one sacct call."""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass

from hpcft.errors import UserError
from hpcft.launch.slurm import call
from hpcft.schema import memory_bytes

FIELDS = "JobIDRaw,State,ExitCode,NodeList,ReqMem,MaxRSS,Timelimit,Elapsed"


@dataclass(frozen=True)
class Account:
    """What accounting says of one job, in its last attempt."""

    state: str
    """Slurm's word: `OUT_OF_MEMORY`, `CANCELLED`."""
    ended_by: str | None
    """Who cancelled it, by name where there is one."""
    exit_code: str
    """`code:signal` of the batch process."""
    node: str
    asked_memory: int | None
    """Bytes."""
    used_memory: int | None
    """Bytes, the most that one of its steps used as far as Slurm sampled it."""
    timelimit: str
    elapsed: str


def account(slurm_id: str) -> Account | None:
    """What accounting says of this job; None where a site has none, or it does not know the job."""
    try:
        output = call("sacct", "-n", "-P", "-o", FIELDS, "-j", slurm_id)
    except UserError:
        return None
    rows = [(line.split("|") + [""] * 7)[:8] for line in output.splitlines() if line]
    whole = [row for row in rows if row[0] == slurm_id]
    if not whole:
        return None
    _, state, exit_code, node, asked, _, limit, elapsed = whole[-1]
    used = [size for row in rows if (size := memory_bytes(row[5], "")) is not None]
    word = (state.split() or ["UNKNOWN"])[0].rstrip("+")
    by = re.search(r"by (\d+)", state)
    name = user_name(by[1]) if by else None
    return Account(word, name, exit_code, node, memory_bytes(asked, ""), max(used, default=None), limit, elapsed)


def user_name(number: str) -> str:
    """The name of a user by number, or the number where this machine knows no name."""
    try:
        return pwd.getpwuid(int(number)).pw_name
    except KeyError:
        return f"user {number}"
