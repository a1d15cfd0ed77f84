#!/bin/bash

# Parameters
#SBATCH --account=def-someone
#SBATCH --comment=hpcft:/lustre/work/hpcft/demo:2
#SBATCH --cpus-per-task=16
#SBATCH --dependency=afterany:4711
#SBATCH --gres=gpu:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-002
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/lustre/work/hpcft/demo/jobs/002/%j_0_log.out
#SBATCH --partition=boost_usr_prod
#SBATCH --signal=B:USR2@180
#SBATCH --time=90

# setup
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/lustre/work/hpcft/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/ft/bin/python -u -m submitit.core._submit /lustre/work/hpcft/demo/jobs/002
