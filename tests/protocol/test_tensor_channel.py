"""Blobs through the state server arrive whole or not at all."""

import random
import threading
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from brokers.errors import BackendUnreachable, ChunksMissing, Corrupted
from brokers.tensors.channel import TensorChannel
from brokers.tensors.chunks import CHUNK_BYTES, TTL_S, checksum
from brokers.tensors.reference import TensorRef


@pytest.fixture
def channel(client: Redis) -> TensorChannel:
    return TensorChannel(client)


@pytest.fixture
def key(job_id: str) -> str:
    return f"kml:{{{job_id}}}:w:0"


def blob_of(num_bytes: int) -> bytes:
    return random.Random(num_bytes).randbytes(num_bytes)  # noqa: S311 - any bytes will do


@pytest.mark.parametrize(
    ("num_bytes", "num_chunks"),
    [
        pytest.param(0, 1, id="empty"),
        pytest.param(1, 1, id="one byte"),
        pytest.param(CHUNK_BYTES, 1, id="one chunk"),
        pytest.param(CHUNK_BYTES + 1, 2, id="one byte more"),
        pytest.param(17 * CHUNK_BYTES + 5, 18, id="two pipelines"),
    ],
)
def test_a_blob_comes_back_bit_for_bit(
    channel: TensorChannel, key: str, num_bytes: int, num_chunks: int
) -> None:
    blob = blob_of(num_bytes)

    ref = channel.push(key, blob)

    assert (ref.key, ref.num_bytes, ref.num_chunks) == (key, num_bytes, num_chunks)
    assert channel.pull(ref) == blob
    assert channel.has(ref)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_pushed(channel: TensorChannel, key: str, kind: type) -> None:
    ref = channel.push(key, kind(b"abcdefgh"))

    assert channel.pull(ref) == b"abcdefgh"


def test_a_buffer_of_numbers_is_pushed_as_its_bytes(channel: TensorChannel, key: str) -> None:
    numbers = memoryview(b"\x01\x02\x03\x04\x05\x06\x07\x08").cast("I")

    ref = channel.push(key, numbers)

    assert ref.num_bytes == 8
    assert channel.pull(ref) == numbers.tobytes()


def test_no_chunk_is_larger_than_two_mebibytes(
    channel: TensorChannel, client: Redis, key: str
) -> None:
    ref = channel.push(key, blob_of(3 * CHUNK_BYTES + 7))

    sizes = [client.strlen(chunk) for chunk in ref.chunk_keys()]
    assert sizes == [CHUNK_BYTES] * 3 + [7]


def test_every_chunk_expires(channel: TensorChannel, client: Redis, key: str) -> None:
    ref = channel.push(key, blob_of(2 * CHUNK_BYTES), ttl_s=50)

    assert all(0 < int(client.ttl(chunk)) <= 50 for chunk in ref.chunk_keys())  # type: ignore[arg-type]


def test_blobs_are_kept_as_long_as_they_are_referred_to(
    channel: TensorChannel, client: Redis, key: str
) -> None:
    refs = [channel.push(f"{key}{n}", blob_of(CHUNK_BYTES + 1), ttl_s=5) for n in range(2)]

    channel.keep(*refs)

    ttls = [int(client.ttl(chunk)) for ref in refs for chunk in ref.chunk_keys()]  # type: ignore[arg-type]
    assert len(ttls) == 4
    assert all(TTL_S - 5 < ttl <= TTL_S for ttl in ttls)


def test_a_missing_chunk_is_named(channel: TensorChannel, client: Redis, key: str) -> None:
    ref = channel.push(key, blob_of(20 * CHUNK_BYTES))
    client.delete(ref.chunk_keys()[18])

    with pytest.raises(ChunksMissing, match="1 of 20 chunks are missing") as caught:
        channel.pull(ref)

    assert caught.value.key == key
    assert not channel.has(ref)


@pytest.mark.parametrize(
    ("chunk", "fault"),
    [
        pytest.param(b"abcX", "crc", id="changed"),
        pytest.param(b"abc", "3 bytes", id="shorter"),
        pytest.param(b"abcde", "5 bytes", id="longer"),
    ],
)
def test_wrong_bytes_are_refused(
    channel: TensorChannel, client: Redis, key: str, chunk: bytes, fault: str
) -> None:
    ref = channel.push(key, b"abcd")
    client.set(ref.chunk_keys()[0], chunk)

    with pytest.raises(Corrupted, match=fault):
        channel.pull(ref)


