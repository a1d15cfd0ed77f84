"""Downloads on the nodes that a site has for them, where its login nodes must not: through srun, which waits."""

from __future__ import annotations

from collections.abc import Sequence

from hpcft.launch.cluster import Cluster
from hpcft.launch.submission import flags


def transfer_command(cluster: Cluster, command: Sequence[str], account: str | None = None) -> list[str]:
    """The command as it runs on a transfer node of the cluster; as it is where login nodes may download.

    `account` is the recipe's own, in place of the cluster's.
    """
    if cluster.kind != "slurm" or not cluster.transfer_options:
        return list(command)
    account = account or cluster.account
    billed = {"account": account} if account else {}
    options = {"nodes": "1", "ntasks": "1", "job-name": "hpcft-fetch", **billed, **cluster.transfer_options}
    return ["srun", *flags(options), *command]
