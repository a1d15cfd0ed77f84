"""A private, throw-away, real Slurm on this machine: for tests to submit to, and to try hpcft on by hand.

    python -m tests.slurm.lab up DIR [--nodes 2]     then: export SLURM_CONF=DIR/etc/slurm.conf
    python -m tests.slurm.lab down DIR

munged, mariadbd, slurmdbd (so that sacct works), slurmctld and one slurmd a node, as whoever starts it, on
free ports, every file in DIR. A node claims 24 CPUs, 250 GB and two V100s: devices that every Linux has stand
in for them, so that jobs get a CUDA_VISIBLE_DEVICES. Partitions: GPU (the default, 18 hours), debug (30
minutes) and preempt (18 hours; jobs of the other two preempt and requeue its jobs).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.config import GRES, GRES_LINE, NODE_LINE, SLURM_CONF, SLURMDBD_CONF, SQL
from tests.slurm.processes import Daemon, eventually, find_program, free_ports, kill_jobs, start_time
from tests.slurm.processes import LabError as LabError  # also for those who import the lab

PROGRAMS = (
    *("setpriv", "munged", "mariadbd", "mariadb", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd"),
    *("sacctmgr", "sinfo", "sbatch", "squeue", "sacct", "scancel", "scontrol"),
)
LONGEST_FOLDER = 80
"""Characters. The sockets lie in it, and Linux allows 107 in the name of one."""
SETTLED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"})


@dataclass
class Lab:
    """A private Slurm in one folder: start() it, talk to it with run(), stop() it."""

    folder: Path
    """Short (at most 80 characters), new, and on a local disk. Logs stay in folder/log after stop()."""
    nodes: int = 2
    """Named gpu1, gpu2, …"""
    settings: str = ""
    """More lines of slurm.conf."""
    dies_with_parent: bool = False
    """Have Linux kill the daemons when the thread that started them ends, however it ends."""
    daemons: dict[str, Daemon] = field(default_factory=dict)
    """What runs, by name: munged, mariadbd, slurmdbd, slurmctld, slurmd.gpu1, slurmd.gpu2, …"""

    @property
    def conf(self) -> Path:
        """slurm.conf; Slurm's commands find this cluster by it, in the variable SLURM_CONF."""
        return self.folder / "etc/slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's variables, without those of any other Slurm or of a job there, and SLURM_CONF."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        return kept | {"SLURM_CONF": str(self.conf)}

    @property
    def node_names(self) -> list[str]:
        """The nodes: ["gpu1", "gpu2"]."""
        return [f"gpu{number}" for number in range(1, self.nodes + 1)]

    def start(self) -> None:
        """Start everything; return when all nodes are idle (about five seconds); failing, stop what started.

        Raises LabError.
        """
        missing = missing_programs()
        if missing:
            raise LabError(f"a private Slurm needs {', '.join(missing)}: run tests/install-system-packages as root")
        self.folder = self.folder.resolve()
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise LabError(f"{self.folder}: longer than {LONGEST_FOLDER} characters, too long for the sockets in it")
        try:
            self._write_files()
            self._start_munge()
            self._start_accounting()
            self.start_daemon("slurmctld")
            for node in self.node_names:
                self.start_daemon(f"slurmd.{node}")
            self._wait_until(self._all_idle, "all nodes idle", log="slurmctld.log")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs, stop every daemon, kill what does not stop. Leaves the folder, for its logs."""
        if "slurmctld" in self.daemons:
            with contextlib.suppress(LabError):
                self.run("scancel", "--full", "--user", str(os.getuid()), timeout=10)
                eventually(lambda: not self.run("squeue", "--noheader", timeout=10), seconds=2)
            kill_jobs(self.folder)
        slurm = [name for name in self.daemons if name.startswith("slurm")]
        self.stop_daemons(slurm)
        self.stop_daemons(list(self.daemons))
        kill_jobs(self.folder)  # again: until then slurmd may have started one

    def run(self, *command: str, timeout: float = 30) -> str:
        """What a command of this cluster said (stdout, stripped). Raises LabError when it fails."""
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{' '.join(command)}: no answer in {timeout:g} s") from error
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """A job's state in the accounts, one word ("RUNNING", "COMPLETED"); "" until they know the job."""
        lines = self.run("sacct", "--noheader", "--parsable2", "-X", "-o", "State", "-j", job).split()
        return lines[0] if lines else ""

    def wait(self, job: str, states: Iterable[str] = SETTLED, seconds: float = 60) -> str:
        """The state of a job as soon as it is one of these states. Raises LabError after `seconds`."""
        wanted = frozenset(states)
        self._wait_until(
            lambda: self.state(job) in wanted,
            f"job {job} to be one of {', '.join(sorted(wanted))} (it is: %s)",
            seconds=seconds,
            log="slurmctld.log",
            detail=lambda: self.state(job),
        )
        return self.state(job)

    def start_daemon(self, name: str) -> None:
        """Start "slurmctld", or a node ("slurmd.gpu1") again that stop_daemons took away."""
        node = name.removeprefix("slurmd.")
        self._spawn(name, ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", node])

    def stop_daemons(self, names: Sequence[str], *, kill: bool = False) -> None:
        """Stop these daemons at once; with `kill`, or when they take over three seconds, by SIGKILL."""
        stopping = [self.daemons[name] for name in names]
        for daemon in stopping:
            daemon.send(signal.SIGKILL if kill else signal.SIGTERM)
        if not eventually(lambda: not any(daemon.alive() for daemon in stopping), seconds=3):
            for daemon in stopping:
                daemon.send(signal.SIGKILL)
            eventually(lambda: not any(daemon.alive() for daemon in stopping), seconds=3)
        for name in names:
            del self.daemons[name]
        self._record()

    def _write_files(self) -> None:
        for name in (
            "etc",
            "state",
            "log",
            "run",
            "db",
            *(f"spool.{node}" for node in self.node_names),
        ):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path in (self.folder, self.folder / "run"):
            path.chmod(0o755)  # munged refuses a socket in a folder that others may write, or may not enter
        key = self.folder / "etc/munge.key"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        controller, accounting, *node_ports = free_ports(2 + self.nodes)
        values = {
            "folder": str(self.folder),
            "host": socket.gethostname().split(".")[0],
            "user": user_name(),
            "controller_port": str(controller),
            "accounting_port": str(accounting),
        }
        nodes = [
            NODE_LINE.substitute(values, node=node, port=port)
            for node, port in zip(self.node_names, node_ports, strict=True)
        ]
        self.conf.write_text(SLURM_CONF.substitute(values, nodes="\n".join(nodes)) + self.settings)
        gres = [GRES_LINE.substitute(node=node, device=device) for node in self.node_names for device in GRES]
        (self.folder / "etc/gres.conf").write_text("\n".join(gres) + "\n")
        accounts = self.folder / "etc/slurmdbd.conf"
        accounts.touch(mode=0o600)
        accounts.chmod(0o600)  # slurmdbd refuses to start on a file that others may read
        accounts.write_text(SLURMDBD_CONF.substitute(values))

    def _start_munge(self) -> None:
        etc, run, log = (self.folder / name for name in ("etc", "run", "log"))
        files = {
            "key-file": etc / "munge.key",
            "socket": run / "munge.sock",
            "pid-file": run / "munged.own",
            "log-file": log / "munged.log",
            "seed-file": etc / "munge.seed",
        }
        options = [f"--{option}={path}" for option, path in files.items()]
        self._spawn("munged", ["munged", "--foreground", "--force", "--num-threads=4", *options])
        self._wait_until((run / "munge.sock").exists, "munged", log="munged.log")

    def _start_accounting(self) -> None:
        data, sock = self.folder / "db", self.folder / "run/db.sock"
        if not (data / "mysql").is_dir():
            install = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal"]
            self.run(*install, "--skip-test-db", f"--datadir={data}", f"--user={user_name()}", timeout=120)
        server = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={sock}", "--skip-networking"]
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"]
        self._spawn("mariadbd", [*server, *quick, f"--user={user_name()}"])
        client = ("mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "--execute")
        self._wait_until(lambda: self._works(*client, "select 1"), "mariadbd", log="mariadbd.out")
        self.run(*client, SQL)
        self._spawn("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(sock))
        self._wait_until(lambda: self._works("sacctmgr", "-n", "show", "cluster"), "slurmdbd", log="slurmdbd.log")
        self.run("sacctmgr", "-iQ", "add", "cluster", "lab")
        self.run("sacctmgr", "-iQ", "add", "account", "ft")
        self.run("sacctmgr", "-iQ", "add", "user", user_name(), "account=ft")

    def _spawn(self, name: str, command: Sequence[str], **variables: str) -> None:
        program, *options = command
        path = find_program(program)
        assert path is not None, program
        dying = ["setpriv", "--pdeathsig", "KILL"] if self.dies_with_parent else []
        with (self.folder / f"log/{name}.out").open("ab") as log:
            process = subprocess.Popen(
                [*dying, path, *options],
                env=self.environment | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.daemons[name] = Daemon(process.pid, start_time(process.pid) or 0, process)
        self._record()

    def _record(self) -> None:
        """Write down which processes are ours, for a `down` in another process."""
        record = {
            "nodes": self.nodes,
            "daemons": {name: [each.process_id, each.started] for name, each in self.daemons.items()},
        }
        temporary = self.folder / "lab.json.tmp"
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(self.folder / "lab.json")

    def _works(self, *command: str) -> bool:
        with contextlib.suppress(LabError):
            self.run(*command)
            return True
        return False

    def _all_idle(self) -> bool:
        return self.run("sinfo", "-h", "-p", "GPU", "-t", "idle", "-o", "%D") == str(self.nodes)

    def _wait_until(
        self,
        true: Callable[[], bool],
        what: str,
        *,
        seconds: float = 30,
        log: str = "",
        detail: Callable[[], str] | None = None,
    ) -> None:
        if eventually(true, seconds=seconds):
            return
        message = f"waited {seconds:g} s for {what % detail() if detail else what}"
        dead = [name for name, daemon in self.daemons.items() if not daemon.alive()]
        if dead:
            message += f"; not running: {', '.join(dead)}"
        path = self.folder / "log" / log
        if log and path.exists():
            message += f"; {path} ends\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        raise LabError(message)


def opened(folder: Path) -> Lab:
    """The Lab that `up` left running in a folder."""
    try:
        record = json.loads((folder / "lab.json").read_text())
    except FileNotFoundError as error:
        raise LabError(f"{folder}: no lab.json, so no Slurm was started here") from error
    daemons = {name: Daemon(*numbers) for name, numbers in record["daemons"].items()}
    return Lab(folder.resolve(), nodes=record["nodes"], daemons=daemons)


def missing_programs() -> list[str]:
    """Those of PROGRAMS that this machine has not."""
    return [name for name in PROGRAMS if find_program(name) is None]


def user_name() -> str:
    """The name of whoever runs this."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def main(arguments: Sequence[str]) -> int:
    """The exit code of `python -m tests.slurm.lab`."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.lab", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start a Slurm in a new folder")
    up.add_argument("folder", type=Path)
    up.add_argument("--nodes", type=int, default=2)
    verbs.add_parser("down", help="stop it").add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.verb == "down":
            opened(given.folder).stop()
            return 0
        lab = Lab(given.folder, nodes=given.nodes)
        lab.start()
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(lab.run("sinfo", "-N", "-p", "GPU", "-o", "%N %T %G %c %m"))
    print(f"export SLURM_CONF={lab.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
