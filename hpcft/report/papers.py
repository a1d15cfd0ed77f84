"""The parts of a report that say what was measured and where the run came from: tests, data, recipe, env."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpcft.disk import read_json
from hpcft.launch import changes
from hpcft.launch.provenance import provenance
from hpcft.launch.words import amount, clock, count
from hpcft.recipe import Recipe, for_others
from hpcft.report.elements import code, facts, image, section, table, text
from hpcft.rundir import RunDir

PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "tokenizers", "datasets", "numpy")
"""Of an env, what a result may depend on."""
UNKNOWN = "not recorded"


def reports(run: RunDir) -> dict[str, dict[str, Any]]:
    """What held-out rows say, by the name of each test, in the order of their steps."""
    found = {path.stem: report for path in sorted(run.evaluation.glob("*.json")) if (report := read_json(path))}
    found = {name: report for name, report in found.items() if "rows" in report}
    order = {"before": -1, "after": 1}
    return dict(sorted(found.items(), key=lambda item: (item[1].get("step", 0), order.get(item[0], 0), item[0])))


def evaluation_section(run: RunDir) -> str:
    """Each test in a row, with its interval, and the confusion matrices."""
    found = {name: one for name, one in reports(run).items() if one.get("stage", True)}  # else another's second name
    sure = [name for name in found if "accuracy" in found[name]]
    likely = [name for name in found if "accuracy" not in found[name] and "perplexity" in found[name]]
    parts = []
    if sure:
        columns = ("test", "step", "rows", "accuracy", "95 of 100 resamples", "", "macro-F1", "commonest answer", "ECE")
        rows = [_sure(name, found[name]) for name in sure]
        parts.append(table(columns, rows, (1, 2, 3, 6, 7, 8)))
    if likely:
        rows = [_likely(name, found[name]) for name in likely]
        parts.append(table(("test", "step", "rows", "perplexity", "loss"), rows, (1, 2, 3, 4)))
    pictures = [run.evaluation / "confusion.png", run.evaluation / "after.png"]
    picture = next((path for path in pictures if path.exists()), None)
    if picture:
        parts.append(f'<figure class="paper">{image(picture, "confusion matrices of the tests")}</figure>')
    lead = ""
    if gained := (read_json(run.evaluation / "after.json") or {}).get("over_untuned"):
        low, high = gained["interval"]
        lead = f"{gained['gain']:+.1%} over the untuned model ({low:+.1%} to {high:+.1%} in 95 of 100 resamples)."
    return section("evaluation", "On held-out rows", *parts, lead=lead)


def _likely(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (f"{report.get('step', 0):,}", f"{report['rows']:,}")
    return (text(name), *counts, f"{report['perplexity']:.3f}", f"{report['loss']:.4f}")


def _sure(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = report["interval"]
    reach = f'<i style="left:{low:.1%};width:{high - low:.1%}"></i>'
    drawn = f'<span class="interval">{reach}<b style="left:{report["accuracy"]:.1%}"></b></span>'
    error = report.get("calibration", {}).get("error")
    return (
        text(name), f"{report.get('step', 0):,}", f"{report['rows']:,}", f"<b>{report['accuracy']:.1%}</b>",
        f"{low:.1%} to {high:.1%}", drawn, f"{report['macro_f1']:.3f}", f"{report['majority']:.1%}",
        "–" if error is None else f"{error:.3f}",
    )  # fmt: skip


def data_section(run: RunDir) -> str:
    """Each split with its source and fingerprint, and what was made of it; splits that are alike share a row."""
    recipe, named = run.recipe, dict[tuple[str, ...], list[str]]()
    for number, each in enumerate(recipe.each_phase()):
        below = recipe.features_folder(number)
        for split in ("train", "validation", "test"):
            if each.data.has(split):
                name = f"{below}/{split}" if below and split != "test" else split
                names = named.setdefault(_split(run, each, below, split), [])
                names += [name] * (name not in names)
    rows = [(text(", ".join(names)), *cells) for cells, names in named.items()]
    notes = dict.fromkeys(words for report in run.rows.values() if (words := _removed(report)))
    columns = ("split", "source", "rows", "tokens", "size", "SHA-256")
    return section(
        "data", "Data", table(columns, rows, (2, 3, 4)), "".join(f'<p class="note">{text(one)}</p>' for one in notes)
    )


def _split(run: RunDir, recipe: Recipe, below: str, split: str) -> tuple[str, ...]:
    """Source, rows, tokens, size and fingerprint of a split, whose features lie in this folder."""
    given = getattr(recipe.data, split)
    key = split if given else "train"
    key = f"{below}/{key}" if below and key != "test" else key
    facts = (provenance(run).get("data") or {}).get(key) or {}
    features = read_json(run.features / below / split / "complete.json") or {}
    source = text(for_others(given or recipe.data.train)) + ("" if given else ", drawn from it")
    made = [f"{features[name]:,}" if name in features else "–" for name in ("rows", "tokens")]
    how = f" of its {facts['hashed']}" if facts and facts["hashed"] != "whole" else ""
    digest = f"<code>{facts['sha256'][:16]}</code>{how}" if facts else "–"
    return (source, *made, amount(facts["bytes"]) if facts else "–", digest)


def _removed(report: Mapping[str, Any]) -> str:
    """`440 of 500 rows of rows.jsonl: 60 removed by duplicates`; nothing where all are there."""
    removed = ", ".join(f"{number} removed by {name}" for name, number in report["removed"].items() if number)
    return f"{report['rows']} of {report['of']} rows of {Path(report['source']).name}: {removed}" if removed else ""


def recipe_section(run: RunDir) -> str:
    """The recipe as it was given, what the command line has overridden, and what was changed afterwards."""
    given, values = run.path / "recipe.yaml", run.recipe.model_dump(mode="json")
    if given.is_file():
        values = yaml.safe_load(given.read_text(encoding="utf-8"))
    parts = [code(yaml.safe_dump(for_others(values), sort_keys=False, allow_unicode=True))]
    overrides = [words for text_ in provenance(run).get("overrides") or () if (words := _override(text_))]
    if overrides:
        parts.append(f"<h3>Overridden at the submission</h3>{code(chr(10).join(overrides))}")
    if matrix := (run.submission or {}).get("matrix"):
        settings = for_others(matrix["settings"])
        words = ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items()) or "as it stands"
        parts.append(f"<h3>Run {matrix['index'] + 1} of {text(matrix['name'])}</h3>{code(words)}")
    if lines := list(_changes(run)):
        parts.append(f"<h3>Changed afterwards</h3>{code(chr(10).join(lines))}")
    return section("recipe", "Recipe", *parts)


def _override(given: str) -> str:
    key, _, value = given.partition("=")
    return "" if key.startswith("notify") else f"--set {key}={for_others(value)}"


def _changes(run: RunDir) -> Iterator[str]:
    for change in changes.changes(run):
        when = f"after job {change['after_job']}, at step {change['step']}" if change["after_job"] else "before any job"
        for key, value in change["after"].items():
            if not key.startswith("notify"):
                before, after = for_others([change["before"][key], value])
                yield f"{clock(change['time'])}, {when}: {changes.line(key, before, after)}"


def env_section(run: RunDir, devices: Mapping[tuple[int, int], str]) -> str:
    """What it was made with."""
    record, env, cluster = provenance(run), read_json(run.path / "env.json") or {}, (run.submission or {})["cluster"]
    packages = dict(line.partition("==")[::2] for line in env.get("packages", ()))
    commit = (read_json(run.path / "model.json") or {}).get("commit")
    sha = record.get("git_sha")
    dirty = ", with uncommitted changes" if record.get("git_diff") else ""
    resources = run.recipe.resources
    nodes = f" of each of {resources.nodes} nodes" if resources.nodes > 1 else ""
    where = f"on {count(resources.gpus, 'GPU')}{nodes}" if resources.gpus else f"on the CPU{nodes}"
    return section(
        "env",
        "Made with",
        facts(
            {
                "model": f"{for_others(run.recipe.model.path)}{f' at commit {commit}' if commit else ''}",
                "devices": ", ".join(dict.fromkeys(devices.values())) or UNKNOWN,
                "processes": f"{run.recipe.local_processes} {where}",
                "precision": run.recipe.train.precision,
                "cluster": ", ".join(filter(None, (cluster["name"], cluster.get("partition")))),
                "Python": str(env.get("python", UNKNOWN)).split()[0] if env else UNKNOWN,
                **{name: packages.get(name, "") for name in PACKAGES},
                "hpcft": str(record.get("hpcft") or UNKNOWN),
                "git": f"{sha[:12]}{dirty}" if sha else "",
            }
        ),
    )
