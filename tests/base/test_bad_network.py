"""A network that loses, cuts, delays and alters, in front of a real S3 server: nothing gets lost.

`HVC_SOAK=1` makes outages as long as in real life and reads far more.
"""

import io
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hvc.base import s3_upload
from hvc.base.errors import UsageError
from hvc.base.storage import AlreadyExistsError, StorageError, Stored, open_store, sha256_file

pytestmark = pytest.mark.services

SOAK = bool(os.environ.get("HVC_SOAK"))
OUTAGE = 20.0 if SOAK else 3.0
READS = 8_000 if SOAK else 2_000
KILLED = """
import sys
from pathlib import Path
from hvc.base import s3_upload
from hvc.base.storage import open_store
s3_upload.ONE_REQUEST_BYTES = 20 << 20
open_store(sys.argv[1]).upload("object", Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("HVC_S3_TIMEOUT", "5")
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 20 << 20)


def make_file(path, size, seed=0):
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def unfinished(server, address):
    answer = server.client().list_multipart_uploads(Bucket=address.removeprefix("s3://"))
    return [upload["Key"] for upload in answer.get("Uploads", [])]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10 if SOAK else 1))
@pytest.mark.soak
def test_every_operation_ends_right_when_a_third_goes_wrong(s3_env, faulty_s3, tmp_path, seed):
    address = s3_env.bucket("third")
    store = open_store(address + "/p")
    list(store.names())  # the first answer, over the good line
    proxy = faulty_s3(0.3, seed)
    store = open_store(address + "/p")
    contents = {f"{number:02}": os.urandom(1000 * number) for number in range(1, 25)}
    for name, data in contents.items():
        store.write(name, data)
        assert store.exists(name)
        assert store.read(name) == data
        assert (
            store.read_range(name, len(data) // 2, len(data) // 4)
            == data[len(data) // 2 :][: len(data) // 4]
        )
        assert not store.exists(f"{name}x")
        store.create(f"{name}-claim", data)
        with pytest.raises(AlreadyExistsError):
            store.create(f"{name}-claim", data)
    assert [name for name in store.names() if "-" not in name] == sorted(contents)
    for size in (100_000, 40 << 20):
        path = make_file(tmp_path / "file", size)
        copy, digest = path.read_bytes(), sha256_file(path)
        store.upload("up", path, digest)
        assert store.stored("up") == Stored(size, digest)
        target = io.BytesIO()
        store.fetch("up", target)
        assert target.getvalue() == copy
    for name in list(store.names()):
        store.delete(name)
    assert list(store.names()) == []
    store.abort_uploads()
    assert unfinished(s3_env, address) == []
    faults = sum(proxy.counts[kind] for kind in proxy.kinds)
    assert all(proxy.counts[kind] for kind in proxy.kinds)
    assert store.retries >= 0.5 * (faults - proxy.counts["delay"])


@pytest.mark.slow
@pytest.mark.soak
def test_thousands_of_reads_are_exact_through_faults_and_an_outage(s3_env, faulty_s3):
    address = s3_env.bucket("reads")
    data = random.Random(0).randbytes(8 << 20)
    open_store(address).write("object", data)
    proxy = faulty_s3(0.05, 7)
    store = open_store(address)
    places = [
        (draw.randrange(7 << 20), draw.randrange(1, 100_000))
        for draw in [random.Random(1)]
        for _ in range(READS)
    ]

    def read(number):
        if number == READS // 2:
            proxy.outage(OUTAGE)
        offset, length = places[number]
        return store.read_range("object", offset, length) == data[offset : offset + length]

    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(READS)))
    assert time.monotonic() - start > OUTAGE
    assert proxy.counts["outage"] >= 8
    assert all(proxy.counts[kind] for kind in proxy.kinds)
    assert store.retries >= sum(proxy.counts[kind] for kind in proxy.kinds if kind != "delay")


def test_what_was_altered_on_the_way_is_refused_and_sent_again(s3_env, faulty_s3, tmp_path, caplog):
    address = s3_env.bucket("altered")
    open_store(address).write("first", b"")
    proxy = faulty_s3(share=0, alter=0.4)
    store = open_store(address)
    for number in range(10):
        data = os.urandom(50_000)
        store.write(f"{number}", data)
        assert store.read(f"{number}") == data
        store.create(f"{number}-claim", data)
        assert store.read(f"{number}-claim") == data
    for size in (300_000, 80 << 20):
        path = make_file(tmp_path / "file", size)
        digest = sha256_file(path)
        store.upload("up", path, digest)
        target = tmp_path / "back"
        with target.open("wb") as file:
            store.fetch("up", file)
        assert sha256_file(target) == digest
    assert proxy.counts["alter"] >= 5
    assert store.retries >= proxy.counts["alter"]
    assert "XAmzContentSHA256Mismatch" in caplog.text


def test_altered_each_time_it_is_never_stored(s3_env, faulty_s3, tmp_path, monkeypatch):
    address = s3_env.bucket("never")
    path = make_file(tmp_path / "file", 30 << 20)
    proxy = faulty_s3(share=0, alter=1.0)
    monkeypatch.setenv("HVC_S3_PATIENCE", "1")
    store = open_store(address)
    with pytest.raises(StorageError, match=rf"cannot write {address}/a: .*SHA256.*attempts? in"):
        store.write("a", b"something")
    with pytest.raises(StorageError, match="SHA256"):
        store.upload("b", path)
    assert path.exists()
    assert proxy.counts["alter"] > 2
    assert list(store.names()) == []
    assert unfinished(s3_env, address) == []


def test_an_answer_whose_head_is_cut_is_asked_again(s3_env, faulty_s3):
    address = s3_env.bucket("heads")
    open_store(address).write("x", bytes(123_456))
    proxy = faulty_s3(share=0.5, kinds=("truncate",))
    store = open_store(address)
    assert {store.size("x") for _ in range(40)} == {123_456}  # an answer without a body is its head
    assert proxy.counts["truncate"] > 10


def test_a_lost_answer_to_create_is_no_defeat(s3_env, faulty_s3):
    address = s3_env.bucket("lost")
    proxy = faulty_s3(share=1.0, kinds=("lose",))
    store = open_store(address)

    def mend_after_two() -> None:
        while proxy.counts["lose"] < 2:
            time.sleep(0.02)
        proxy.share = 0.0

    mender = threading.Thread(target=mend_after_two, daemon=True)
    mender.start()
    store.create("claim", b"mine")
    mender.join(60)
    assert proxy.counts["lose"] >= 2
    assert store.read("claim") == b"mine"
    open_store(address).write("other", b"theirs")
    proxy.share = 0.9
    timer = threading.Timer(0.5, lambda: setattr(proxy, "share", 0.0))
    timer.start()
    with pytest.raises(AlreadyExistsError):
        store.create("other", b"theirs")  # even with the same content, it is not ours
    timer.join()


def test_racers_over_a_bad_network_have_one_winner(s3_env, faulty_s3):
    address = s3_env.bucket("race")
    faulty_s3(0.3, 5, kinds=("reset", "lose", "cut", "busy"))

    def race(number):
        try:
            open_store(f"{address}/{number // 16}").create("claim", b"same for all")
        except AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        wins = list(pool.map(race, range(48)))
    assert [sum(wins[start : start + 16]) for start in (0, 16, 32)] == [1, 1, 1]


def test_a_killed_upload_leaves_nothing_once_aborted(s3_env, faulty_s3, tmp_path):
    address = s3_env.bucket("killed")
    path = make_file(tmp_path / "file", 120 << 20)
    proxy = faulty_s3(share=1.0, kinds=("delay",))
    proxy.delay = 1.0
    process = subprocess.Popen([sys.executable, "-c", KILLED, address + "/data", str(path)])
    deadline = time.monotonic() + 180
    while proxy.counts["requests"] < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    proxy.share = 0.0
    assert unfinished(s3_env, address) == ["data/object"]
    assert open_store(address + "/elsewhere").abort_uploads() == 0
    assert open_store(address).abort_uploads("other") == 0
    assert open_store(address).abort_uploads("data/") == 1
    assert unfinished(s3_env, address) == []
    assert list(open_store(address).names()) == []


def test_abort_without_the_right_to_is_a_warning(s3_env, monkeypatch, caplog):
    address = s3_env.bucket("rights")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert open_store(address).abort_uploads() == 0
    assert "access denied" in caplog.text


def test_a_long_outage_ends_in_words(s3_env, faulty_s3, monkeypatch):
    address = s3_env.bucket("dark")
    monkeypatch.setenv("HVC_S3_PATIENCE", "2")
    proxy = faulty_s3(share=0)
    store = open_store(address)
    store.write("x", b"1")
    proxy.outage(60)
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=rf"cannot read {address}/x: .*\(\d+ attempts in \d+ s\); \w+"
    ) as caught:
        store.read_range("x", 0, 1)
    assert 1.9 < time.monotonic() - start < 20
    assert "Signature" not in str(caught.value)
    assert s3_env.env["AWS_ACCESS_KEY_ID"] not in str(caught.value)


def heal_after_one(proxy):
    while not proxy.counts["delay"]:
        time.sleep(0.01)
    proxy.share = 0.0


def test_a_hung_server_is_noticed(s3_env, faulty_s3, monkeypatch):
    address = s3_env.bucket("hung")
    open_store(address).write("x", b"123")
    proxy = faulty_s3(share=1.0, kinds=("delay",))
    proxy.delay = 30
    monkeypatch.setenv("HVC_S3_TIMEOUT", "0.5")
    store = open_store(address)
    threading.Thread(target=heal_after_one, args=(proxy,), daemon=True).start()
    assert store.read_range("x", 1, 1) == b"2"
    assert store.retries >= 1


def test_no_server_at_first_contact_is_said_soon(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://bucket/x.*attempts.*AWS_ENDPOINT_URL_S3"):
        open_store("s3://bucket").read_range("x", 0, 5)
    assert time.monotonic() - start < 12


def test_an_address_that_is_none_is_wrong_use(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "s3.example.org")
    with pytest.raises(
        UsageError, match=r"Invalid endpoint: s3\.example\.org; correct AWS_ENDPOINT_URL_S3"
    ):
        open_store("s3://bucket").read_range("x", 0, 5)


def test_a_wrong_patience_is_refused(monkeypatch):
    monkeypatch.setenv("HVC_S3_PATIENCE", "long")
    with pytest.raises(ValueError, match="HVC_S3_PATIENCE=long"):
        open_store("s3://bucket")


def test_forked_workers_and_threads_share_a_store(s3_env, faulty_s3, tmp_path):
    address = s3_env.bucket("fork")
    data = os.urandom(1 << 20)
    open_store(address).write("x", data)
    faulty_s3(0.05, 3)
    store = open_store(address)
    assert store.read("x") == data
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            good = False
            try:
                with ThreadPoolExecutor(4) as pool:
                    parts = pool.map(lambda at: store.read_range("x", at * 10_000, 10_000), range(100))
                    good = b"".join(parts) == data[:1_000_000]
            finally:
                os._exit(0 if good else 1)
        children.append(pid)
    assert store.read_range("x", 5, 100) == data[5:105]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
