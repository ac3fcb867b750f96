"""A real Slurm on one machine, with accounting and two fake GPUs, in one folder.

``python -m tests.slurm.cluster up FOLDER`` brings it up and prints how to use it; ``down
FOLDER`` ends it. It needs Debian's slurm-wlm, slurmdbd, mariadb-server and munge, and neither
systemd nor cgroups: nothing outside the folder is written, and every port is one that was free.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = (
    "munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr",
)  # fmt: skip
USER = pwd.getpwuid(os.geteuid()).pw_name
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
NUM_GPUS = 2
PARTITION = "main"
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
SlurmdPort={slurmd}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
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
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 Gres=gpu:{gpus} State=UNKNOWN
NodeName=elsewhere NodeAddr=127.0.0.1 Port={other} CPUs=8 Gres=gpu:{gpus} State=DOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=far Nodes=elsewhere MaxTime=60 State=UP
"""


def missing() -> list[str]:
    """The programs that a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


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
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=self._environment(), start_new_session=True,
            )  # fmt: skip
        with (self.folder / "processes").open("a") as file:
            file.write(f"{name} {process.pid}\n")
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
        names = dict(zip(("sql", "dbd", "ctld", "slurmd", "other"), _free_ports(5), strict=True))
        host = socket.gethostname().partition(".")[0]
        self._munge()
        self._database(names["sql"])
        written = {
            "folder": folder, "host": host, "gpus": NUM_GPUS, "partition": PARTITION, "user": USER,
        }  # fmt: skip
        for name, text in (("slurmdbd.conf", _DBD), ("slurm.conf", _CONF)):
            path = folder / name
            path.write_text(text.format(**written, **names).lstrip())
            path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        gpus = [folder / f"gpu{number}" for number in range(NUM_GPUS)]
        for gpu in gpus:
            gpu.touch()
        lines = [f"Name=gpu File={gpu} Flags=nvidia_gpu_env\n" for gpu in gpus]
        (folder / "gres.conf").write_text("".join(lines))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        log = self._start("slurmdbd", "-D")
        _until("slurmdbd", lambda: _listens(names["dbd"]), log)
        added = self.run("sacctmgr", "--immediate", "add", "cluster", "tests")
        if added.returncode != 0:
            raise RuntimeError(f"sacctmgr: {added.stderr}")
        log = self._start("slurmctld", "-D")
        _until("slurmctld", lambda: self.run("scontrol", "ping").returncode == 0, log)
        log = self._start("slurmd", "-D", "-N", host)
        _until("slurmd", lambda: self._state() == "idle", log)

    def _state(self) -> str:
        shown = self.run("sinfo", "--noheader", f"--partition={PARTITION}", "--format", "%t")
        return shown.stdout.strip()

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
        common = ["--no-defaults", f"--datadir={data}", f"--user={USER}"]
        subprocess.run(
            ["mariadb-install-db", *common, "--skip-test-db"], env=self._environment(),
            capture_output=True, check=True,
        )  # fmt: skip
        first = self.folder / "first.sql"
        first.write_text(
            "CREATE USER slurm@'127.0.0.1';\n"
            "GRANT ALL ON slurm.* TO slurm@'127.0.0.1';\nCREATE DATABASE slurm;\n"
        )
        log = self._start(
            "mariadbd", *common, f"--port={port}", "--bind-address=127.0.0.1",
            f"--socket={self.folder}/mysql.socket", f"--init-file={first}",
            "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        _until("mariadbd", lambda: _listens(port), log)

    def down(self) -> None:
        """End the daemons that ``up`` started, the jobs first."""
        self.run("scancel", f"--user={USER}", "--signal=KILL")
        listed = self.folder / "processes"
        lines = listed.read_text().splitlines() if listed.exists() else []
        for line in reversed(lines):
            name, pid = line.split()
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
        raise SystemExit(f"a cluster needs these programs: {', '.join(missing())}")
    cluster.up()
    for name, value in cluster.variables.items():
        print(f"export {name}={value}")


if __name__ == "__main__":
    main()
