"""The choice among given completions: the likeliest behind the prompt is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcft.evaluation.records import Record
from hpcft.tasks.tokenize import tokenize
from hpcft.train.heldout import HeldOut
from hpcft.train.model import LossModel, padding_token


@dataclass(frozen=True)
class Query:
    """One forward pass of a row: `wanted` are (choice, place, token): the token predicted after a place."""

    row: int
    tokens: list[int]
    wanted: list[tuple[int, int, int]]


@dataclass(frozen=True)
class ChoiceTest(HeldOut):
    """Held-out rows, of whose choices the likeliest is the model's answer."""

    def answer(self, model: LossModel, rows: Sequence[int], number: int) -> list[Record]:
        """The likeliest choice of each of these rows, and the share of probability that each choice has."""
        del number  # nothing is drawn
        queries = [query for row in rows for query in self.queries(row)]
        scores = self.scores(model, queries, padding_token(self.tokenizer))
        owner = torch.tensor([query.row for query in queries])
        found = []
        for row in rows:
            shares = torch.softmax(scores[owner == row].sum(0).double(), dim=0).tolist()
            likely = dict(zip(self.choices, shares, strict=True))
            answer = max(likely, key=lambda choice: likely[choice])
            found.append({"row": row, "truth": self.truth(row), "answer": answer, "probabilities": likely})
        return found

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
