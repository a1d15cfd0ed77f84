"""Templates: which text is one, and what becomes of a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.template import PromptTemplate, read_template


def test_the_last_placeholder_is_the_completion_and_all_before_it_the_prompt() -> None:
    template = PromptTemplate("# Tweet\n{{ text }}\n\n# Mood of {{who}}\n{{label}}\n")
    assert (template.columns, template.completion, template.fault()) == (["text", "who", "label"], "label", None)
    row = {"text": "hi", "who": "Ada", "label": "glad", "more": 1}
    assert template.render(row) == ("# Tweet\nhi\n\n# Mood of Ada\n", "glad")


def test_values_go_in_as_they_are() -> None:
    template = PromptTemplate("{{text}} {{text}}: {{label}}")
    row = {"text": r"{{label}} \1 \g<0>", "label": "{{text}}"}
    assert template.render(row) == (r"{{label}} \1 \g<0> {{label}} \1 \g<0>: ", "{{text}}")
    assert template.render({"text": 7, "label": None}) == ("7 7: ", "None")


def test_a_row_that_lacks_a_column_is_no_silent_hole() -> None:
    with pytest.raises(KeyError, match="text"):
        PromptTemplate("{{text}}: {{label}}").render({"label": "glad"})


@pytest.mark.parametrize("name", ["text", "the text", "text (en)", "täxt", "a.b", "a-b", "7"])
def test_a_column_may_have_any_name_without_braces(name: str) -> None:
    template = PromptTemplate(f"Say {{{{  {name} }}}}: {{{{label}}}}")
    assert (template.fault(), template.columns) == (None, [name, "label"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no {{column}} placeholder"),
        ("{text}: {label}", "has no {{column}} placeholder"),
        ("Say {{ }}", "has no {{column}} placeholder"),
        ("{{text}}: {{label}}.", "has text behind its last placeholder {{label}}, which is the completion"),
        (" \n{{label}}", "has no prompt before its only placeholder"),
        ("{{label}}: {{label}}", 'shows the completion "label" in the prompt already'),
        ("{{text}: {{label}}", "has a placeholder that lacks a brace: {{text}"),
        ("{{text\n {{label}}", "has a placeholder that lacks a brace: {{text"),
        ("{text}}: {{label}}", "has a placeholder that lacks a brace: {text}}"),
        ("{{text}}: {{label}", "has a placeholder that lacks a brace: {{label}"),
    ],
)
def test_what_is_no_template_says_why(text: str, fault: str) -> None:
    assert PromptTemplate(text).fault() == fault


@pytest.mark.parametrize(
    "text", ['{"tweet": "{{text}}", "mood": "', "{{{text}}} ", r"$\frac{1}{2}$ {{text}} {x} { {y} } "]
)
def test_other_braces_are_text(text: str) -> None:
    template = PromptTemplate(text + "{{label}}")
    assert template.fault() is None
    assert template.render({"text": "T", "label": "L"}) == (text.replace("{{text}}", "T"), "L")


def test_a_template_is_read_with_its_line_ends_as_newlines(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_bytes("Grüße: {{text}}\r\n{{label}}\r\n".encode())
    assert read_template(tmp_path / "prompt.md").text == "Grüße: {{text}}\n{{label}}\n"
