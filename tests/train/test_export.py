"""A model taken out of a run: plain, whole or not there, and the same model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, pipeline

from hpcft.curves.writer import CurveWriter
from hpcft.disk import read_json, write_json
from hpcft.errors import UserError
from hpcft.rundir import RunDir
from hpcft.train.checkpoint import model_tensors
from hpcft.train.export import export
from hpcft.train.final import finish, write_best
from hpcft.train.log import Log
from hpcft.train.loop import count_step, measure, micro_batches
from hpcft.train.saving import Saver
from hpcft.train.step import one_step
from tests.hub import serving
from tests.parts import make_tiny_gpt2
from tests.train.models import go_on, logits, make_tiny_llama
from tests.train.pieces import begin, make_parts, make_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def load(folder: Path) -> Any:
    """As anybody loads it; tensors that do not fit fail the test."""
    model, said = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    return model


@pytest.mark.parametrize(
    ("family", "sections"),
    [
        ("gpt2", {"lora": {"targets": ["q_proj", "v_proj", "c_fc"]}}),
        ("gpt2", {"lora": {}, "model": {"quantize": "nf4"}}),
        ("gpt2", {"lora": {}, "model": {"quantize": "int8"}}),
        ("llama", {"lora": {}, "model": {"quantize": "nf4"}}),
        ("gpt2", {"model": {"freeze": 1}}),
    ],
    ids=["lora", "qlora", "int8", "llama", "freeze"],
)
def test_what_is_exported_is_the_model_that_was_trained(
    parts: Path, tmp_path: Path, family: str, sections: dict[str, Any]
) -> None:
    if "quantize" in sections.get("model", {}):
        pytest.importorskip("bitsandbytes")
    if family == "llama":
        folder = parts / "llama"
        sections["model"]["path"] = str(folder if folder.exists() else make_tiny_llama(folder))
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, **sections)
    training = go_on(begin(run), 8)
    finish(training)
    export(run, tmp_path / "out", "fp32", keep_adapter="lora" in sections)
    made = load(tmp_path / "out")
    close = 0.02 if "int8" in str(sections) else 1e-4  # LLM.int8 rounds what goes into a product, too
    assert torch.allclose(logits(made), logits(training.model), rtol=0, atol=close)
    base = AutoModelForCausalLM.from_pretrained(run.recipe.model.path)
    assert not torch.allclose(logits(base), logits(made), rtol=0, atol=5 * close), "nothing was learnt"
    assert isinstance(made, GPT2LMHeadModel) == (family == "gpt2")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("node").input_ids
    adapter = {path.name for path in (tmp_path / "out" / "adapter").glob("*")}
    assert adapter == ({"adapter_config.json", "adapter_model.safetensors"} if "lora" in sections else set())
    assert not list(tmp_path.glob(".writing*")), "nothing half-written"


def test_a_checkpoint_can_be_exported_before_the_end_in_half_precision(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, lora={})
    training = go_on(begin(run), 3)
    Saver(training, None).last()
    before = logits(training.model)
    export(run, tmp_path / "out", "bf16", keep_adapter=False, which="3")
    made = load(tmp_path / "out")
    assert made.dtype == torch.bfloat16
    assert torch.allclose(logits(made.float()), before, rtol=0, atol=0.02)
    assert not (tmp_path / "out" / "adapter").exists() and not (tmp_path / "out" / "left").exists()
    (run.checkpoints / "step-00000003" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors has 0 bytes and should have"):
        export(run, tmp_path / "other", "fp32", keep_adapter=False, which="3")
    assert not list(tmp_path.glob(".writing*")) and not (tmp_path / "other").exists()


def test_the_best_weights_are_exported_as_the_last_ones_are(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, lora={})
    training = go_on(begin(run), 2)
    write_best(training, model_tensors(training.model), loss=1.0, step=2)
    before = logits(training.model)
    go_on(training, 4)
    export(run, tmp_path / "out", "fp32", keep_adapter=True, which="best")
    assert torch.allclose(logits(load(tmp_path / "out")), before, rtol=0, atol=1e-4)
    assert not torch.allclose(logits(training.model), before, rtol=0, atol=1e-3)


def test_adapters_are_merged_into_no_other_weights_than_theirs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "parts", tmp_path / "run", {}, lora={})
    finish(go_on(begin(run), 1))
    shutil.rmtree(tmp_path / "parts" / "model")
    make_tiny_gpt2(tmp_path / "parts" / "model", seed=1)
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "out", "fp32", keep_adapter=False)
    what = f"{tmp_path / 'parts' / 'model'} holds other weights than those that run was trained upon."
    assert str(error.value) == f"run: {what} Put them back as they were."
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Path]:
    """A run with test rows that has ended, and its folder."""
    parts = tmp_path_factory.mktemp("exported")
    make_parts(parts)
    rows = [{"question": f"what waits ({n})?", "answer": ["queue", "node"][n % 2]} for n in range(9)]
    (parts / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"choices": ["node", "queue"], "generate": {"max_new_tokens": 7}}
    run = make_run(
        parts,
        parts / "runs" / "moods",
        {"learning_rate": 3e-4},
        data={"test": str(parts / "test.jsonl")},
        evaluate=labels,
    )
    training = begin(run)
    write_json(run.path / "jobs" / "001" / "submitted.json", {"slurm_id": "local1", "walltime": 60, "time": 0})
    curve = CurveWriter(training.job.curve)
    log, batches = Log(training, curve), micro_batches(training)
    measure(training, log, "before")
    for step in range(training.total_steps):
        result = one_step(training, batches, step)
        count_step(training.position, result)
        log.step(result, 1.0)
    measure(training, log, "after")
    Saver(training, None).last()
    curve.close()
    finish(training)
    write_json(run.path / "env.json", {"packages": ["torch==2.13.0", "numpy==2.0", "transformers==5.23.0"]})
    export(run, parts / "out", "fp32", keep_adapter=False)
    return run, parts / "out"


def test_an_exported_folder_works_in_a_pipeline_and_writes_as_the_recipe_says(exported: tuple[RunDir, Path]) -> None:
    run, folder = exported
    table = pandas.read_parquet(run.evaluation / "after.parquet")
    write = pipeline("text-generation", model=str(folder), device="cpu")
    prompt = "### Question\nwhat waits (0)?\n\n### Answer\n"
    [said] = write(prompt, return_full_text=False)
    assert said["generated_text"].strip() == table["text"][0].strip()
    config = json.loads((folder / "generation_config.json").read_text())
    assert (config["max_new_tokens"], config["do_sample"]) == (7, False)
    assert (folder / "prompt.md").read_text() == Path(str(run.recipe.data.template)).read_text()


def test_the_card_says_what_the_model_was_made_of_and_no_paths(exported: tuple[RunDir, Path]) -> None:
    run, folder = exported
    card = ModelCard.load(folder / "README.md")
    after = read_json(run.evaluation / "after.json") or {}
    [result] = [each for each in card.data.eval_results if each.metric_type == "accuracy"]
    assert result.metric_value == round(after["accuracy"], 6)
    assert card.data.pipeline_tag == "text-generation" and card.data.library_name == "transformers"
    assert "# moods\n" in card.text and "trained for 8 steps on the task instruct" in card.text
    for section in ("## Training", "## Evaluation", "## Data", "## Recipe", "## Made with"):
        assert section in card.text
    assert f"| after | 8 | 9 | accuracy {after['accuracy']:.1%} (" in card.text
    assert "| before | 0 | 9 | accuracy " in card.text
    assert "torch==2.13.0, transformers==5.23.0" in card.text and "numpy" not in card.text
    assert "| train | rows.jsonl | 60 |" in card.text
    assert str(folder.parent) not in card.text, "whose disk it lay on is nobody's business"
    for picture in ("curve.png", "confusion.png"):
        assert f"]({picture})" in card.text and (folder / picture).stat().st_size > 5_000
    recipe = yaml.safe_load(card.text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["data"]["train"] == "rows.jsonl" and recipe["train"]["steps"] == 8


@pytest.mark.slow
def test_what_is_pushed_is_the_folder_in_a_private_repository(exported: tuple[RunDir, Path], tmp_path: Path) -> None:
    _, folder = exported
    with serving() as hub:
        hub.token = "secret"
        code = (
            "import sys, pathlib; from hpcft.train.export import upload; upload(pathlib.Path(sys.argv[1]), 'me/moods')"
        )
        variables = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, **variables, "HF_TOKEN": "secret"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [(made["name"], made.get("organization"), made["visibility"]) for made in hub.made] == [
            ("moods", "me", "private")
        ]
        there = hub.commits["me/moods"][hub.refs["me/moods"]["main"]]
        assert there == {path.name: path.read_bytes() for path in folder.iterdir()}
        refused = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, **variables, "HF_TOKEN": "wrong"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    last = refused.stderr.splitlines()[-1]
    assert "UserError: --push me/moods: the hub has not taken it: " in last and "401" in last
    assert f"{folder} is whole; `hf auth login` gives you a token, `hf upload` tries again." in last


def test_a_weight_that_half_precision_cannot_hold_is_refused(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {})
    training = go_on(begin(run), 1)
    with torch.no_grad():
        training.model.model.transformer.ln_f.weight[0] = 1e5
    finish(training)
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "out", "fp16", keep_adapter=False)
    what = "--dtype: a weight of this model is too large for float16. Use bf16 or fp32."
    assert str(error.value) == f"hpcft export: {what}"
    assert not (tmp_path / "out").exists()
