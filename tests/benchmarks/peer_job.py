"""A chain from submitit and a Trainer: `python -m tests.benchmarks.peer_job FOLDER RECIPE SAVE JOBS MINUTES`.

Each job goes on from the Trainer's last checkpoint, and is killed at its walltime.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import submitit

from hpcft.recipefile import read_recipe


def main(folder: str, recipe: str, save_steps: str, jobs: str, minutes: str) -> None:
    """Queue so many jobs, each behind the one before."""
    here = Path(folder)
    here.mkdir()
    ids: list[str] = []
    for _ in range(int(jobs)):
        executor = submitit.SlurmExecutor(folder=here / "submitit")
        more = {"dependency": f"afterany:{ids[-1]}"} if ids else {}
        executor.update_parameters(
            time=int(minutes), partition="GPU", additional_parameters={"nodelist": "gpu2", **more}
        )
        ids.append(executor.submit(train, here, Path(recipe), int(save_steps)).job_id)
    (here / "jobs.json").write_text(json.dumps(ids))


def train(folder: Path, recipe_path: Path, save_steps: int) -> None:
    """One job. submitit would end it at Slurm's early signal, up to a minute before its walltime: it is left out."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if (folder / "finished.json").exists():
        return
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    log = (folder / f"steps-{int(os.environ['SLURM_JOB_ID']):06d}.txt").open("a")

    class Writing(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            print(state.global_step, time.time(), file=log, flush=True)

    recipe = read_recipe(recipe_path).recipe
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        max_steps=recipe.train.steps or 0,
        per_device_train_batch_size=recipe.train.batch_size,
        learning_rate=recipe.train.learning_rate,
        weight_decay=recipe.train.weight_decay,
        save_steps=save_steps,
        save_total_limit=recipe.train.keep_checkpoints,
        report_to="none",
        disable_tqdm=True,
    )
    Trainer(
        model=AutoModelForCausalLM.from_pretrained(recipe.model.path, dtype=torch.float32),
        args=arguments,
        train_dataset=rows(Path(recipe.data.train), tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        processing_class=tokenizer,
        callbacks=[Writing()],
    ).train(resume_from_checkpoint=any((folder / "trainer").glob("checkpoint-*")))
    (folder / "finished.json").write_text(json.dumps({"time": time.time()}))


def rows(path: Path, tokenizer: Any) -> list[dict[str, list[int]]]:
    """The recipe's rows as its template makes them, all of them learnt."""
    made = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        ids = [*tokenizer(f"{row['prompt']}\nAnswer:{row['answer']}")["input_ids"], tokenizer.eos_token_id]
        made.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids})
    return made


if __name__ == "__main__":
    main(*sys.argv[1:])
