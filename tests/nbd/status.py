# SPDX-License-Identifier: GPL-2.0-or-later
"""BLOCK_STATUS of the NBD server: base:allocation, qemu:dirty-bitmap and qemu:allocation-depth of a
qcow2 image with a backing file, against what was written into it; REQ_ONE, ranges, errors, and with
extended headers 64-bit extents and the payload that filters contexts."""
import os
import random
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import EINVAL, EOVERFLOW, REQ_ONE, STATE_DIRTY, STATE_HOLE, STATE_ZERO
from nbd_server import GiB, KiB, MODES, MiB, Server, fails, need, raw_disk, require, same, serve_cases, tool

BASE, DEPTH, DIRTY = 'base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:changes'
ALL = [BASE, DEPTH, DIRTY]
SIZE = 9 * GiB
HOLE = STATE_HOLE | STATE_ZERO
K64 = 64 * KiB

# (length, base:allocation, depth, dirty)
LAYOUT = (
    (K64, 0, 2, 0),              # in the backing file
    (K64, 0, 1, STATE_DIRTY),    # written
    (K64, 0, 2, 0),
    (2 * K64, STATE_ZERO, 1, STATE_DIRTY),  # zeroed, in the image; whether it is a hole is open
    (MiB - 5 * K64, 0, 2, 0),
    (MiB, HOLE, 0, 0),           # nowhere
    (K64, 0, 1, STATE_DIRTY),
    (SIZE - 2 * MiB - 2 * K64, HOLE, 0, 0),
    (K64, 0, 1, STATE_DIRTY),    # the last cluster
)


def make_disk():
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', SIZE)
    tool('qemu-io', '-f', 'qcow2', '-c', f'write -P 9 0 {MiB}', 'base.qcow2')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'x.qcow2')
    tool('qemu-img', 'bitmap', '--add', '-g', '64k', 'x.qcow2', 'changes')
    tool('qemu-io', '-f', 'qcow2', '-c', f'write -P 1 {K64} {K64}', '-c', f'write -z {3 * K64} {2 * K64}',
         '-c', f'write -P 2 {2 * MiB} {K64}', '-c', f'write -P 3 {SIZE - K64} {K64}', 'x.qcow2')
    return os.path.abspath('x.qcow2')


def layout(column, offset=0, length=SIZE):
    """The extents of a context in a range, joined."""
    found, at = [], 0
    for row in LAYOUT:
        n = min(at + row[0], offset + length) - max(at, offset)
        at += row[0]
        if n > 0 and found and found[-1][1] == row[column]:
            found[-1] = (found[-1][0] + n, row[column])
        elif n > 0:
            found.append((n, row[column]))
    return found


def without_holes_of_zeroed(extents):
    """Whether a zeroed cluster is a hole is the server's to say; whether the rest is, is not."""
    return [(n, f & STATE_ZERO if n == 2 * K64 else f) for n, f in extents]


def right(t, context, offset, length):
    found = t.whole_status(context, offset, length)
    if context == BASE:
        found = without_holes_of_zeroed(found)
    same(found, layout(1 + ALL.index(context), offset, length), f'{context} of {length} at {offset}')


def the_whole_disk(s):
    for mode in MODES[1:]:
        for context in ALL:
            t = s.go(mode, contexts=[context])
            right(t, context, 0, SIZE)
            t.disconnect()


def all_contexts_at_once(s):
    for mode in MODES[1:]:
        t = s.go(mode, contexts=ALL)
        for context in ALL:
            right(t, context, 0, SIZE)
        same(set(t.status(0, MiB)), set(ALL))
        t.disconnect()


def any_range(s):
    rng = random.Random(3)
    for mode in MODES[1:]:
        t = s.go(mode, contexts=[DEPTH, DIRTY])
        for _ in range(60):
            offset = rng.choice((rng.randrange(3 * MiB), SIZE - rng.randrange(1, 2 * K64)))
            length = min(rng.randrange(1, MiB), SIZE - offset)
            right(t, DEPTH, offset, length)
            right(t, DIRTY, offset, length)
        t.disconnect()


def one_extent_with_req_one(s):
    for mode in MODES[1:]:
        t = s.go(mode, contexts=ALL)
        for offset, length in ((0, SIZE & 0xfffff000), (K64 + 5, K64), (2 * MiB, 1), (5 * K64, 100 * MiB),
                               (SIZE - 512, 512)):
            for context, extents in t.status(offset, length, REQ_ONE).items():
                n, flags = extents[0]
                if context != BASE:
                    same(flags, layout(1 + ALL.index(context), offset, length)[0][1], context)
                    require(n <= layout(1 + ALL.index(context), offset, length)[0][0], f'{context}: {n}')
        t.disconnect()


def beyond_the_end(s):
    for mode in MODES[1:]:
        t = s.go(mode, contexts=[BASE])
        for offset, length in ((SIZE, 1), (SIZE - 1, 2), (SIZE - 512, 1024), (1 << 63, 512), (2**64 - 512, 512)):
            fails(EINVAL, t.status, offset, length)
            fails(EINVAL, t.status, offset, length, REQ_ONE)
        right(t, BASE, SIZE - 512, 512)
        t.disconnect()


def nothing_at_all(s):
    for mode in MODES[1:]:
        t = s.go(mode)
        r = t.wait(t.submit(nbd.BLOCK_STATUS, 0, 0))
        same(r.error, EINVAL)  # as no context is selected
        t.disconnect()
        t = s.go(mode, contexts=[BASE])
        t.wire.send(nbd.request_bytes(t.extended, nbd.BLOCK_STATUS, 5, 0, 0))
        r = t.pending[5] = nbd.Request(t, nbd.BLOCK_STATUS, 0, MiB, 0)  # any reply that is one
        t.wait(r)
        require(r.error in (0, EINVAL), f'error {r.error}')
        t.disconnect()


