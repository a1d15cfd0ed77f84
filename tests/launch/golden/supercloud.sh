#!/bin/bash

# Parameters
#SBATCH --account=def-someone
#SBATCH --comment=hpcft:/home/ada/hpcft/demo:2
#SBATCH --constraint=xeon-g6
#SBATCH --cpus-per-task=40
#SBATCH --dependency=afterany:4711
#SBATCH --gres=gpu:volta:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-002
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/home/ada/hpcft/demo/jobs/002/%j_0_log.out
#SBATCH --partition=xeon-g6-volta
#SBATCH --signal=B:USR2@180
#SBATCH --time=90

# setup
source /etc/profile
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/home/ada/hpcft/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/ft/bin/python -u -m submitit.core._submit /home/ada/hpcft/demo/jobs/002
