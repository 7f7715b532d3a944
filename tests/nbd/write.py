# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""WRITE, WRITE_ZEROES and TRIM of the NBD server, in each of the three forms of requests and replies:
what is written is there, nothing else changes, errors are the specification's, and the payload of a
request that fails is consumed."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import EINVAL, ENOSPC, ENOTSUP, EOVERFLOW, FUA, NO_HOLE, TRIM, WRITE, WRITE_ZEROES
from nbd_server import GiB, KiB, MiB, Server, fails, held, pattern, raw_disk, require, same, serve_cases

SIZE = 6 * GiB + 1536
DATA = 512 * KiB
PATH = raw_disk('x.raw', SIZE, (0, DATA), (SIZE - 4096, 4096))
BEYOND = ((SIZE, 1), (SIZE - 1, 2), (SIZE - 512, 1024), (1 << 62, 512), (2**64 - 512, 512), (2**64 - 1, 1))


def fresh():
    """The first bytes are as at the beginning."""
    with open(PATH, 'r+b') as f:
        f.write(pattern(0, DATA))


def unchanged():
    require(held(PATH, 0, DATA) == pattern(0, DATA), 'other bytes changed')
    require(held(PATH, SIZE - 4096, 4096) == pattern(SIZE - 4096, 4096), 'the end changed')
    same(os.path.getsize(PATH), SIZE, 'size')


def around(offset, length, middle):
    """What the first bytes hold when some are replaced."""
    data = bytearray(pattern(0, DATA))
    data[offset:offset + length] = middle
    return bytes(data)


def written(t, offset, length, middle):
    require(t.read(0, DATA) == around(offset, length, middle), f'wrong around {length} at {offset}')


# ---- WRITE ----

