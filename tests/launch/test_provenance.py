"""Provenance: what is recorded of the checkout, whatever the user has told git."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hpcft.launch.provenance import git_state


def test_the_diff_is_gits_own_and_starts_none_of_the_users_programs(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    file = tmp_path / "demo.yaml"
    file.write_text("steps: 1\n")
    (tmp_path / ".gitattributes").write_text("*.yaml diff=mine\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    file.write_text("steps: 2\n")
    for key in ("diff.external", "diff.mine.textconv", "diff.mine.command"):
        git("config", key, f"touch {tmp_path}/started; echo other words #")
    git("config", "color.ui", "always")
    diff = git_state(file)["git_diff"]
    assert diff.endswith("@@ -1 +1 @@\n-steps: 1\n+steps: 2\n")
    assert not (tmp_path / "started").exists()
