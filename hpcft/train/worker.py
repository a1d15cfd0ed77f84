"""One training process. `python -m hpcft.train.worker RUN NUMBER ATTEMPT SCRATCH`, started by the supervisor."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hpcft.disk import write_json
from hpcft.errors import UserError
from hpcft.rundir import RunDir
from hpcft.train.prefetch import read_ahead
from hpcft.train.progress import first_progress


def main(run_path: str, number: str, attempt: str, scratch: str) -> int:
    """0 when the run is finished or stopped with everything saved; 2 for a fault of the user's, which is written."""
    run = RunDir(Path(run_path))
    job = run.job(int(number), int(attempt))
    quiet()
    progress = first_progress(Path(scratch))
    if begun := (job.started or {}).get("time"):
        progress.start["launch"] = max(0.0, time.time() - begun)
    read_ahead(run)
    # Here and not at the top: what fails in these imports is a fault of the env, and should read so in the log.
    with uncollected():
        from accelerate.utils import release_memory

        from hpcft.train.control import Stop
        from hpcft.train.loop import PHASE_OVER, train
        from hpcft.train.setup import set_up
    progress.lap("imports")
    try:
        # No name for the training: the memory of one phase's is needed for the next one's.
        while train(set_up(run, job, Path(scratch), progress)) == PHASE_OVER:
            release_memory()
    except Stop:
        return 0
    except UserError as error:
        print(f"hpcft: {error}", file=sys.stderr, flush=True)
        what = [f"{fault.where}: {fault.what}" for fault in error.faults]
        fact = {"reason": "\n".join(what), "fix": " ".join(dict.fromkeys(fault.fix for fault in error.faults))}
        write_json(job.path / "fault.json", fact)
        return error.exit_code
    return 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for garbage: what modules make stays, and torch's and transformers' 2,500 cost a quarter
    less time so. They are left out of later searches too."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def quiet() -> None:
    """Keep libraries from filling the log with bars that nobody watches."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Where it is imported already, it has asked the environment before.
    if (imported := sys.modules.get("transformers.utils.logging")) and not sys.stderr.isatty():
        imported.disable_progress_bar()


def leave(main: Callable[..., int]) -> NoReturn:
    """End this process with the exit code of `main`, called with the command line's words."""
    try:
        code = main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    # Straight out: torch.distributed's own clean-up may wait for a rank that has failed.
    os._exit(code)


if __name__ == "__main__":
    leave(main)
