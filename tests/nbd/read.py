# SPDX-License-Identifier: GPL-2.0-or-later
"""READ, CACHE and FLUSH of the NBD server, in each of the three forms of replies: right bytes, holes as
holes, one chunk where the client asks for that, and the specification's errors at the end of the disk."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import CACHE, CHUNK_DATA, CHUNK_HOLE, EINVAL, EOVERFLOW, READ
from nbd_server import GiB, MODES, MiB, Server, fails, pattern, raw_disk, require, same, serve_cases

# Data, a hole, data to the end; then a hole of many gigabytes. The size is odd.
DISK = 40 * MiB
SIZE = 5 * GiB + 1536
PARTS = ((0, 2 * MiB), (4 * MiB, DISK - 4 * MiB), (SIZE - MiB - 1536, MiB + 1536))
BEYOND = ((SIZE, 1), (SIZE - 1, 2), (SIZE - 512, 1024), (SIZE + 1, 512), (1 << 63, 512), (2**64 - 512, 512),
          (2**64 - 1, 1), (2**64 - 1, 0xffffffff), (2 * GiB, 0xffffffff))


def want(offset, length):
    data = bytearray(length)
    for at, n in PARTS:
        a, b = max(at, offset), min(at + n, offset + length)
        if a < b:
            data[a - offset:b - offset] = pattern(a, b - a)
    return bytes(data)


def reads(t, offset, length, flags=0):
    require(t.read(offset, length, flags) == want(offset, length), f'{length} bytes at {offset} are wrong')


def any_place(s, mode):
    t = s.go(mode)
    for offset, length in ((0, 1), (0, 512), (1, 511), (7, 4099), (MiB + 3, 65536), (2 * MiB - 5, 10),
                           (2 * MiB, 4096), (4 * MiB - 1, 2), (MiB, 4 * MiB), (DISK - 100, 200),
                           (SIZE - 1, 1), (SIZE - 513, 513), (SIZE - 2 * MiB, 2 * MiB), (3 * GiB, 512)):
        reads(t, offset, length)
    t.disconnect()


def as_large_as_every_client_may(s, mode):
    t = s.go(mode)
    reads(t, 3, nbd.PAYLOAD_MAX)
    t.disconnect()


def beyond_the_end(s, mode):
    t = s.go(mode)
    for offset, length in BEYOND:
        fails((EINVAL, EOVERFLOW), t.read, offset, length)
        fails((EINVAL, EOVERFLOW), t.cache, offset, length)
    reads(t, 0, 512)
    t.disconnect()


def nothing_at_all(s, mode):
    """What a length of 0 does is open, but the connection goes on."""
    t = s.go(mode)
    for command in (READ, CACHE, nbd.TRIM, nbd.WRITE, nbd.WRITE_ZEROES):
        for offset in (0, 5, SIZE):
            r = t.wait(t.submit(command, offset, 0))
            require(r.error in (0, EINVAL), f'error {r.error}')
    reads(t, 0, 512)
    t.disconnect()


def flags_that_do_not_belong(s, mode):
    t = s.go(mode)
    bad = [1 << n for n in range(6, 16)] + [nbd.NO_HOLE, nbd.REQ_ONE, nbd.FAST_ZERO]
    for flag in bad + [nbd.DF] * (mode == 'simple'):
        fails(EINVAL, t.read, 0, 512, flag)
    for flag in bad + [nbd.DF]:
        fails(EINVAL, t.cache, 0, 512, flag)
        fails(EINVAL, t.run, nbd.FLUSH, 0, 0, flag)
    reads(t, 0, 512)
    t.disconnect()


def payload_flag_in_compact_requests(s):
    for mode in ('simple', 'structured'):
        t = s.go(mode)
        fails(EINVAL, t.read, 0, 512, nbd.PAYLOAD_LEN)
        reads(t, 0, 512)
        t.disconnect()


def fua_is_accepted_everywhere(s, mode):
    t = s.go(mode)
    reads(t, 0, 512, nbd.FUA)
    t.run(nbd.FLUSH, flags=nbd.FUA)
    t.cache(0, 512, nbd.FUA)
    t.disconnect()


def flush_and_cache(s, mode):
    t = s.go(mode)
    require(t.flags & nbd.SEND_CACHE, 'no CACHE')
    t.flush()
    for offset, length in ((0, 512), (5, 70000), (0, 0x1000000), (SIZE - 1, 1)):
        t.cache(offset, length)
    reads(t, 0, 512)
    t.disconnect()


def unknown_commands(s, mode):
    t = s.go(mode)
    for command in (8, 9, 99, 0x7fff, 0xffff):
        for offset, length in ((0, 0), (0, 512), (SIZE, 0xffffffff)):
            fails(EINVAL, t.run, command, offset, length)
    reads(t, 0, 512)
    t.disconnect()


def holes_are_sent_as_holes(s):
    for mode in MODES[1:]:
        t = s.go(mode)
        r = t.run(READ, MiB, 4 * MiB)
        require(bytes(r.data) == want(MiB, 4 * MiB), 'wrong bytes')
        same([n for kind, _, n in r.chunks if kind == CHUNK_HOLE], [2 * MiB])
        same(sum(n for kind, _, n in r.chunks if kind == CHUNK_DATA), 2 * MiB)
        r = t.run(READ, 2 * GiB, 32 * MiB)
        same(r.chunks, [(CHUNK_HOLE, 2 * GiB, 32 * MiB)])
        t.disconnect()


def one_chunk_with_df(s):
    for mode in MODES[1:]:
        t = s.go(mode)
        require(t.flags & nbd.SEND_DF, 'no DF')
        for offset, length in ((0, 65536), (2 * MiB - 100, 200), (2 * MiB - 32768, 65536), (2 * GiB, 65536)):
            reads(t, offset, length, nbd.DF)
        for length in (MiB, 32 * MiB):
            r = t.wait(t.submit(READ, MiB, length, nbd.DF))
            require(r.error in (0, EOVERFLOW), f'error {r.error} for {length} bytes')
            require(r.error == 0 or not r.chunks, 'content and EOVERFLOW')
            require(r.error or bytes(r.data) == want(MiB, length), 'wrong bytes')
        t.disconnect()


def many_in_flight(s, mode):
    t, rng, asked = s.go(mode), random.Random(1), []
    for _ in range(300):
        offset = rng.choice((rng.randrange(6 * MiB), rng.randrange(SIZE - 70000)))
        asked.append(t.submit(READ, offset, rng.randrange(1, 9000)))
    for r in asked:
        t.succeed(r)
        require(bytes(r.data) == want(r.offset, r.length), f'{r.length} at {r.offset} are wrong')
    t.disconnect()


def answered_before_good_bye(s, mode):
    """DISC behind many requests: all of them are answered."""
    t = s.go(mode)
    asked = [t.submit(READ, n * 4096, 4096) for n in range(200)]
    t.disconnect()
    for r in asked:
        require(bytes(r.data) == want(r.offset, 4096), f'{r.offset} is wrong')


def headers_in_pieces(s, mode):
    t = s.go(mode)
    for byte in nbd.request_bytes(t.extended, READ, t.cookie + 1, 4096, 512):
        t.wire.send(bytes([byte]))
    t.cookie += 1
    r = t.pending[t.cookie] = nbd.Request(t, READ, 4096, 512, 0)
    require(t.succeed(r).data == want(4096, 512), 'wrong bytes')
    t.disconnect()


def wrong_magic_ends_it(s, mode):
    for magic in (0, 0x25609514, 0x12560953, 0x67446698, 0x13956025):
        t = s.go(mode)
        reads(t, 0, 512)
        t.wire.send(magic.to_bytes(4, 'big') + nbd.request_bytes(t.extended, READ, 1, 0, 512)[4:])
        t.wire.expect_end()
        t.close()


def the_other_form_of_requests_ends_it(s):
    for mode, other in (('extended', False), ('structured', True)):
        t = s.go(mode)
        t.wire.send(nbd.request_bytes(other, READ, 1, 0, 512) + bytes(8))
        t.wire.expect_end()
        t.close()


def effect_lengths_of_64_bits_with_extended_headers(s):
    t = s.go('extended')
    for length in (1 << 32, 1 << 33, 1 << 62, 1 << 63, 2**64 - 1):
        fails((EINVAL, EOVERFLOW), t.read, 0, length)
        fails((EINVAL, EOVERFLOW), t.read, SIZE - 512, length)
    t.cache(0, 5 * GiB)
    for length in (SIZE + 1, 1 << 63, 2**64 - 1):
        fails((EINVAL, EOVERFLOW), t.cache, 0, length)
    reads(t, 0, 512)
    t.disconnect()


def payloads_that_no_command_wants_with_extended_headers(s):
    """They are consumed, the request fails, the connection goes on."""
    t = s.go('extended')
    for command in (READ, nbd.FLUSH, CACHE, nbd.TRIM, nbd.WRITE_ZEROES, nbd.BLOCK_STATUS, 8, 99):
        for n in (1, 12, 4096):
            r = t.submit(command, 0, n, nbd.PAYLOAD_LEN, bytes(n))
            fails(EINVAL, t.succeed, r)
    reads(t, 0, 512)
    t.disconnect()


if __name__ == '__main__':
    serve_cases(Server('-f', 'raw', raw_disk('x.raw', SIZE, *PARTS)), globals())