def flags_that_do_not_belong(s):
    for mode in MODES[1:]:
        t = s.go(mode, contexts=[BASE])
        for flag in [1 << n for n in range(6, 16)] + [nbd.NO_HOLE, nbd.DF, nbd.FAST_ZERO]:
            fails(EINVAL, t.status, 0, MiB, flag)
        require(t.status(0, MiB, nbd.FUA)[BASE], 'no status with FUA')
        t.disconnect()


def contexts_of_another_export_are_none(s):
    h = s.handshake().structured_reply()
    h.option(nbd.SET_META_CONTEXT, nbd.contexts_bytes('other', [BASE]))
    t = h.go()
    fails(EINVAL, t.status, 0, 512)
    t.disconnect()


def replies_that_wait_are_not_mixed_up(s):
    """Many more than fit into a socket, and different ones; nobody reads until all are asked for."""
    n, unit = 512, 16 * KiB
    size = n * unit
    path = raw_disk('rows.raw', size, *((i * unit, unit) for i in range(0, n, 2)))
    for mode in MODES[1:]:
        with Server('-f', 'raw', path) as server:
            t = server.go(mode, contexts=[BASE])
            for at in range(1, 200 * 512, 512):
                t.submit(nbd.BLOCK_STATUS, at, size - at)
            for r in list(t.pending.values()):
                first, found = r.offset // unit, t.succeed(r).status[BASE]
                want = [(unit - r.offset % unit if i == first else unit, HOLE if i & 1 else 0)
                        for i in range(first, n)]
                same(found, want[:len(found)], f'status at {r.offset}')
            t.disconnect()


# ---- extended ----

def extents_of_64_bits_with_extended_headers(s):
    t = s.go('extended', contexts=[DIRTY])
    same(t.status(2 * MiB + K64, SIZE - 2 * MiB - K64)[DIRTY],
         [(SIZE - 2 * MiB - 2 * K64, 0), (K64, STATE_DIRTY)])
    same(t.status(3 * MiB, 8 * GiB, REQ_ONE)[DIRTY], [(8 * GiB, 0)])
    for length in (SIZE + 1, 1 << 63, 2**64 - 1):
        fails((EINVAL, EOVERFLOW), t.status, 0, length)
        fails((EINVAL, EOVERFLOW), t.status, 512, length)
    t.disconnect()


def filtered_by_payload_with_extended_headers(s):
    t = s.go('extended', contexts=ALL)
    require(t.flags & nbd.STATUS_PAYLOAD, 'no BLOCK_STATUS_PAYLOAD')
    ids = {c: n for n, c in t.contexts.items()}
    for wanted in ([BASE], [DIRTY], [DEPTH, BASE], [DIRTY, DEPTH, BASE]):
        for flags in (0, REQ_ONE):
            r = t.succeed(t.submit_filtered(0, MiB, [ids[c] for c in wanted], flags))
            same(set(r.status), set(wanted))
    same(set(t.status(0, MiB)), set(ALL))  # and without the payload it is all
    t.disconnect()


def wrong_payloads_with_extended_headers(s):
    t = s.go('extended', contexts=[BASE, DEPTH])
    a, b = sorted(t.contexts)
    unknown = max(a, b) + 1
    for ids in ([a, a], [a, b, a], [unknown], [a, unknown], [0xffffffff], [a] * 1000, list(range(5000))):
        fails(EINVAL, t.succeed, t.submit_filtered(0, MiB, ids))
    for n in (1, 4, 7, 9, 11, 13, 15):
        data = struct.pack('>QII', MiB, a, b)[:n]
        fails(EINVAL, t.succeed, t.submit(nbd.BLOCK_STATUS, 0, n, nbd.PAYLOAD_LEN, data))
    fails(EINVAL, t.succeed, t.submit_filtered(SIZE - 512, 1024, [a]))
    fails((EINVAL, EOVERFLOW), t.succeed, t.submit_filtered(512, 2**64 - 1, [a]))
    same(set(t.status(0, MiB)), {BASE, DEPTH})
    t.disconnect()


def payload_needs_a_selection_with_extended_headers(s):
    t = s.go('extended')
    require(not t.flags & nbd.STATUS_PAYLOAD, 'BLOCK_STATUS_PAYLOAD without contexts')
    r = t.submit_filtered(0, MiB, [0])
    fails(EINVAL, t.succeed, r)
    t.disconnect()


# ---- last, as the disk is another one then ----

def writes_are_seen(s):
    for mode in MODES[1:]:
        t = s.go(mode, contexts=[BASE, DEPTH])
        at = (4 if t.extended else 3) * GiB
        t.write(at, b'x' * K64)
        for context, want in ((BASE, 0), (DEPTH, 1)):
            same(t.whole_status(context, at - K64, 3 * K64),
                 [(K64, 3 if context == BASE else 0), (K64, want), (K64, 3 if context == BASE else 0)], context)
        t.zero(at, K64)
        require(all(f & STATE_ZERO for _, f in t.whole_status(BASE, at, K64)), 'not zero')
        t.disconnect()


need('qemu-img', 'qemu-io')
serve_cases(Server('-f', 'qcow2', '-A', '-B', 'changes', make_disk()), globals())
