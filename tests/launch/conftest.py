"""The fixture `desk`: a good recipe in the current folder, and the command beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.desk import Desk, make_desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)
