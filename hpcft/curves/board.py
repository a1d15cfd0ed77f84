"""TensorBoard as hpcft starts it: `python -P board.py` with JSON on stdin, which no other user can read.

It has its own python, which need not find hpcft. `{"arguments": […], "pages": {"by-job": [[1, "?…"], [null, "?…"]]}}`:
the arguments are TensorBoard's own, and `/PREFIX/by-job` leads to the query of the first number that is no less than
that of the runs in the logdir.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from absl import app
from tensorboard import default, main_lib, program

Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""As WSGI has it."""


def with_pages(application: Answer, prefix: str, logdir: str, pages: dict[str, list[tuple[int | None, str]]]) -> Answer:
    """TensorBoard's answers, and ours to the short pages."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/font-roboto/"):  # TensorBoard 2.21 asks for its fonts without the prefix
            environ["PATH_INFO"] = prefix + path
        queries = pages.get(path.removeprefix(f"{prefix}/")) if path.startswith(prefix) else None
        if queries is None:
            return application(environ, start_response)
        runs = sum(entry.is_dir() for entry in os.scandir(logdir))
        query = next(query for limit, query in queries if limit is None or runs <= limit)
        start_response("302 Found", [("Location", f"{prefix}/{query}"), ("Cache-Control", "no-store")])
        return [b""]

    return answer


def main() -> None:
    """Serve until killed; exit code 255, with the reason on stderr, if it cannot."""
    given = json.load(sys.stdin)
    sys.argv[1:] = given["arguments"]

    def serve(application: Answer, flags: Any) -> program.WerkzeugServer:
        return program.WerkzeugServer(with_pages(application, flags.path_prefix, flags.logdir, given["pages"]), flags)

    main_lib.global_init()
    board = program.TensorBoard(default.get_plugins(), server_class=serve)
    app.run(board.main, flags_parser=board.configure)


if __name__ == "__main__":
    main()