def test_chunks_of_two_blobs_are_not_taken_for_each_other(
    channel: TensorChannel, client: Redis, key: str
) -> None:
    ref = channel.push(key, blob_of(2 * CHUNK_BYTES))
    first, second = ref.chunk_keys()
    client.rename(first, f"{key}:tmp")
    client.rename(second, first)
    client.rename(f"{key}:tmp", second)

    with pytest.raises(Corrupted, match="crc"):
        channel.pull(ref)


def test_dropped_blobs_are_gone_at_once(channel: TensorChannel, client: Redis, key: str) -> None:
    refs = [channel.push(f"{key}{n}", blob_of(CHUNK_BYTES + 1)) for n in range(3)]

    channel.drop(*refs[:2])
    channel.drop(*refs[:2])
    channel.drop()

    assert [channel.has(ref) for ref in refs] == [False, False, True]
    assert client.exists(*refs[0].chunk_keys(), *refs[1].chunk_keys()) == 0


def test_pushing_again_replaces_nothing_by_halves(channel: TensorChannel, key: str) -> None:
    old = channel.push(key, blob_of(2 * CHUNK_BYTES))
    new = channel.push(key, blob_of(2 * CHUNK_BYTES + 1))

    assert channel.pull(new) == blob_of(2 * CHUNK_BYTES + 1)
    with pytest.raises(Corrupted):
        channel.pull(old)


def test_a_reference_survives_its_text_form(channel: TensorChannel, key: str) -> None:
    ref = channel.push(key, b"abcd")

    assert TensorRef.from_json(ref.to_json()) == ref


def test_a_server_that_is_not_there_is_named() -> None:
    with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        channel = TensorChannel(nowhere, where="nowhere:1")

        with pytest.raises(BackendUnreachable, match="nowhere:1"):
            channel.push("kml:{x}:w:0", b"abcd")


@pytest.mark.parametrize("num_bytes", [0, 5, CHUNK_BYTES, 9 * CHUNK_BYTES + 5])
@pytest.mark.parametrize("is_passing", [False, True])
def test_pieces_come_in_order_and_are_the_blob(
    channel: TensorChannel, key: str, num_bytes: int, is_passing: bool
) -> None:
    ref = channel.push(key, blob_of(num_bytes), is_passing=is_passing)
    pieces: list[bytes] = []

    channel.read(ref, lambda piece: pieces.append(bytes(piece)))

    assert b"".join(pieces) == blob_of(num_bytes)


@pytest.mark.parametrize("num_chunks", [2, 9], ids=["read in turn", "read ahead"])
def test_who_is_fed_may_end_the_reading(channel: TensorChannel, key: str, num_chunks: int) -> None:
    ref = channel.push(key, blob_of(num_chunks * CHUNK_BYTES))
    seen = []

    def feed(piece: memoryview) -> None:
        seen.append(len(piece))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        channel.read(ref, feed)

    assert seen == [CHUNK_BYTES]
    assert channel.pull(ref) == blob_of(num_chunks * CHUNK_BYTES)  # its connections are in order
    assert not [t for t in threading.enumerate() if t.name == "kubeml-read"]


@pytest.mark.parametrize("num_chunks", [2, 9], ids=["read in turn", "read ahead"])
def test_a_chunk_that_is_missed_while_reading_is_told(
    channel: TensorChannel, client: Redis, key: str, num_chunks: int
) -> None:
    ref = channel.push(key, blob_of(num_chunks * CHUNK_BYTES))
    client.delete(ref.chunk_keys()[-1])
    seen: list[int] = []

    with pytest.raises(ChunksMissing, match=f"1 of {num_chunks}"):
        channel.read(ref, lambda piece: seen.append(len(piece)))

    assert len(seen) == num_chunks - 1


