"""A real Slurm cluster for tests: slurmctld and a few slurmd as plain processes on loopback.

With root, every node has its own host name; without, all share the machine's. There is no
accounting database; a stand-in `sacct` answers from the controller's memory.
"""

import getpass
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from string import Template

from services.install import find
from services.processes import HOST, ProcessGroup, free_ports, wait_until

# NoInAddrAny: daemons and srun would listen to the whole network, and without authentication
# anybody could run jobs as this user. cred_expire is also how long a requeued job must wait
# (5 s is the least). Scheduling without timers, because tests should not wait for them.
_CONFIG = Template("""
ClusterName=test
FirstJobId=$first
SlurmctldHost=$hostname($host)
SlurmctldPort=$port
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
ReturnToService=2
EnforcePartLimits=ALL
JobRequeue=1
KillWait=$kill_wait
MinJobAge=3600
MessageTimeout=20
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_resolution=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$preemption
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
$nodes
PartitionName=DEFAULT Nodes=ALL MaxTime=60 DefaultTime=10 State=UP
PartitionName=batch Default=YES PriorityTier=10 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Default=NO PriorityTier=100 PreemptMode=OFF
""")
_USER_SIGNAL = "SlurmctldParameters=preempt_send_user_signal\n"
_CGROUPS = "CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n"  # read even where no cgroup plugin is in use


class SlurmCluster:
    """The running cluster; `env` makes sbatch, srun, squeue and submitit talk to it.

    Partition `batch` is preempted (and requeued) by `urgent`. A preempted job gets SIGTERM and, with
    `user_signal`, also the signal it asked for by `--signal`.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 2,
        cpus: int = 4,
        user_signal: bool = True,
        kill_wait: int = 5,
    ) -> None:
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.namespaces = _may_make_namespaces()
        self._group = ProcessGroup(folder)
        self._folder = folder
        self._config = folder / "slurm.conf"
        tools = str(folder / "bin")
        self.env = {
            "SLURM_CONF": str(self._config),
            "PATH": f"{tools}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            **self._group.env,
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._write_files(user_signal, kill_wait)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command against this cluster and give its output; failing, RuntimeError with stderr."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{shlex.join(command)} exited with {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What the controller knows of a job (`scontrol show job`); empty when it knows nothing."""
        return dict(
            re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "-o", "show", "job", job_id, check=False))
        )

    def wait(self, job_id: str, states: str | tuple[str, ...], timeout: float = 180) -> dict[str, str]:
        """Poll until the job is in one of the states, then give `job`; TimeoutError says where it is."""
        wanted = (states,) if isinstance(states, str) else states
        end = time.monotonic() + timeout
        while True:
            known = self.job(job_id)
            if known.get("JobState") in wanted:
                return known
            if time.monotonic() > end:
                raise TimeoutError(
                    f"job {job_id} is {known.get('JobState')}, not {wanted}, after {timeout} s: {known}"
                )
            time.sleep(0.2)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd; what runs there goes on until the daemon is back."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def revive_node(self, node: str) -> None:
        """Start a killed slurmd again; it ends what the controller does not know any more."""
        self._daemons[node] = self._group.start(f"slurmd.{node}", self._node_command(node), self.env)

    def send_user_signal(self, wanted: bool) -> None:
        """Have a preempted job sent the signal that it asked for, or SIGTERM alone."""
        without = self._config.read_text().replace(_USER_SIGNAL, "")
        self._config.write_text(without + (_USER_SIGNAL if wanted else ""))
        self.run("scontrol", "reconfigure")

    def close(self) -> None:
        """End the daemons and every job."""
        self._group.close()

    def _write_files(self, user_signal: bool, kill_wait: int) -> None:
        for name in ("state", "spool", "bin", *(f"spool/{node}" for node in self.nodes)):
            (self._folder / name).mkdir()
        port, *ports = free_ports(1 + len(self.nodes))
        self._config.write_text(
            _CONFIG.substitute(
                # Processes are found by their job, ports follow from it, and several clusters run at once.
                first=secrets.randbelow(900_000) + 1000,
                hostname=socket.gethostname().split(".")[0],
                host=HOST,
                port=port,
                user=getpass.getuser(),
                folder=self._folder,
                preemption=_USER_SIGNAL if user_signal else "",
                kill_wait=kill_wait,
                nodes="\n".join(map(self._node_line, self.nodes, ports)),
            )
        )
        (self._folder / "cgroup.conf").write_text(_CGROUPS)
        names = "".join(f"{HOST} {node}\n" for node in self.nodes)
        (self._folder / "hosts").write_text(Path("/etc/hosts").read_text() + names)
        shim = self._folder / "bin" / "sacct"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("sacct.py")} "$@"\n')
        shim.chmod(0o755)

    def _node_line(self, node: str, port: int) -> str:
        name = node if self.namespaces else socket.gethostname().split(".")[0]
        size = f"CPUs={self.cpus} RealMemory=16000"
        return f"NodeName={node} NodeHostname={name} NodeAddr={HOST} Port={port} {size} State=UNKNOWN"

    def _start(self) -> None:
        controller = self._group.start("slurmctld", [find("slurmctld") or "", "-D"], self.env)
        for node in self.nodes:
            self.revive_node(node)
        wait_until(self._all_idle, "slurm", controller, self._folder / "slurmctld.log")

    def _node_command(self, node: str) -> list[str]:
        daemon = [find("slurmd") or "", "-D", "-N", node]
        if not self.namespaces:
            return daemon
        hosts = shlex.quote(str(self._folder / "hosts"))
        script = f"hostname {node} && mount --bind {hosts} /etc/hosts && exec {shlex.join(daemon)}"
        return ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", script]

    def _all_idle(self) -> bool:
        idle = self.run("sinfo", "-h", "-p", "batch", "-N", "-t", "idle", "-o", "%N", check=False)
        return idle.split() == self.nodes


def _may_make_namespaces() -> bool:
    probe = ["unshare", "--uts", "--mount", "--propagation", "private", "hostname", "probe"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0
