"""What a model writes: `python -m hpcft.train.generate ASKED`, from `hpcft generate`; its wishes are JSON in ASKED."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

from hpcft.data.randomness import key
from hpcft.data.rows import in_chunks, rows_behind
from hpcft.disk import make_durable
from hpcft.errors import Fault, UserError
from hpcft.evaluation.generation import complete, make_config, prompt_tokens, room
from hpcft.rowfaults import quoted
from hpcft.rundir import RunDir
from hpcft.sections import Generate
from hpcft.template import PromptTemplate, read_template
from hpcft.textrows import AS_UTF8, Row
from hpcft.train.export import UNASKED_TOKENS, source_of
from hpcft.train.left import load_left
from hpcft.train.model import UNLOADABLE, load_tokenizer, loading_fault, padding_token
from hpcft.train.worker import quiet

WINDOW = 16
"""Batches of a file that are sorted by length at a time; what is written stays in the file's order."""


@dataclass(frozen=True)
class Writer:
    """A model with all that it writes by."""

    model: Any
    tokenizer: Any
    generate: Generate
    template: PromptTemplate | None
    device: torch.device
    half: torch.dtype | None = None
    """What products are made in, on a GPU."""

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt; of one that is too long, its end."""
        most = room(self.model, self.generate)
        found = prompt_tokens(self.tokenizer, prompts)
        return [prompt[max(0, len(prompt) - most) if most else 0 :] for prompt in found]

    def write(self, prompts: Sequence[Sequence[int]], number: int, streamer: Any = None) -> list[str]:
        """The text behind each of these prompts, which are batch `number` of all."""
        config = make_config(self.model, self.tokenizer, self.generate, padding_token(self.tokenizer))
        amp = torch.autocast("cuda", self.half) if self.half else contextlib.nullcontext()
        seed = key(self.generate.seed, "generate", number)
        with amp:
            written = complete(self.model.generate, self.device, config, prompts, seed, streamer=streamer)
        return [str(text) for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def stream(self, prompt: Sequence[int], number: int) -> str:
        """The same of one prompt, printed as it comes."""
        shown = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        return self.write([prompt], number, shown)[0]

    def prompt(self, row: Mapping[str, object]) -> str:
        """The prompt of a row. Raises KeyError for a column that it lacks."""
        if self.template is None:
            return str(row["prompt"])
        return self.template.render({**row, self.template.completion: ""})[0]


def main(text: str) -> int:
    """0 when all is written; 2 for a fault of the user's, which is said."""
    quiet()
    asked = json.loads(text)
    try:
        writer = make_writer(asked)
        if asked["input"]:
            write_file(writer, Path(asked["input"]), Path(asked["output"]) if asked["output"] else None,
                       asked["batch_size"])  # fmt: skip
        elif asked["prompt"] is not None:
            columns = writer.template.columns if writer.template else ["prompt"]
            writer.stream(writer.tokens([writer.prompt({columns[0]: asked["prompt"]})])[0], 0)
        else:
            talk(writer)
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def make_writer(asked: Mapping[str, Any]) -> Writer:
    """The model that is asked for, on a GPU if there is one. Raises UserError if it does not load."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    template = read_template(Path(asked["template"])) if asked["template"] else None
    if not asked["run"]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(asked["model"])
            model: Any = AutoModelForCausalLM.from_pretrained(asked["model"])
        except UNLOADABLE as error:
            raise UserError(loading_fault("model", asked["model"], error)) from error
        generate = settings(Generate(max_new_tokens=UNASKED_TOKENS), asked)
        return Writer(model.to(device).eval(), tokenizer, generate, template, device)
    run = RunDir(Path(asked["run"]))
    recipe, tokenizer = run.recipe, load_tokenizer(source_of(run))
    model = load_left(run, asked["model"], device).inner
    halves = {"fp16": torch.float16, "bf16": torch.bfloat16} if device.type == "cuda" else {}
    half = halves.get(recipe.train.precision)
    default = recipe.evaluate.generate or Generate(max_new_tokens=UNASKED_TOKENS)
    return Writer(model, tokenizer, settings(default, asked), template, device, half)


def settings(default: Generate, asked: Mapping[str, Any]) -> Generate:
    """The recipe's settings, with what the command says in place of some. To name top_k or top_p is to draw."""
    given = asked["settings"]
    if {"top_k", "top_p"} & set(given) and not default.temperature:
        given = {"temperature": 1.0, **given}
    return default.model_copy(update=given)


