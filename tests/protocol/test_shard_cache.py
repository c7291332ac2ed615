import fcntl
import hashlib
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import pytest

from brokers.errors import Corrupted
from brokers.shards.cache import ShardCache

#: A process that gets one file, says so in a line, and notes each download in a log.
CLIENT = """
import sys
from pathlib import Path
from brokers.shards.cache import ShardCache

directory, sha256, log = sys.argv[1:]
sys.stdin.readline()

def fetch():
    with open(log, "a") as file:
        file.write("fetched\\n")
    return b"x" * 5_000_000

print(len(ShardCache(Path(directory), 10**9).get(sha256, fetch).read_bytes()))
"""


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source(content: bytes, calls: list[bytes]) -> Callable[[], bytes]:
    def fetch() -> bytes:
        calls.append(content)
        return content

    return fetch


def test_cached_file_is_fetched_once(tmp_path: Path) -> None:
    calls: list[bytes] = []
    cache = ShardCache(tmp_path, 100)

    first = cache.get(sha(b"abc"), source(b"abc", calls))
    again = ShardCache(tmp_path, 100).get(sha(b"abc"), source(b"abc", calls))

    assert first == again
    assert first.read_bytes() == b"abc"
    assert len(calls) == 1


def test_processes_that_want_one_file_at_once_download_it_once(tmp_path: Path) -> None:
    content = b"x" * 5_000_000
    log = tmp_path / "log"
    command = [sys.executable, "-c", CLIENT, str(tmp_path / "cache"), sha(content), str(log)]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]

    for client in clients:
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
    answers = [client.communicate()[0].strip() for client in clients]

    assert answers == ["5000000"] * 4
    assert log.read_text() == "fetched\n"


def test_threads_that_want_one_file_at_once_download_it_once(tmp_path: Path) -> None:
    calls: list[bytes] = []
    cache = ShardCache(tmp_path, 10**9)
    content = b"y" * 1_000_000

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: cache.get(sha(content), source(content, calls)), range(8)))

    assert {path.read_bytes() for path in paths} == {content}
    assert len(calls) == 1


@pytest.mark.parametrize("damage", [b"", b"abX", b"abcd"], ids=["empty", "changed", "longer"])
@pytest.mark.parametrize("known", [True, False], ids=["verified-before", "found"])
def test_damaged_file_is_fetched_again(tmp_path: Path, damage: bytes, known: bool) -> None:
    calls: list[bytes] = []
    cache = ShardCache(tmp_path, 100)
    path = cache.get(sha(b"abc"), source(b"abc", calls))
    path.write_bytes(damage)
    os.utime(path, (1, 1))  # so that not even a coarse clock hides the change

    cache = cache if known else ShardCache(tmp_path, 100)
    path = cache.get(sha(b"abc"), source(b"abc", calls))

    assert path.read_bytes() == b"abc"
    assert len(calls) == 2


def test_download_with_another_hash_is_refused_and_not_kept(tmp_path: Path) -> None:
    calls: list[bytes] = []
    cache = ShardCache(tmp_path, 100)

    with pytest.raises(Corrupted, match="SHA-256"):
        cache.get(sha(b"abc"), source(b"abX", calls))

    assert cache.num_bytes() == 0
    assert len(calls) == 2


def test_download_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 100)

    with pytest.raises(ConnectionError):
        cache.get(sha(b"abc"), lambda: (_ for _ in ()).throw(ConnectionError()))
    path = cache.get(sha(b"abc"), lambda: b"abc")

    assert path.read_bytes() == b"abc"
    assert [p for p in tmp_path.iterdir() if p.is_file()] == [path]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_least_recently_used_file_is_dropped_first(tmp_path: Path, order: tuple[int, ...]) -> None:
    cache = ShardCache(tmp_path, 30)
    contents = [bytes([letter]) * 10 for letter in b"abcd"]
    paths = [cache.get(sha(content), source(content, [])) for content in contents[:3]]
    for age, number in enumerate(order):
        path = paths[number]
        os.utime(path, ns=(age + 1, path.stat().st_mtime_ns))
    cache.touch(sha(contents[order[0]]))  # the oldest one is in use after all

    last = cache.get(sha(contents[3]), source(contents[3], []))

    assert [path.exists() for path in paths] == [number != order[1] for number in range(3)]
    assert last.exists()
    assert cache.num_bytes() == 30


def test_cache_stays_within_its_bound_while_many_processes_fill_it(tmp_path: Path) -> None:
    contents = [os.urandom(1000) for _ in range(60)]
    caches = [ShardCache(tmp_path, 10_000) for _ in range(4)]

    def fill(worker: int) -> int:
        most = 0
        for content in contents[worker::2]:
            caches[worker].get(sha(content), source(content, []))
            most = max(most, caches[worker].num_bytes())
        return most

    with ThreadPoolExecutor(4) as pool:
        most = max(pool.map(fill, range(4)))

    # A writer makes room before it writes: four at once may be three files over for a moment.
    assert 5_000 <= most <= 13_000


def test_file_larger_than_the_cache_is_kept_alone(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 5)
    small = cache.get(sha(b"ab"), lambda: b"ab")

    large = cache.get(sha(b"abcdefgh"), lambda: b"abcdefgh")

    assert large.read_bytes() == b"abcdefgh"
    assert not small.exists()


def test_dropped_file_stays_readable_for_whoever_has_it_mapped(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 10)
    path = cache.get(sha(b"a" * 10), lambda: b"a" * 10)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    cache.get(sha(b"b" * 10), lambda: b"b" * 10)

    assert not path.exists()
    assert mapped[:] == b"a" * 10


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 100)
    old, new = tmp_path / "tmpold.part", tmp_path / "tmpnew.part"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))

    cache.get(sha(b"abc"), lambda: b"abc")

    assert not old.exists()
    assert new.exists()


def test_frozen_process_that_holds_the_lock_only_delays_the_others(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 100, lock_wait_s=0.2)
    lock = (tmp_path / "locks" / sha(b"abc")[:2]).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    started = time.monotonic()
    path = cache.get(sha(b"abc"), lambda: b"abc")
    waited = time.monotonic() - started
    lock.close()

    assert path.read_bytes() == b"abc"
    assert 0.2 <= waited < 5


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64])
def test_only_a_hash_names_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a SHA-256"):
        ShardCache(tmp_path, 100).get(name, lambda: b"")
