"""Refusals: sbatch's words, as Slurm 22.05 says them, become what is wrong and what to do."""

from __future__ import annotations

import pytest

from hpcft.errors import Fault
from hpcft.launch.refusals import explain

OPTIONS = {
    "partition": "GPUU", "account": "ft", "qos": "nrmal", "constraint": "v1000", "gres": "tpu:1", "mem": "900G",
    "cpus-per-task": "400", "nodes": "5", "reservation": "course", "exclude": "gpu9", "time": "600",
}  # fmt: skip
KNOWN = {"partition": ["GPU", "debug"], "account": ["dssc", "lade"], "qos": ["normal"]}
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
PLACE = "It stands in the recipe's resources or in the cluster's file."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "Invalid partition name specified",
            f'sbatch --partition=GPUU: there is no partition "GPUU". Did you mean "GPU"? {PLACE}',
        ),
        (
            "Invalid account or account/partition combination specified",
            'sbatch --account=ft: the account "ft" is not yours, or not for this partition. Known here: dssc, lade. '
            + PLACE,
        ),
        (
            "Invalid qos specification",
            f'sbatch --qos=nrmal: the qos "nrmal" is not for you, or there is none. Did you mean "normal"? {PLACE}',
        ),
        (
            "Requested time limit is invalid (missing or exceeds some limit)",
            "sbatch --time=600: no job may be that long. Write a shorter resources.walltime: the chain goes on past it "
            "by itself.",
        ),
        (
            f"AssocMaxSubmitJobLimit Batch job submission failed: {POLICY}",
            "sbatch --account=ft: your association takes no more jobs in the queue (AssocMaxSubmitJobLimit). "
            "Wait until jobs have ended, or write a smaller resources.queued.",
        ),
        (
            f"QOSMaxSubmitJobPerUserLimit Batch job submission failed: {POLICY}",
            "sbatch --qos=nrmal: the qos takes no more jobs of yours in the queue (QOSMaxSubmitJobPerUserLimit). "
            "Wait until jobs have ended, or write a smaller resources.queued.",
        ),
        (
            "Invalid feature specification",
            f'sbatch --constraint=v1000: no node has the feature "v1000". {PLACE}',
        ),
        (
            "Invalid generic resource (gres) specification",
            'sbatch --gres=tpu:1: this Slurm does not know "tpu:1". Mend gpu_request in the cluster\'s file: '
            "`hpcft cluster check`.",
        ),
        (
            "Requested node configuration is not available",
            "sbatch: no node has what the job asks for. Ask for fewer GPUs, cores or less memory: `hpcft cluster "
            "check`.",
        ),
    ],
)  # fmt: skip
def test_each_refusal_says_what_is_wrong_and_what_to_do(words: str, message: str) -> None:
    fault = Fault("sbatch", f"Batch job submission failed: {words}")
    assert str(explain(fault, OPTIONS, lambda option: KNOWN.get(option, []))) == message


def test_a_missing_account_and_a_silent_slurm_still_name_the_place() -> None:
    fault = Fault("sbatch", "Invalid account or account/partition combination specified")
    assert str(explain(fault, {}, lambda option: KNOWN.get(option, []))) == (
        f"sbatch: Invalid account or account/partition combination. {PLACE}"
    )
    gone = Fault("sbatch", "Invalid partition name specified")
    assert str(explain(gone, OPTIONS, lambda option: [])) == (
        f'sbatch --partition=GPUU: there is no partition "GPUU". {PLACE}'
    )


def test_slurm_is_asked_for_names_only_where_one_is_wrong_and_other_words_stay() -> None:
    def known(option: str) -> list[str]:
        raise AssertionError(option)

    away = Fault("sbatch", "is not on PATH.", "Run this on a node of the cluster.")
    assert explain(away, OPTIONS, known) == away
    explain(Fault("sbatch", "AssocMaxSubmitJobLimit"), OPTIONS, known)
