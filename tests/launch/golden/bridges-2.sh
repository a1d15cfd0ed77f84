#!/bin/bash

# Parameters
#SBATCH --account=def-someone
#SBATCH --comment=hpcft:/ocean/projects/lab/ada/hpcft/demo:2
#SBATCH --cpus-per-task=10
#SBATCH --dependency=afterany:4711
#SBATCH --gpus=v100-32:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-002
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/ocean/projects/lab/ada/hpcft/demo/jobs/002/%j_0_log.out
#SBATCH --partition=GPU-shared
#SBATCH --signal=B:USR2@180
#SBATCH --time=90

# setup
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/ocean/projects/lab/ada/hpcft/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/ft/bin/python -u -m submitit.core._submit /ocean/projects/lab/ada/hpcft/demo/jobs/002
