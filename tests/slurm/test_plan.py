"""The plan on a real Slurm: what is printed is what is sent, and what Slurm says of it."""

from __future__ import annotations

from pathlib import Path

from tests.hub import serving
from tests.slurm.lab import Lab
from tests.slurm.runs import make_site


def test_the_script_that_is_printed_is_the_one_that_sbatch_gets(slurm: Lab, tmp_path: Path) -> None:
    site = make_site(tmp_path, slurm, {"train": {"steps": 8}, "data": {"workers": 0}})
    for name in ("tiny", "tiny-2"):
        printed, _, plan = site.hpcft("submit", str(site.recipe), "--dry-run").partition("\n# plan\n")
        run = site.submit()
        assert run.name == name
        (sent,) = (path for path in run.job(1).path.glob("*_submission.sh") if not path.is_symlink())
        assert sent.read_bytes() == printed.encode()
        site.hpcft("cancel", name)
        start = next(line for line in plan.splitlines() if line.startswith("# start"))
        assert start.startswith("# start        20") and start.endswith(f", on {slurm.node_names[0]}"), start


def test_what_sbatch_would_refuse_is_the_same_fault_in_the_dry_run(slurm: Lab, tmp_path: Path) -> None:
    site = make_site(tmp_path, slurm, reservation="nosuch")
    words = site.hpcft("submit", str(site.recipe), "--dry-run", code=2)
    fault = words.splitlines()[-1]
    assert 'there is no reservation "nosuch".' in fault
    assert "\n# start        sbatch refuses it: " in words
    assert site.hpcft("submit", str(site.recipe), code=2) == f"{fault}\n"


def test_a_fetch_runs_on_the_nodes_that_the_site_has_for_it(slurm: Lab, tmp_path: Path) -> None:
    transfer = {"partition": "GPU", "nodelist": slurm.node_names[1]}
    values = {"model": {"path": "owner/tiny"}}
    site = make_site(tmp_path, slurm, values, internet=False, cache=str(tmp_path / "cache"), transfer_options=transfer)
    with serving() as hub:
        hub.push_folder("owner/tiny", tmp_path / "model")
        words = site.hpcft("fetch", str(site.recipe), HF_ENDPOINT=hub.url)
    asked = f"--job-name=hpcft-fetch --nodelist={slurm.node_names[1]} --nodes=1 --ntasks=1 --partition=GPU"
    assert words.splitlines()[0] == f"asks Slurm for a node: {asked}"
    assert words.splitlines()[1].startswith("owner/tiny at main: ")
    seen = slurm.run("squeue", "--states=all", "--noheader", "--format=%j %N", "--name=hpcft-fetch").split()
    assert seen == ["hpcft-fetch", slurm.node_names[1]]
    assert site.hpcft("submit", str(site.recipe), "--dry-run").startswith("#!/bin/bash")
