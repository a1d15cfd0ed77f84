#!/bin/bash

# Parameters
#SBATCH --account=def-someone
#SBATCH --comment=hpcft:/scratch/hpcft/demo:2
#SBATCH --cpus-per-task=24
#SBATCH --dependency=afterany:4711
#SBATCH --gpus-per-node=a100:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-002
#SBATCH --mem-per-gpu=124G
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/hpcft/demo/jobs/002/%j_0_log.out
#SBATCH --signal=B:USR2@180
#SBATCH --time=90

# setup
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/scratch/hpcft/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/ft/bin/python -u -m submitit.core._submit /scratch/hpcft/demo/jobs/002
