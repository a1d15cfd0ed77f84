"""`hpcft data show`: what is learnt, how long rows are, what is cut off, before anything is queued."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpcft.errors import UserError
from hpcft.launch import preview as shown
from hpcft.recipe import Recipe
from hpcft.train.preview import main, preview
from tests.parts import make_tiny_encoder, make_tiny_gpt2

ROWS = [{"q": "Who waits?", "a": "The queue."}, {"q": "Who waits? " * 20, "a": "The batch."}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2")


def recipe(folder: Path, model: Path, rows: list[dict[str, Any]] = ROWS, **data: Any) -> Recipe:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompt.md").write_text("Q: {{q}}\nA: {{a}}")
    values = {"train": str(folder / "rows.jsonl"), "template": str(folder / "prompt.md"), **data}
    task = "instruct" if "text" not in rows[0] else "corpus"
    return Recipe.model_validate_json(
        json.dumps({"name": "r", "task": task, "model": {"path": str(model)}, "data": values})
    )


def test_a_row_is_shown_with_what_is_learnt_and_what_is_cut_off(tmp_path: Path, model: Path) -> None:
    found = preview(recipe(tmp_path, model, max_length=30), "train", 2, None)
    first, second = found["shown"]
    assert [kind for kind, _ in first] == ["prompt", "learnt"]
    assert "".join(text for _, text in first) == "Q: Who waits?\nA: The queue.<|endoftext|>"
    assert first[1][1].strip() == "The queue.<|endoftext|>"
    assert [kind for kind, _ in second] == ["prompt", "cut"]
    assert second[1][1].endswith("A: The batch.<|endoftext|>")
    assert (found["looked_at"], found["cut_rows"], found["unlearnt_rows"]) == (2, 1, 1)
    whole = preview(recipe(tmp_path, model, max_length=200), "train", 2, None)
    assert (whole["cut_rows"], whole["cut_tokens"], whole["unlearnt_rows"]) == (0, 0, 0)
    assert found["cut_tokens"] == whole["lengths"]["100"] - 30
    full = preview(recipe(tmp_path, model, max_length=200, loss_on="full"), "train", 0, None)
    assert (
        round(full["learnt"] * full["tokens"]) == full["tokens"] - 2
    )  # all but the first token of each of the two rows
    assert 0 < whole["learnt"] < full["learnt"]


def test_blocks_of_a_corpus_are_learnt_whole(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "The queue waits for the batch. " * 5}] * 2
    found = preview(recipe(tmp_path, model, rows, max_length=16), "train", 1, None)
    assert found["unit"] == "block"
    assert [kind for kind, _ in found["shown"][0]] == ["prompt", "learnt"]  # nothing stands before the first token
    assert (found["lengths"]["100"], found["cut_rows"]) == (16, 0)


def test_of_a_text_that_is_classified_the_class_is_learnt_and_the_middle_cut_out(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "good day", "label": "glad"}, {"text": f"it {'rained ' * 30}today", "label": "sad"}]
    made = recipe(tmp_path, model, rows, max_length=12).model_copy(update={"task": "classify"})
    found = preview(made, "train", 2, None)
    assert found["shown"][0][-2:] == [("prompt", "good day\n"), ("learnt", "glad")]
    assert found["shown"][1][0][1].startswith("it rained")
    assert found["shown"][1][0][1].endswith("today\n")
    assert (found["labels"], found["cut_rows"], found["unlearnt_rows"]) == (("glad", "sad"), 1, 0)
    assert sum(found["of_each"]) == found["looked_at"]
    assert found["cut_tokens"] == found["lengths"]["100"] - 12


def test_a_row_of_an_encoder_whose_tokenizer_has_no_end_of_text_is_shown(tmp_path: Path) -> None:
    rows = [{"text": "the queue waits", "label": "glad"}, {"text": "the node runs", "label": "sad"}]
    encoder = make_tiny_encoder(tmp_path / "bert", "bert")
    made = recipe(tmp_path, encoder, rows, max_length=12).model_copy(update={"task": "classify"})
    found = preview(made, "train", 1, None)
    assert [kind for kind, _ in found["shown"][0]] == ["prompt", "learnt"]
    assert found["shown"][0][1] == ("learnt", "glad")


def test_only_the_rows_that_are_chosen_are_shown(tmp_path: Path, model: Path) -> None:
    found = preview(recipe(tmp_path, model, filter={"max_tokens": 40}, max_length=30), "train", 5, None)
    assert (found["chosen"], found["looked_at"]) == ("1 of 2 rows (1 max_tokens left out)", 1)


def test_faults_come_back_as_faults(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = recipe(tmp_path, model, [*ROWS, {"q": "Hm?", "a": " "}], filter={"duplicates": "drop"})
    (tmp_path / "recipe.json").write_text(made.model_dump_json())
    assert main(str(tmp_path / "recipe.json"), "train", "1", "") == 2
    assert json.loads(capsys.readouterr().out) == {"faults": [[f"{tmp_path}/rows.jsonl, row 3", '"a" is empty.', ""]]}


@pytest.mark.parametrize("colours", [False, True])
def test_on_a_terminal_it_is_coloured_and_elsewhere_marked(monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=colours, color_system="standard" if colours else None, soft_wrap=True)
    monkeypatch.setattr(shown, "Console", lambda **given: console)
    shown.print_preview(
        {
            "place": "/rows [1].jsonl", "unit": "row", "labels": None, "looked_at": 2000, "chosen": None,
            "shown": [[("prompt", "Mood: [b]"), ("learnt", " glad"), ("cut", " day")]],
            "max_length": 30, "learnt": 1 / 8,
            "lengths": {"50": 20, "90": 28, "99": 31, "100": 40}, "cut_rows": 3, "cut_tokens": 12, "tokens": 600,
            "unlearnt_rows": 1,
        }
    )  # fmt: skip
    text = out.getvalue()
    figures = """
looked at    the first 2000 rows
learnt       12.5% of the tokens
tokens       half have 20 or less, 90% 28, 99% 31, all 40
cut off      3 rows, 2.0% of all tokens at data.max_length = 30
refused      1 row would have no token to learn: raise data.max_length, or leave them out by data.filter.max_tokens
"""
    if colours:
        assert "Mood: [b]\x1b[1;32m glad\x1b[0m\x1b[9;31m day\x1b[0m\n" in text
    else:
        assert text.startswith("/rows [1].jsonl: «learnt» [cut: cut off]\n-- row 1\nMood: [b]« glad»[cut:  day]\n")
        assert text.endswith(figures)


def test_a_fault_of_a_split_is_one_of_a_user(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError) as error:
        preview(recipe(tmp_path, model, columns={"a": "answer"}), "train", 1, None)
    assert str(error.value).startswith(
        f'{tmp_path}/rows.jsonl, row 1: has no column "answer", which data.columns names.'
    )
