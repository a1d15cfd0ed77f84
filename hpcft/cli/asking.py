"""The verbs that ask a trained model: on held-out rows, or for what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcft.cli.app import RunName, Runs, app, choose_one
from hpcft.errors import Fault, UserError

Which = Annotated[
    str | None, typer.Option("--checkpoint", metavar="STEP|best", help="Take this one, not the final model.")
]


@app.command()
def evaluate(
    name: RunName,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="test, validation or train.")] = "test",
    checkpoint: Which = None,
    on_cluster: Annotated[
        bool, typer.Option("--on-cluster", help="In a job of its own on the run's cluster; wait for it.")
    ] = False,
    walltime: Annotated[str | None, typer.Option("--walltime", help="How long that may last, 0:30:00.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report.")] = False,
    runs: Runs = None,
) -> None:
    """Measure a run's model on held-out rows."""
    import json

    from hpcft.disk import read_json
    from hpcft.launch import debug as debug_
    from hpcft.launch import evaluate as evaluate_
    from hpcft.launch.show import print_report

    if walltime and not on_cluster:
        raise UserError(Fault("--walltime", "goes with --on-cluster.", "Add it, or leave the walltime out."))
    run = choose_one(runs, name)
    evaluation = evaluate_.Evaluation(evaluate_.read_left(run, checkpoint), split)
    if on_cluster:
        code = debug_.start(evaluate_.on_cluster(evaluation, walltime), run.path.parent)
    else:
        code = evaluate_.here(evaluation)
    if code:
        raise typer.Exit(code)
    report = read_json(evaluation.report) or {}
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report, evaluation.report)


@app.command()
def generate(
    target: Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="A run, or a folder that holds a model.")],
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Write behind this.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Rows or prompts: .jsonl, .json, .csv, .parquet, .txt."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Put them here, as .jsonl; else they are printed.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Prompts as they are, without the template.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1, metavar="N")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, metavar="T", help="0 takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, metavar="K", help="Draw among so many.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", metavar="P", help="Draw among this probability.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Of what is drawn.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, metavar="N", help="Rows at a time.")] = 8,
    checkpoint: Which = None,
    runs: Runs = None,
) -> None:
    """Let a model write: behind a prompt, for a file, or in a chat."""
    from hpcft.launch import generate as generate_
    from hpcft.launch.evaluate import read_left

    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    folder = generate_.means_folder(target)
    if folder and checkpoint:
        raise UserError(Fault("--checkpoint", f"{target} is a folder, which has one model.", "Leave it out."))
    model = Path(target).absolute() if folder else read_left(choose_one(runs, target), checkpoint)
    code = generate_.write(
        generate_.Writing(model, prompt, input_file, output, raw, batch_size, settings),
    )
    if code:
        raise typer.Exit(code)
