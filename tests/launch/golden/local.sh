#!/bin/bash
unset PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PATH=/envs/ft/bin:$PATH
export VIRTUAL_ENV=/envs/ft
export PYTHONPATH=/runs/demo/code PYTHONSAFEPATH=1
exec /envs/ft/bin/python "$@"
