"""A model's card: what it was made of and how it did, as README.md with the header that the hub reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

import hpcft
from hpcft.curves.picture import draw
from hpcft.curves.runcurves import read_run
from hpcft.disk import read_json
from hpcft.recipe import Recipe, for_others
from hpcft.rundir import RunDir
from hpcft.sections import Model

CURVE = "curve.png"
CONFUSION = "confusion.png"
WRITES = "text-generation"
PIPELINES = {"classify": "text-classification", "entail": "text-classification", "prefer": None}
"""The pipeline of transformers that runs a model of these tasks; it has none for two texts that are read apart."""
SHOWN_PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers")


def write_card(run: RunDir, source: Model, folder: Path, step: int, dtype: str) -> None:
    """Put README.md, and the pictures that it shows, beside the model of this step in a folder."""
    with contextlib.suppress(ValueError):  # no job has logged a loss yet
        draw(read_run(run), folder / CURVE)
    pictures = [run.evaluation / CONFUSION, run.evaluation / "after.png"]
    if picture := next((path for path in pictures if path.exists()), None):
        (folder / CONFUSION).write_bytes(picture.read_bytes())
    reports = {path.stem: report for path in sorted(run.evaluation.glob("*.json")) if (report := read_json(path))}
    reports = {name: report for name, report in reports.items() if report.get("step") in (0, step)}
    header = ModelCardData(**_header(run, source, reports, step))
    body = "\n".join(_body(run, source, folder, reports, step, dtype))
    (folder / "README.md").write_text(f"---\n{header.to_yaml()}\n---\n\n{body}\n", encoding="utf-8")


def _header(run: RunDir, source: Model, reports: Mapping[str, Any], step: int) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "transformers", "tags": ["hpcft", run.recipe.task]}
    if kind := PIPELINES.get(run.recipe.task, WRITES):
        found["pipeline_tag"] = kind
    if not source.path.startswith("/"):
        found["base_model"] = source.path
    results = []
    for name, report in reports.items():
        if report.get("step") != step:
            continue
        for measure in ("accuracy", "macro_f1", "perplexity"):
            if measure in report:
                results.append(
                    EvalResult(
                        task_type=PIPELINES.get(run.recipe.task, WRITES) or "text-classification",
                        dataset_type=report.get("split", "test"),
                        dataset_name=f"{report.get('split', 'test')} rows of {run.recipe.name} ({name})",
                        metric_type="f1" if measure == "macro_f1" else measure,
                        metric_value=round(float(report[measure]), 6),
                    )
                )
    if results:
        found |= {"model_name": run.name, "eval_results": results}
    return found


def _body(run: RunDir, source: Model, folder: Path, reports: Mapping[str, Any], step: int, dtype: str) -> Iterator[str]:
    recipe = run.recipe.each_phase()[-1]
    adapted = " with low-rank adapters, merged here" if recipe.lora else ""
    yield f"# {run.name}"
    yield ""
    base = Path(source.path).name if source.path.startswith("/") else source.path
    commit = f" at {source.revision}" if source.revision else ""
    yield f"{base}{commit}, trained for {step} steps on the task {recipe.task}{adapted}. The weights are in {dtype}."
    yield ""
    yield from ("```python", *_use(recipe, folder.name.removeprefix(".writing-")), "```")
    if (folder / "prompt.md").exists():
        yield ""
        yield "It learnt on this template, whose last placeholder is what it writes (`prompt.md`):"
        yield ""
        yield "````markdown"
        yield (folder / "prompt.md").read_text(encoding="utf-8").rstrip("\n")
        yield "````"
    if (folder / CURVE).exists():
        yield from ("", "## Training", "", f"![training and validation loss]({CURVE})")
    yield from _measures(folder, reports)
    yield from ("", "## Data", "", "| split | source | rows | SHA-256 |", "|---|---|---|---|")
    yield from _data(run, recipe)
    yield from ("", "## Recipe", "", "```yaml", _recipe(run.recipe).rstrip("\n"), "```", "", "## Made with", "")
    packages = [line for line in (read_json(run.path / "env.json") or {}).get("packages", [])]
    shown = [line for line in packages if line.partition("==")[0] in SHOWN_PACKAGES]
    yield ", ".join([f"hpcft {hpcft.__version__}", *shown, *_devices(run)])


def _use(recipe: Recipe, name: str) -> Iterator[str]:
    """Lines of Python that ask the model in the folder of this name."""
    if recipe.task != "prefer":
        kind = PIPELINES.get(recipe.task, WRITES)
        says = '"...", return_full_text=False)[0]["generated_text"]' if kind == WRITES else '"...")[0]["label"]'
        yield from (
            "from transformers import pipeline",
            "",
            f'ask = pipeline("{kind}", "{name}")',
            f"print(ask({says})",
        )
        return
    texts, more = '["...", "..."]', ""
    if recipe.data.pair == "with_prompt":
        texts, more = f'["..."] * 2, {texts}', ', texts.get("token_type_ids")'
    yield from ("from pathlib import Path", "", "import torch", "from transformers import AutoTokenizer", "")
    yield from ("from hpcft.train.pair import Pair", "")
    yield f'model, tokenizer = Pair.from_pretrained(Path("{name}")), AutoTokenizer.from_pretrained("{name}")'
    yield f'texts = tokenizer({texts}, padding=True, return_tensors="pt")'
    yield "with torch.no_grad():"
    yield f'    first, second = model.read(texts["input_ids"], texts["attention_mask"]{more}).chunk(2)'
    yield '    print(dict(zip(model.facts["labels"], model.compare(first, second).softmax(-1)[0].tolist())))'


def _measures(folder: Path, reports: Mapping[str, Any]) -> Iterator[str]:
    if not reports:
        return
    yield from ("", "## Evaluation", "", "| test | step | rows | measure |", "|---|---|---|---|")
    for name, report in sorted(reports.items(), key=lambda item: item[1]["step"]):
        if "accuracy" in report:
            low, high = report["interval"]
            words = f"accuracy {report['accuracy']:.1%} ({low:.1%} to {high:.1%}), macro-F1 {report['macro_f1']:.3f}"
            words += f"; the commonest answer alone {report['majority']:.1%}"
        else:
            words = f"perplexity {report['perplexity']:.2f} (loss {report['loss']:.4f})"
        yield f"| {name} | {report['step']} | {report['rows']} | {words} |"
    if (folder / CONFUSION).exists():
        yield from ("", f"![confusion matrix]({CONFUSION})")


def _data(run: RunDir, recipe: Recipe) -> Iterator[str]:
    """A line for each split; of a run with phases, those of the last one."""
    below = run.recipe.features_folder(max(0, len(run.recipe.phases) - 1))
    known = (read_json(run.path / "provenance.json") or {}).get("data") or {}
    for split in ("train", "validation", "test"):
        if not recipe.data.has(split):
            continue
        given = getattr(recipe.data, split)
        named = given or recipe.data.train
        shown = Path(named).name if named.startswith("/") else named
        facts = known.get(split if given else "train") or {}
        rows = read_json(run.features / below / split / "complete.json") or {}
        drawn = "" if given else ", drawn"
        yield f"| {split} | {shown}{drawn} | {rows.get('rows', '')} | {str(facts.get('sha256', ''))[:16]} |"


def _recipe(recipe: Recipe) -> str:
    """The keys that were given, as others may see them."""
    values = for_others(recipe.model_dump(mode="json", exclude_unset=True))
    return str(yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True))


def _devices(run: RunDir) -> list[str]:
    """What it was trained on, as the newest checkpoint has it."""
    for step in reversed(run.saved_steps()):
        state = read_json(run.checkpoints / f"step-{step:08d}" / "state.json") or {}
        if device := state.get("fingerprint", {}).get("device"):
            return [f"on {state['fingerprint'].get('processes', 1)} x {device}"]
    return []
