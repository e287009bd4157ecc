"""A real S3 server for tests: Ceph's RADOS Gateway over one in-memory object store, on loopback.

Three plain processes (monitor, object store, gateway), no system service. Data is gone at the end.
"""

import json
import secrets
import subprocess
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from services.install import find
from services.processes import HOST, ProcessGroup, free_ports, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

REGION = "us-east-1"

# crc mode: the gateway asks for encrypted monitor sessions, which `none` authentication lacks.
# No admin socket: its path would not fit the 107 characters of a socket below pytest's folders.
# Short garbage collection: deleted objects otherwise stay in RAM for two hours.
_CONFIG = Template("""
[global]
fsid = $fsid
mon host = v2:$host:$mon_port
public addr = $host
cluster addr = $host
ms bind msgr1 = false
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
admin socket =
keyring = /dev/null
run dir = $folder
pid file = $folder/$$name.pid
log file = $folder/$$name.log
crash dir = $folder/crash
mon data = $folder/mon
osd data = $folder/osd
rgw data = $folder/rgw
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
paxos propose interval = 0.05
osd op num shards = 2
osd op num threads per shard = 1

[client.rgw.test]
rgw frontends = beast endpoint=$host:$rgw_port
rgw dns name = localhost
rgw thread pool size = 32
rgw gc obj min wait = 10
rgw gc processor period = 10
rgw gc processor max time = 10
rgw enable usage log = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw run sync thread = false
rgw override bucket index max shards = 1
rgw dynamic resharding = false
""")


class S3Server:
    """The running server; `env` is what boto3 and MLflow need to reach it."""

    def __init__(self, folder: Path) -> None:
        self._group = ProcessGroup(folder)
        self._folder = folder
        self._config = folder / "ceph.conf"
        self._used_names: dict[str, int] = {}
        self._mon_port, port = free_ports(2)
        self.endpoint = f"http://{HOST}:{port}"
        self.env = {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AK" + secrets.token_hex(9).upper(),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        try:
            self._start(port)
        except BaseException:
            self.close()
            raise

    def bucket(self, name: str) -> str:
        """Make an empty bucket and give its address: `s3://name`, or `s3://name-2` when taken."""
        uses = self._used_names[name] = self._used_names.get(name, 0) + 1
        bucket = name if uses == 1 else f"{name}-{uses}"
        self.client().create_bucket(Bucket=bucket)
        return f"s3://{bucket}"

    def client(self) -> "S3Client":
        """A plain boto3 client of this server, whatever the environment says."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def close(self) -> None:
        """End all three processes; the data goes with them."""
        self._group.close()

    def _start(self, port: int) -> None:
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        self._config.write_text(
            _CONFIG.substitute(
                fsid=fsid, host=HOST, mon_port=self._mon_port, rgw_port=port, folder=self._folder
            )
        )
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()
        self._monitor(fsid)
        self._object_store(osd)
        rgw = self._daemon("radosgw", "-n", "client.rgw.test")
        wait_until(self._answers, "radosgw", rgw, self._group.output("radosgw"))
        keys = (
            f"--access-key={self.env['AWS_ACCESS_KEY_ID']}",
            f"--secret-key={self.env['AWS_SECRET_ACCESS_KEY']}",
        )
        self._call(
            "radosgw-admin", "user", "create", "--uid=test", "--display-name=test", "--max-buckets=0", *keys
        )

    def _monitor(self, fsid: str) -> None:
        monmap = str(self._folder / "monmap")
        address = f"[v2:{HOST}:{self._mon_port}]"
        subprocess.run(
            ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap],
            check=True,
            capture_output=True,
        )
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        mon = self._daemon("ceph-mon", "-i", "a")
        wait_until(self._has_quorum, "ceph-mon", mon, self._group.output("ceph-mon"))

    def _object_store(self, osd: str) -> None:
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        process = self._daemon("ceph-osd", "-i", "0")
        wait_until(self._store_is_up, "ceph-osd", process, self._group.output("ceph-osd"))

    def _daemon(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._group.start(
            command, [find(command) or command, "-f", "-c", str(self._config), *arguments]
        )

    def _call(self, command: str, *arguments: str) -> str:
        done = self._try(command, *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"{command} {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _try(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [find(command) or command, "-c", str(self._config), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _has_quorum(self) -> bool:
        return self._try("ceph", "--connect-timeout", "10", "quorum_status").returncode == 0

    def _store_is_up(self) -> bool:
        return json.loads(self._call("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return True  # it refuses us without keys, so it is there
        except OSError:
            return False
        return True
