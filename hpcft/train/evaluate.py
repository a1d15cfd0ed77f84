"""Evaluation that never touches the training: validation loss, and the choice among given completions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.data.rows import Row
from hpcft.data.selection import Selection
from hpcft.data.source import chosen_rows, in_source, place_of, selection_of
from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.tasks.tokenize import tokenize
from hpcft.template import PromptTemplate, read_template
from hpcft.train.control import Control, Stop
from hpcft.train.model import LossModel


def validation_loss(model: LossModel, features: Features, batch: int, pad: int, control: Control, amp: Any) -> float:
    """Mean loss of a token over all rows, in nats; the same for any number of processes but for rounding.

    Raises Stop on every process if the supervisor asks for it: the step it belongs to is evaluated again then.
    """
    collate = Collator(features, pad)
    # By length, so that hardly anything is padded.
    rows = np.argsort(features.lengths, kind="stable").tolist()
    groups = [[[row] for row in rows[first : first + batch]] for first in range(0, len(rows), batch)]
    device = next(model.parameters()).device
    loss = 0.0
    model.eval()
    try:
        for first in range(0, len(groups), control.ranks):
            control.poll()
            mine = first + control.rank
            # Who has none left does the last once more: of a sharded model a pass needs every process.
            stacked = collate(groups[min(mine, len(groups) - 1)])
            with torch.no_grad(), amp():
                found = float(model(**model.inputs(stacked, device)))
            loss += found if mine < len(groups) else 0.0
    finally:
        release(model)
        model.train()
    return control.total(loss) / int(features.targets.sum())


@dataclass(frozen=True)
class Query:
    """One forward pass of a row: `wanted` are (choice, place, token): the token predicted after a place."""

    row: int
    tokens: list[int]
    wanted: list[tuple[int, int, int]]


@dataclass(frozen=True)
class ChoiceTest:
    """Held-out rows, and the completions of which the likeliest is the model's answer."""

    template: PromptTemplate
    tokenizer: Any
    rows: Sequence[Row]
    choices: tuple[str, ...]
    max_length: int
    path: Path = Path("test rows")
    selection: Selection | None = None
    """Which rows of the path these are; None for all."""

    def check(self) -> None:
        """Raise UserError with the rows whose completion is none of the choices, or that lack a column."""
        faults = []
        for number, row in enumerate(self.rows, 1):
            where = f"{self.path}, row {number}"
            if missing := [column for column in self.template.columns if row.get(column) is None]:
                faults.append(Fault(where, f'has no "{missing[0]}".'))
            elif str(row[self.template.completion]) not in self.choices:
                what = f'"{row[self.template.completion]}" is none of evaluate.choices.'
                faults.append(Fault(where, what, f"Known: {', '.join(self.choices)}."))
        if faults:
            raise in_source(UserError(faults), self.path, self.selection)

    def queries(self, row: int) -> list[Query]:
        """The passes that score every choice of a row: one if all are one token behind the same prompt."""
        prompt, _ = self.template.render(self.rows[row])
        texts = tokenize(self.tokenizer, [prompt + choice for choice in self.choices])
        found = []
        for choice, text in enumerate(texts):
            first = next(place for place, end in enumerate(text.ends) if end > len(prompt))
            cut = max(0, len(text.tokens) - self.max_length)  # at the front: the choice must stay
            tokens = text.tokens[cut:]
            wanted = [(choice, place - 1, tokens[place]) for place in range(first - cut, len(tokens))]
            found.append(Query(row, tokens[:-1], wanted))
        alike = {tuple(query.tokens) for query in found}
        if len(alike) == 1:
            return [Query(row, found[0].tokens, [item for query in found for item in query.wanted])]
        return found

    def scores(self, model: LossModel, queries: Sequence[Query], pad: int) -> Tensor:
        """(queries, choices): log-probability of each choice's tokens; 0 where a query asks nothing of it."""
        device = next(model.parameters()).device
        longest = max(len(query.tokens) for query in queries) + 1
        tokens = torch.full((len(queries), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        places = torch.zeros((len(queries), longest), dtype=torch.bool)
        for index, query in enumerate(queries):
            tokens[index, : len(query.tokens)] = torch.tensor(query.tokens)
            mask[index, : len(query.tokens)] = 1
            places[index, [place for _, place, _ in query.wanted]] = True
        shown = mask.to(device) if model.needs_mask else None
        logits = model.logits(tokens.to(device), places.flatten().nonzero()[:, 0].to(device), shown)
        predicted = torch.log_softmax(logits.float(), dim=-1).cpu()
        where = {tuple(place): index for index, place in enumerate(places.nonzero().tolist())}
        scores = torch.zeros((len(queries), len(self.choices)))
        for index, query in enumerate(queries):
            for choice, place, token in query.wanted:
                scores[index, choice] += predicted[where[index, place], token]
        return scores

    def report(self, answers: dict[int, int]) -> dict[str, Any]:
        """{accuracy, majority, rows, confusion, ...} for a full set of answers, row to choice."""
        truth = [str(row[self.template.completion]) for row in self.rows]
        counts = {label: truth.count(label) for label in self.choices}
        confusion = [[0] * len(self.choices) for _ in self.choices]
        for row, choice in answers.items():
            if truth[row] in counts:
                confusion[self.choices.index(truth[row])][choice] += 1
        right = sum(self.choices[choice] == truth[row] for row, choice in answers.items())
        return {
            "accuracy": right / len(truth),
            "majority": max(truth.count(label) for label in set(truth)) / len(truth),
            "rows": len(truth),
            "choices": list(self.choices),
            "confusion": confusion,
        }


def choice_test(recipe: Recipe, tokenizer: Any, store: Path | None = None) -> ChoiceTest | None:
    """The test that the recipe asks for; None if it asks for none. `store` is where runs keep their choice of rows."""
    data, choices = recipe.data, recipe.evaluate.choices
    if choices is None or not data.has("test") or data.template is None:
        return None
    template = read_template(Path(data.template))
    selection = selection_of(recipe, "test", store, tokenizer)
    rows = list(chosen_rows(recipe, "test", selection))
    return ChoiceTest(template, tokenizer, rows, choices, data.max_length, place_of(recipe, "test"), selection)


def choose(
    test: ChoiceTest, model: LossModel, out: Path, batch: int, pad: int, control: Control, amp: Any
) -> dict[str, Any]:
    """The report of a test, also written to `out`. What a stop interrupts is kept beside it and gone on from."""
    if (done := read_json(out)) is not None:
        return done
    part = out.with_suffix(".part.json")
    answers = {int(row): choice for row, choice in (read_json(part) or {}).items()}
    out.parent.mkdir(exist_ok=True, mode=0o700)
    started, known = time.monotonic(), len(answers)
    stopped = False
    model.eval()
    try:
        for mine in _turns(test, answers, batch, control):
            with torch.no_grad(), amp():
                answers |= _answer(test, model, mine, pad)
    except Stop:
        stopped = True
    release(model)
    model.train()
    everyone = {row: choice for theirs in control.gather(answers) for row, choice in theirs.items()}
    report = {} if stopped else {**test.report(everyone), "seconds": time.monotonic() - started}
    if control.rank == 0 and not stopped:
        write_json(out, report)
        part.unlink(missing_ok=True)
    elif control.rank == 0 and len(everyone) > known:  # else it would look as if this job had got further
        write_json(part, everyone)
    control.wait()
    if stopped:
        raise Stop
    return report


def _answer(test: ChoiceTest, model: LossModel, rows: Sequence[int], pad: int) -> dict[int, int]:
    """The likeliest choice of each of these rows."""
    queries = [query for row in rows for query in test.queries(row)]
    scores = test.scores(model, queries, pad)
    owner = torch.tensor([query.row for query in queries])
    return {row: int(scores[owner == row].sum(0).argmax()) for row in rows}


def _turns(test: ChoiceTest, answers: dict[int, int], batch: int, control: Control) -> Iterator[list[int]]:
    """This process's rows, `batch` at a time, as many turns on every process, where need be the last rows again.

    Raises Stop.
    """
    todo = sorted(set(range(len(test.rows))) - set(answers), key=lambda row: (len(str(test.rows[row])), row))
    groups = [todo[first : first + batch] for first in range(0, len(todo), batch)]
    for first in range(0, len(groups), control.ranks):
        if control.stop_requested():
            raise Stop
        yield groups[min(first + control.rank, len(groups) - 1)]


def release(model: LossModel) -> None:
    """Let go of what a sharded model has gathered for a forward pass that no backward pass follows."""
    for module in model.modules():
        if reshard := getattr(module, "reshard", None):
            reshard()
