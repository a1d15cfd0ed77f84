"""Where a run came from: the state of the checkout around its recipe."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_state(path: Path) -> dict[str, str | None]:
    """{git_sha, git_diff} of the checkout around this file; None where there is no git or no checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(path.absolute().parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, errors="replace")
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD")
    return {"git_sha": sha.strip() if sha else None, "git_diff": git("diff", "HEAD") if sha else None}