@pytest.mark.parametrize("num_chunks", [3, 40], ids=["read in turn", "read ahead"])
def test_a_blob_is_read_to_its_end_though_connections_break_again_and_again(
    channel: TensorChannel, client: Redis, key: str, num_chunks: int
) -> None:
    ref = channel.push(key, blob_of(num_chunks * CHUNK_BYTES))
    pieces: list[bytes] = []

    def feed(piece: memoryview) -> None:
        pieces.append(bytes(piece))
        if len(pieces) % 2:
            client.client_kill_filter(_type="normal", skipme=True)

    channel.read(ref, feed)

    assert b"".join(pieces) == blob_of(num_chunks * CHUNK_BYTES)


def test_memory_is_used_again_if_it_fits(channel: TensorChannel, key: str) -> None:
    ref = channel.push(key, b"abcd")
    memory = bytearray(4)

    assert channel.pull(ref, into=memory) is memory
    assert channel.pull(ref, into=bytearray(5)) == b"abcd"


def test_passing_blobs_survive_a_server_that_forgot_its_scripts(
    channel: TensorChannel, client: Redis, key: str
) -> None:
    blob = blob_of(40 * CHUNK_BYTES)
    client.script_flush()

    ref = channel.push(key, blob, is_passing=True)

    assert channel.pull(ref) == blob


def test_passing_blobs_are_not_in_the_servers_file(channel: TensorChannel, client: Redis) -> None:
    def written(*, is_passing: bool) -> int:
        info: Any = client.info("persistence")
        channel.push(f"kml:{{size}}:{is_passing}", blob_of(CHUNK_BYTES), is_passing=is_passing)
        after: Any = client.info("persistence")
        return int(after["aof_current_size"]) - int(info["aof_current_size"])

    assert written(is_passing=False) > CHUNK_BYTES
    assert written(is_passing=True) < 10_000


def test_what_is_staged_is_what_the_memory_holds_when_it_is_sent(
    channel: TensorChannel, key: str
) -> None:
    blob = bytearray(3 * CHUNK_BYTES)
    with channel.parcel() as parcel:
        staging = parcel.stage(key, blob)
        for index in range(3):
            memoryview(blob)[index * CHUNK_BYTES : index * CHUNK_BYTES + 4] = b"made"
            staging.send((index + 1) * CHUNK_BYTES)
        parcel.finish()

    assert channel.pull(staging.ref) == blob


def test_a_push_whose_connection_breaks_is_sent_again(
    channel: TensorChannel, client: Redis, key: str
) -> None:
    blob = blob_of(5 * CHUNK_BYTES)
    with channel.parcel() as parcel:
        staging = parcel.stage(key, blob, is_passing=True)
        staging.send(2 * CHUNK_BYTES)
        client.client_kill_filter(_type="normal", skipme=True)
        ref = staging.send()
        parcel.finish()

    assert channel.pull(ref) == blob


@pytest.mark.parametrize("trouble", ["none", "broken", "unknown scripts"])
def test_a_script_that_goes_with_blobs_finds_them(
    channel: TensorChannel, client: Redis, key: str, trouble: str
) -> None:
    count = client.register_script("return redis.call('EXISTS', unpack(KEYS))")
    client.script_load(count.script)
    with channel.parcel() as parcel:
        if trouble == "unknown scripts":
            client.script_flush()
            client.script_load(count.script)
        refs = [parcel.add(f"{key}-{n}", blob_of(10 + n), is_passing=n > 0) for n in range(3)]
        if trouble == "broken":
            client.client_kill_filter(_type="normal", skipme=True)

        there = parcel.deliver(["EVALSHA", count.sha, 3, *parcel.chunk_keys()])

    assert there == 3
    assert [channel.pull(ref) for ref in refs] == [blob_of(10 + n) for n in range(3)]


def test_abandoned_blobs_are_gone(channel: TensorChannel, client: Redis, key: str) -> None:
    with channel.parcel() as parcel:
        parcel.stage(key, blob_of(3 * CHUNK_BYTES)).send(2 * CHUNK_BYTES)
        parcel.abandon()

    assert not client.exists(*(f"{key}:{i}" for i in range(3)))


@pytest.mark.parametrize("place", [0, 7, 8, 1000, CHUNK_BYTES - 1])
def test_any_changed_byte_changes_the_checksum(place: int) -> None:
    chunk = bytearray(blob_of(CHUNK_BYTES))
    before = checksum(chunk)
    chunk[place] ^= 1

    assert checksum(chunk) != before
    assert checksum(chunk, before=1) != checksum(chunk)
