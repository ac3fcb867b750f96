"""A real Slurm on one machine, with accounting, two nodes and fake GPUs, in one folder.

``python -m tests.slurm.cluster up FOLDER`` brings it up and prints how to use it; ``down
FOLDER`` ends it. It needs Debian's slurm-wlm, slurmdbd, mariadb-server and munge, and neither
systemd, cgroups nor root: daemons and jobs are those of the user who brings it up. Nothing outside
the folder is written, and every port is one that was free.
The partition ``main`` has one node with two GPUs; ``mixed`` has a second node with one of another
kind; ``far`` has a node that is not there.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sacctmgr",
)
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
NUM_GPUS = {"h100": 2, "a100": 1}
"""On this machine's node, and on the second."""
HOST, SECOND = socket.gethostname().partition(".")[0], "second"
START_S = 60.0
_DBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
MpiDefault=none
GresTypes=gpu
ReturnToService=2
OverTimeLimit=0
KillWait=8
MinJobAge=300
InactiveLimit=0
MessageTimeout=30
PropagateResourceLimits=NONE
NodeName={host} NodeAddr=127.0.0.1 Port={slurmd} CPUs=8 RealMemory=1000 Gres=gpu:h100:2
NodeName={second} NodeHostname={host} NodeAddr=127.0.0.1 Port={slurmd2} CPUs=8 Gres=gpu:a100:1
NodeName=elsewhere NodeAddr=127.0.0.1 Port={other} CPUs=8 Gres=gpu:2 State=DOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=mixed Nodes={host},{second} MaxTime=60 State=UP
PartitionName=far Nodes=elsewhere MaxTime=60 State=UP
"""


def user() -> str | None:
    """The name of who runs this; None for a number without one, as containers have them."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def missing() -> list[str]:
    """What a cluster needs and this machine lacks."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return lacking if user() else [*lacking, f"a name for user {os.geteuid()}"]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _until(what: str, ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"{what} does not come up:\n{tail}")
        time.sleep(0.1)


class Cluster:
    """The daemons of one folder. ``up`` starts them; ``down`` ends them in reverse order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        """What a program needs in its environment to talk to this cluster."""

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A Slurm command against this cluster."""
        return subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": PATH, **self.variables}

    def _start(self, name: str, *arguments: str) -> Path:
        """Start a daemon in the foreground; its process id is kept in the folder."""
        log = self.folder / f"{name}.out"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [shutil.which(name, path=PATH) or name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environment(),
                start_new_session=True,
            )
        with (self.folder / "processes").open("a") as file:
            file.write(f"{name} {process.pid} {' '.join(arguments)}\n")
        return log

    def up(self) -> None:
        """Start everything and wait until the node is idle; RuntimeError says what is not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        try:
            self._up()
        except BaseException:
            self.down()
            raise

    def _up(self) -> None:
        folder = self.folder
        daemons = ("sql", "dbd", "ctld", "slurmd", "slurmd2", "other")
        names = dict(zip(daemons, _free_ports(len(daemons)), strict=True))
        self._munge()
        self._database(names["sql"])
        written = {"folder": folder, "host": HOST, "second": SECOND, "user": user()}
        for name, text in (("slurmdbd.conf", _DBD), ("slurm.conf", _CONF)):
            path = folder / name
            path.write_text(text.format(**written, **names).lstrip())
            path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        lines = []
        for node, (kind, count) in zip((HOST, SECOND), NUM_GPUS.items(), strict=True):
            for gpu in [folder / f"{kind}-{number}" for number in range(count)]:
                gpu.touch()
                words = f"Name=gpu Type={kind} File={gpu} Flags=nvidia_gpu_env"
                lines.append(f"NodeName={node} {words}\n")
        (folder / "gres.conf").write_text("".join(lines))
        (folder / "state").mkdir()
        log = self._start("slurmdbd", "-D")
        _until("slurmdbd", lambda: _listens(names["dbd"]), log)
        added = self.run("sacctmgr", "--immediate", "add", "cluster", "tests")
        if added.returncode != 0:
            raise RuntimeError(f"sacctmgr: {added.stderr}")
        log = self._start("slurmctld", "-D")
        _until("slurmctld", lambda: self.run("scontrol", "ping").returncode == 0, log)
        for node in (HOST, SECOND):
            (folder / f"spool.{node}").mkdir()
            log = self._start("slurmd", "-D", "-N", node)
        _until("slurmd", self._is_idle, log)

    def _is_idle(self) -> bool:
        shown = self.run("sinfo", "--noheader", "--partition=mixed", "--format", "%t")
        return shown.stdout.split() == ["idle"]

    def lose(self, node: str) -> None:
        """End a node as a power cut would, with all that runs there; then Slurm hears of it."""
        there = list(processes(SLURMD_NODENAME=node))
        ended = [above for above in map(parent, there) if _is(above, "slurmstepd")]
        for line in (self.folder / "processes").read_text().splitlines():
            name, pid, *arguments = line.split()
            if name == "slurmd" and arguments[-1] == node:
                ended.append(int(pid))
        # First those that would tell how the rest has ended.
        for pid in (*ended, *there):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def _munge(self) -> None:
        folder = self.folder
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={folder}/munge.{end}" for option, end in names.items()]
        log = self._start("munged", "--foreground", "--force", f"--key-file={key}", *files)
        _until("munged", (folder / "munge.socket").exists, log)

    def _database(self, port: int) -> None:
        data = self.folder / "mysql"
        common = ["--no-defaults", f"--datadir={data}", f"--user={user()}"]
        subprocess.run(
            ["mariadb-install-db", *common, "--skip-test-db"],
            env=self._environment(),
            capture_output=True,
            check=True,
        )
        first = self.folder / "first.sql"
        first.write_text(
            "CREATE USER slurm@'127.0.0.1';\n"
            "GRANT ALL ON slurm.* TO slurm@'127.0.0.1';\nCREATE DATABASE slurm;\n"
        )
        log = self._start(
            "mariadbd",
            *common,
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/mysql.socket",
            f"--init-file={first}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
        )
        _until("mariadbd", lambda: _listens(port), log)

    def down(self) -> None:
        """End the daemons that ``up`` started, the jobs first."""
        self.run("scancel", f"--user={user()}", "--signal=KILL")
        listed = self.folder / "processes"
        lines = listed.read_text().splitlines() if listed.exists() else []
        for line in reversed(lines):
            name, pid = line.split()[:2]
            if not _is(int(pid), name):
                continue
            os.kill(int(pid), signal.SIGTERM)
            deadline = time.monotonic() + 10
            while _is(int(pid), name) and time.monotonic() < deadline:
                _reap(int(pid))
                time.sleep(0.05)
            if _is(int(pid), name):
                os.kill(int(pid), signal.SIGKILL)
                _reap(int(pid))
        listed.unlink(missing_ok=True)


def processes(**variables: str) -> Iterator[int]:
    """Those that were started with all these in their environment, as Slurm's jobs are."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended, or is somebody else's
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    yield int(folder.name)


def parent(pid: int) -> int:
    """Its parent's process id; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _is(pid: int, name: str) -> bool:
    """Whether that process still is the daemon of that name."""
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip() == name[:15]
    except OSError:
        return False


def _reap(pid: int) -> None:
    """A daemon of this process stays a zombie until it is waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def main() -> None:
    """The command line: ``up FOLDER`` or ``down FOLDER``."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("up", "down"):
        raise SystemExit("usage: python -m tests.slurm.cluster up|down FOLDER")
    cluster = Cluster(Path(sys.argv[2]).absolute())
    if sys.argv[1] == "down":
        cluster.down()
        return
    if missing():
        raise SystemExit(f"a cluster needs what is missing here: {', '.join(missing())}")
    cluster.up()
    for name, value in cluster.variables.items():
        print(f"export {name}={value}")


if __name__ == "__main__":
    main()
