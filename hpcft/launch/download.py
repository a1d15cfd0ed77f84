"""Brings one model from the hub into its cache. `python -m hpcft.launch.download MODEL REVISION CACHE`, by fetch.py.

It runs in the env of the jobs, perhaps on another machine, and says on stdout in lines of JSON how far it is: first
{commit, files, bytes}, then {done} again and again, then {folder} or {fault: {what, fix}}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcft.launch.weights import FORMS, shards

ANSWER_EVERY = 0.5
"""Seconds between two reports."""
AT_ONCE = 4
"""Files under way together."""
BESIDE_WEIGHTS = re.compile(r"[^/]+\.(json|txt|model|jinja|tiktoken)")
"""What a model's folder holds beside its weights: config, tokenizer, templates; nothing of its subfolders."""

FAULTS = (
    ("GatedRepoError", "is gated.", "Accept its terms at {url}, then `hf auth login` or set HF_TOKEN."),
    ("RepositoryNotFoundError", "is not on the hub, or is private.", "Check model.path at {url}, or set HF_TOKEN."),
    ("RevisionNotFoundError", "has no revision {revision}.", "Its branches, tags and commits are at {url}."),
    ("HFValidationError", "is no hub id.", "Write owner/name."),
    *(
        (name, "cannot be fetched: the hub does not answer.", "Fetch where there is internet (transfer_options).")
        for name in ("ConnectError", "ConnectionError", "TimeoutException", "ProxyError", "LocalEntryNotFoundError")
    ),
    ("TransportError", "broke off on its way.", "Fetch again: files that came whole are kept."),
)
"""What the hub's own errors mean, by a name among their classes, whose modules have moved between its versions."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """What and fix of a fault of our own."""


def main(model: str, revision: str, cache: str) -> int:
    """0 with the model whole in the cache; 2 after a fault has been said."""
    try:
        say(folder=str(download(model, revision, Path(cache))))
    except Exception as error:
        what, fix = explain(error, model, revision, cache)
        say(fault={"what": what, "fix": fix})
        return 2
    return 0


def download(model: str, revision: str, cache: Path) -> Path:
    """The folder of the snapshot, whole; what an earlier call has brought is not brought again."""
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(model, revision=revision, files_metadata=True)
    commit = str(info.sha)
    sizes = {str(file.rfilename): int(file.size or 0) for file in info.siblings or ()}

    def bring(name: str) -> Path:
        return Path(hf_hub_download(model, name, revision=commit, cache_dir=cache))

    names = list(chosen(sizes, bring))
    folder = bring("config.json").parent
    total = sum(sizes[name] for name in names)
    say(commit=commit, files=len(names), bytes=total)
    lacking = total - arrived(folder, names, sizes)
    if (free := shutil.disk_usage(cache).free) < lacking:
        raise Refused(f"needs {lacking / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free in {cache}.", "Make room.")
    with reporting(lambda: arrived(folder, names, sizes)), ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(bring, names):
            pass
    if revision != commit:  # last, so that what a branch or tag leads to in the cache is always whole
        reference = folder.parent.parent / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        temporary = reference.with_name(f".{reference.name}.{os.getpid()}")
        temporary.write_text(commit)
        temporary.replace(reference)
    return folder


def chosen(names: Collection[str], bring: Callable[[str], Path]) -> Iterator[str]:
    """The files of a repository that a job needs: small ones, and the weights in one format, safetensors if it can be.

    `bring` gets the index of weights in several files.
    """
    if "config.json" not in names:
        raise Refused("holds no config.json, so it is no model of transformers.", "Name another model.path.")
    indices = {index for _, index in FORMS}
    yield from sorted(name for name in names if BESIDE_WEIGHTS.fullmatch(name) and name not in indices)
    for single, index in FORMS:
        if single in names:
            yield single
            return
        if index in names:
            yield index
            parts = sorted(set(shards(bring(index))))
            if not parts or not set(parts) <= set(names):
                raise Refused(f"lacks files that its {index} names.", "Name another model.path or revision.")
            yield from parts
            return
    raise Refused("holds no weights that transformers reads (safetensors or bin).", "Name another model.path.")


def arrived(folder: Path, names: Collection[str], sizes: Mapping[str, int]) -> int:
    """Bytes of these files that are here, whole or in part."""
    whole = sum(sizes[name] for name in names if (folder / name).exists())
    parts = 0
    for path in (folder.parent.parent / "blobs").glob("*.incomplete"):
        with contextlib.suppress(OSError):  # it has just been finished
            parts += path.stat().st_size
    return min(whole + parts, sum(sizes[name] for name in names))


@contextlib.contextmanager
def reporting(done: Callable[[], int]) -> Iterator[None]:
    """Say again and again how far it is, while a block runs."""
    over = threading.Event()

    def report() -> None:
        while not over.wait(ANSWER_EVERY):
            say(done=done())

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def explain(error: Exception, model: str, revision: str, cache: str) -> tuple[str, str]:
    """What went wrong, to stand behind the model's name, and what to do."""
    if isinstance(error, Refused):
        return str(error.args[0]), str(error.args[1])
    if isinstance(error, ModuleNotFoundError):
        return f"cannot be fetched: the env {sys.prefix} has no {error.name}.", "Install transformers there."
    classes = [kind.__name__ for kind in type(error).__mro__]
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{model}"
    for name, what, fix in FAULTS:
        if name in classes:
            return what.format(revision=revision), fix.format(url=url)
    if isinstance(error, OSError) and error.errno in FULL:
        return f"does not fit on the disk of {cache}.", "Make room, then fetch again: it goes on where it stopped."
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be written to {cache}: {(error.strerror or str(error)).lower()}.", "Name another cache."
    words = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be fetched: {words}", ""


def say(**facts: Any) -> None:
    """One line for whoever started us."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a thread that still waits for the network keeps nobody here
