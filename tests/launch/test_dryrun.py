"""The dry run: the whole script and all that the run will take, and nothing touched."""

from __future__ import annotations

from tests.desk import Desk

SCRIPT = """\
#!/bin/bash

# Parameters
#SBATCH --comment=hpcft:runs/demo:1
#SBATCH --cpus-per-task=6
#SBATCH --gres=gpu:V100:1
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-001
#SBATCH --mem-per-gpu=60G
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=runs/demo/jobs/001/%j_0_log.out
#SBATCH --partition=GPU
#SBATCH --signal=B:USR2@180
#SBATCH --time=120

# setup
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=env/bin:$PATH
export VIRTUAL_ENV=env
export PYTHONPATH=runs/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec env/bin/python -u -m submitit.core._submit runs/demo/jobs/001

# plan
# run          runs/demo
# cluster      site
# env          env
# model        model
# length       10 steps, 8 rows a step (micro_batch_size 1 x 1 process x 8 micro-batches)
# job          2:00:00, 1 GPU
# chain        3 jobs at first, 100 at most; each queues the next
# jobs needed  unknown until the first job has run
# GPU-hours    unknown until the first job has run
# disk         unknown: no safetensors file here tells the model's size
# GPU memory   unknown: its config.json names no model_type
# start        Slurm does not say
"""
LOCAL = """\
#!/bin/bash
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH='my env'/bin:$PATH
export VIRTUAL_ENV='my env'
export PYTHONPATH=elsewhere/demo/code PYTHONSAFEPATH=1
exec 'my env/bin/python' -u -m submitit.core._submit elsewhere/demo/jobs/001
# plan
# run          elsewhere/demo
# cluster      here
# env          my env
# model        model
# length       1.5 epochs, 8 rows a step (micro_batch_size 4 x 2 processes x 1 micro-batch)
# job          0:01:00, 0 GPUs
# chain        1 job at first, 1 at most; each queues the next
# jobs needed  unknown until the first job has run
# disk         unknown: no safetensors file here tells the model's size
"""


def test_a_dry_run_prints_script_and_plan_and_makes_nothing_not_even_the_runs_folder(desk: Desk) -> None:
    desk.env("env")
    assert desk.accepts("--set", "env=./env") == SCRIPT
    assert not (desk.folder / "runs").exists()


def test_a_step_in_tokens_is_shown_as_such(desk: Desk) -> None:
    shown = desk.accepts("--set", "train.batch_tokens=4096", "--set", "train.micro_batch_size=4")
    assert "# length       10 steps, about 4096 tokens a step (micro_batch_size 4 x 1 process)\n" in shown


def test_a_dry_run_for_this_machine_quotes_what_the_shell_would_split(desk: Desk) -> None:
    desk.env("my env")
    sets = ("train={epochs: 1.5, micro_batch_size: 4}", "resources={gpus: 0, processes: 2, walltime: 1:00, jobs: 1}")
    given = [word for text in (*sets, "env=./my env") for word in ("--set", text)]
    assert desk.accepts("--cluster", "here.yaml", "--runs", "elsewhere", *given) == LOCAL


def test_a_walltime_that_slurm_cannot_count_is_shown_as_what_the_job_gets(desk: Desk) -> None:
    said = desk.accepts("--set", "resources.walltime=0:00:20")
    assert "# job          0:01:00 (Slurm counts whole minutes; the recipe says 0:00:20), 1 GPU\n" in said
    assert "# job          1:00:00, 1 GPU\n" in desk.accepts("--set", "resources.walltime=60:00")