def write_file(writer: Writer, path: Path, out: Path | None, batch: int) -> None:
    """Put each row of a file, with what is written for it as "generated", on a line of `out`, which is there at the
    end; without `out` it is printed. Raises UserError with the row that has no prompt in it."""
    writing = out.with_name(f".writing-{out.name}") if out else None
    try:
        with writing.open("w", encoding="utf-8") if writing else contextlib.nullcontext(sys.stdout) as file:
            for row in _answered(writer, path, batch):
                print(json.dumps(row, ensure_ascii=False, default=str), file=file, flush=True)
        if writing and out:
            make_durable(writing)
            writing.rename(out)
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {(error.strerror or str(error)).lower()}.")) from error
    finally:
        if writing:
            writing.unlink(missing_ok=True)


def _answered(writer: Writer, path: Path, batch: int) -> Iterator[Row]:
    number, done = 0, 0
    for rows in in_chunks(_rows(path), batch * WINDOW):
        prompts = writer.tokens([_prompt(writer, row, f"{path}, row {done + n}") for n, row in enumerate(rows, 1)])
        order = sorted(range(len(rows)), key=lambda place: len(prompts[place]))
        texts: dict[int, str] = {}
        for first in range(0, len(order), batch):
            places = order[first : first + batch]
            texts |= dict(zip(places, writer.write([prompts[place] for place in places], number), strict=True))
            number += 1
        done += len(rows)
        for place, row in enumerate(rows):
            yield {**row, "generated": texts[place]}


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix != ".txt":
        yield from rows_behind(path, 0)
        return
    try:
        with path.open(encoding="utf-8") as file:
            yield from ({"prompt": line.rstrip("\n")} for line in file if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(Fault(str(path), "is no UTF-8 text.", AS_UTF8)) from error


def _prompt(writer: Writer, row: Row, where: str) -> str:
    try:
        return writer.prompt(row)
    except KeyError as error:
        raise UserError(Fault(where, f'has no column "{error.args[0]}".', f"It has {quoted(row)}.")) from None


def talk(writer: Writer) -> None:
    """Ask for prompts and print what is written behind them, until the input ends; Ctrl-C cuts an answer short."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - arrow keys in input()
    if sys.stdin.isatty():
        print("hpcft: an empty line or Ctrl-D ends this", flush=True)
    said: list[dict[str, str]] = []
    number = 0
    while (prompt := _ask(writer, said)) is not None:
        try:
            text = writer.stream(prompt, number)
        except KeyboardInterrupt:
            print(flush=True)
            del said[-1:]  # without its answer, since chat templates may refuse two questions in a row
        else:
            said.append({"role": "assistant", "content": text})
        number += 1


def _ask(writer: Writer, said: list[dict[str, str]]) -> list[int] | None:
    """Ids of the next prompt: the template's columns, or a line; what was `said` before goes before it where the
    tokenizer has a chat template. None when nothing more comes."""
    chats = writer.template is None and writer.tokenizer.chat_template
    columns = list(dict.fromkeys(writer.template.columns[:-1])) if writer.template else ["prompt"]
    try:
        row = {column: input(f"{column}> " if len(columns) > 1 else "> ") for column in columns}
    except (EOFError, KeyboardInterrupt):
        print(flush=True)
        return None
    if not any(row.values()):
        return None
    if not chats:
        return writer.tokens([writer.prompt(row)])[0]
    said.append({"role": "user", "content": row["prompt"]})
    return _chat(writer, said)


def _chat(writer: Writer, said: list[dict[str, str]]) -> list[int]:
    """Ids of all that was said; where that is too long for the model, the oldest questions go with their answers."""
    most = room(writer.model, writer.generate)
    while True:
        tokens = list(writer.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False))
        if most is None or len(tokens) <= most:
            return tokens
        if len(said) == 1:
            return tokens[-most:]
        del said[:2]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