def any_place(s, mode):
    t = s.go(mode)
    for offset, length in ((0, 1), (0, 512), (511, 2), (7, 4099), (65536 - 1, 65537), (DATA // 2, DATA // 2)):
        fresh()
        for flags in (0, FUA):
            data = bytes([length & 0xff ^ flags ^ 0x5a]) * length
            t.write(offset, data, flags)
            written(t, offset, length, data)
    t.disconnect()
    fresh()


def the_last_byte(s, mode):
    t = s.go(mode)
    t.write(SIZE - 1, b'E', FUA)
    same(t.read(SIZE - 2, 2), pattern(SIZE - 2, 1) + b'E')
    t.write(SIZE - 1, pattern(SIZE - 1, 1))
    t.disconnect()
    unchanged()


def as_large_as_every_client_may(s, mode):
    t = s.go(mode)
    data = pattern(8, nbd.PAYLOAD_MAX)
    t.write(3 * GiB + 1, data)
    require(t.read(3 * GiB, nbd.PAYLOAD_MAX) == b'\0' + data[:-1], 'wrong bytes')
    t.zero(3 * GiB, nbd.PAYLOAD_MAX + 4096)
    t.disconnect()
    unchanged()


def beyond_the_end(s, mode):
    t = s.go(mode)
    for offset, length in BEYOND:
        for flags in (0, FUA):
            fails(ENOSPC, t.write, offset, b'x' * length, flags)
            fails(ENOSPC, t.zero, offset, length, flags)
            fails(EINVAL, t.trim, offset, length, flags)
    fails(ENOSPC, t.write, SIZE - 1, b'x' * MiB)
    t.read(0, 512)
    t.disconnect()
    unchanged()


def flags_that_do_not_belong(s, mode):
    t = s.go(mode)
    bad = [1 << n for n in range(6, 16)] + [nbd.DF, nbd.REQ_ONE]
    for flag in bad + [NO_HOLE, nbd.FAST_ZERO]:
        fails(EINVAL, t.write, 0, b'x' * 512, flag)
        fails(EINVAL, t.trim, 0, 512, flag)
    for flag in bad:
        fails(EINVAL, t.zero, 0, 512, flag)
    t.disconnect()
    unchanged()


def payload_flag_in_compact_requests(s):
    """The flag is unknown there; the payload of a WRITE is there all the same."""
    for mode in ('simple', 'structured'):
        t = s.go(mode)
        fails(EINVAL, t.write, 0, b'x' * 512, nbd.PAYLOAD_LEN)
        fails(EINVAL, t.zero, 0, 512, nbd.PAYLOAD_LEN)
        t.read(0, 512)
        t.disconnect()
    unchanged()


def too_large(s, mode):
    """The payload is consumed, or the connection ends."""
    t = s.go(mode)
    if t.info.block and t.info.block[2] < 40 * MiB:
        try:
            fails((EINVAL, EOVERFLOW), t.write, 0, bytes(40 * MiB))
            t.read(0, 512)
            t.disconnect()
        except nbd.Closed:
            t.close()
    unchanged()


def a_header_without_its_payload(s, mode):
    """Of a write that was never acknowledged, what came may be there; nothing else changes."""
    for n in (0, 1, 511, 4096, 65535):
        t = s.go(mode)
        flags = nbd.PAYLOAD_LEN if t.extended else 0
        t.wire.send(nbd.request_bytes(t.extended, WRITE, 1, 4096, 65536, flags), b'x' * n)
        t.close()
    s.wait_for_files(s.idle_files)
    data, old = held(PATH, 0, DATA), pattern(0, DATA)
    require(data[:4096] == old[:4096] and data[4096 + 65535:] == old[4096 + 65535:], 'other bytes changed')
    require(all(c in (0x78, o) for c, o in zip(data[4096:69631], old[4096:69631])), 'bytes that nobody wrote')
    fresh()


def many_in_flight(s, mode):
    t, rng, model = s.go(mode), random.Random(2), bytearray(pattern(0, DATA))
    for _ in range(20):
        places = rng.sample(range(DATA // 4096), 16)
        for place in places:
            data = rng.randbytes(rng.randrange(1, 4097))
            t.submit(WRITE, place * 4096, len(data), 0, data)
            model[place * 4096:place * 4096 + len(data)] = data
        t.wait_all()
    require(t.read(0, DATA) == bytes(model), 'wrong bytes')
    t.disconnect()
    fresh()


def payload_in_pieces(s, mode):
    t = s.go(mode)
    t.cookie += 1
    r = t.pending[t.cookie] = nbd.Request(t, WRITE, 4096, 600, 0)
    flags = nbd.PAYLOAD_LEN if t.extended else 0
    for byte in nbd.request_bytes(t.extended, WRITE, t.cookie, 4096, 600, flags) + b'y' * 600:
        t.wire.send(bytes([byte]))
    t.succeed(r)
    written(t, 4096, 600, b'y' * 600)
    t.disconnect()
    fresh()


# ---- DISC ----

def disc_behind_writes_loses_none(s, mode):
    """Whether its client waits for the replies or not."""
    for waits in (True, False):
        t = s.go(mode)
        rows = [bytes([n + 1]) * 8192 for n in range(60)]
        for n, row in enumerate(rows):
            t.submit(WRITE, n * 8192, 8192, 0, row)
        if waits:
            t.disconnect()
        else:
            t.wire.send(nbd.request_bytes(t.extended, nbd.DISC))
            while t.wire.more():
                pass
            t.close()
        require(held(PATH, 0, 60 * 8192) == b''.join(rows), f'a write is lost (waits: {waits})')
        fresh()


def writes_that_were_answered_outlive_a_hard_end(s, mode):
    t = s.go(mode)
    for n in range(50):
        t.write(n * 4096, bytes([n + 1]) * 4096)
    t.close()
    require(held(PATH, 0, 50 * 4096) == b''.join(bytes([n + 1]) * 4096 for n in range(50)), 'a write is lost')
    fresh()


def what_one_client_wrote_another_reads(s, mode):
    a, b = s.go(mode), s.go(mode)
    for n in range(20):
        data = bytes([n + 1]) * 4096
        a.write(DATA // 2, data, FUA if n & 1 else 0)
        require(b.read(DATA // 2, 4096) == data, 'old bytes')
    require(a.flags & nbd.CAN_MULTI_CONN, 'no CAN_MULTI_CONN, though that is how it is')
    a.disconnect()
    b.disconnect()
    fresh()


# ---- WRITE_ZEROES, TRIM ----

def zeroes(s, mode):
    t = s.go(mode)
    for offset, length in ((0, 1), (0, 4096), (511, 2), (7, 4099), (65536, DATA // 2), (100, DATA - 200)):
        for flags in (0, FUA, NO_HOLE, NO_HOLE | FUA):
            fresh()
            t.zero(offset, length, flags)
            written(t, offset, length, bytes(length))
    t.disconnect()
    fresh()


def fast_zeroes_or_none(s, mode):
    t = s.go(mode)
    for offset, length in ((0, 4096), (511, 2), (65536, DATA // 2)):
        for flags in (nbd.FAST_ZERO, nbd.FAST_ZERO | NO_HOLE):
            fresh()
            r = t.wait(t.submit(WRITE_ZEROES, offset, length, flags))
            require(r.error in (0, ENOTSUP if t.flags & nbd.SEND_FAST_ZERO else EINVAL), f'error {r.error}')
            written(t, offset, length, pattern(offset, length) if r.error else bytes(length))
    t.disconnect()
    fresh()


def no_hole_allocates(s, mode):
    """Whether by writing or by reserving is the server's to say."""
    t = s.go(mode)
    t.zero(4 * GiB, MiB)
    before = os.stat(PATH).st_blocks
    t.zero(4 * GiB, MiB, NO_HOLE)
    require(os.stat(PATH).st_blocks - before >= MiB // 512, 'no blocks')
    require(t.read(4 * GiB, MiB) == bytes(MiB), 'not zero')
    t.zero(4 * GiB, MiB)
    t.disconnect()


def zeroes_and_trims_above_the_payload_limit(s, mode):
    """Their length is no payload."""
    t = s.go(mode)
    for offset, length in ((DATA // 2, 2 * GiB), (DATA + MiB, 0xfffff000), (DATA, 0xffffffff)):
        t.zero(offset, length)
        t.trim(offset, length)
        require(t.read(DATA - 512, 1024) == pattern(DATA - 512, 512) + bytes(512) or offset < DATA, 'wrong')
        fresh()
    t.disconnect()
    unchanged()


def zeroes_and_trims_of_64_bits_with_extended_headers(s):
    t = s.go('extended')
    t.zero(DATA, SIZE - DATA - 4096)
    t.trim(DATA, SIZE - DATA - 4096)
    require(t.read(SIZE - 8192, 8192) == bytes(4096) + pattern(SIZE - 4096, 4096), 'wrong bytes')
    for length in (SIZE + 1, 1 << 33, 1 << 63, 2**64 - 1):
        fails((ENOSPC, EINVAL), t.zero, 0, length)
        fails(EINVAL, t.trim, DATA, length)
    t.disconnect()
    unchanged()


def trims(s, mode):
    """What was trimmed holds anything, what is around it as before."""
    t = s.go(mode)
    require(t.flags & nbd.SEND_TRIM, 'no TRIM')
    for offset, length in ((0, 1), (0, 4096), (7, 9000), (65536, DATA // 2), (0, DATA)):
        for flags in (0, FUA):
            fresh()
            t.trim(offset, length, flags)
            data = t.read(0, DATA)
            require(data == around(offset, length, data[offset:offset + length]), f'{length} at {offset}')
    t.trim(SIZE - 1, 1)
    t.disconnect()
    raw_end()
    fresh()


def raw_end():
    with open(PATH, 'r+b') as f:
        f.seek(SIZE - 4096)
        f.write(pattern(SIZE - 4096, 4096))


# ---- extended ----

def write_without_its_flag_with_extended_headers(s):
    """Then there is no payload: the next request follows at once."""
    t = s.go('extended')
    for length in (1, 4096, 1 << 33):
        r = t.pending[7] = nbd.Request(t, WRITE, 0, length, 0)
        t.wire.send(nbd.request_bytes(True, WRITE, 7, 0, length))
        t.wait(r)
        same(r.error, EINVAL)
        require(t.read(0, 512) == pattern(0, 512), 'out of step')
    t.disconnect()
    unchanged()


def huge_payloads_with_extended_headers(s):
    """Nobody waits for gigabytes: the connection ends."""
    for length in (1 << 31, 1 << 32, (1 << 32) + 512, 1 << 63, 2**64 - 1):
        for command in (WRITE, TRIM, nbd.BLOCK_STATUS, 99):
            t = s.go('extended')
            t.wire.send(nbd.request_bytes(True, command, 7, 0, length, nbd.PAYLOAD_LEN))
            try:
                t.pending[7] = nbd.Request(t, command, 0, length, 0)
                t.wait(t.pending[7])
            except nbd.Closed:
                pass
            t.close()
    unchanged()


serve_cases(Server('-f', 'raw', PATH), globals())
