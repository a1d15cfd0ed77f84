#!/bin/bash

# Parameters
#SBATCH --account=def-someone
#SBATCH --comment=hpcft:/orfeo/scratch/lab/ada/hpcft/demo:2
#SBATCH --cpus-per-task=12
#SBATCH --dependency=afterany:4711
#SBATCH --gres=gpu:V100:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-002
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/orfeo/scratch/lab/ada/hpcft/demo/jobs/002/%j_0_log.out
#SBATCH --partition=GPU
#SBATCH --signal=B:USR2@180
#SBATCH --time=90

# setup
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/orfeo/scratch/lab/ada/hpcft/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/ft/bin/python -u -m submitit.core._submit /orfeo/scratch/lab/ada/hpcft/demo/jobs/002
