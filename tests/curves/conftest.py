"""A fixture for the tests that need a real TensorBoard."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcft.curves.server import TensorBoard, start_tensorboard

Start = Callable[[Path, str], TensorBoard]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, "true" with the data server, "false" with the Python loader, and ends them all."""
    servers: list[TensorBoard] = []

    def begin(view: Path, load_fast: str) -> TensorBoard:
        servers.append(start_tensorboard(view, extra=["--load_fast", load_fast, "--reload_interval", "1"]))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
