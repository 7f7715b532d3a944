# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage that fails under the NBD server: the client is told so with the specification's errors, in each
form of replies and wherever in a request it happens; connection and server go on, or, where a simple reply
has begun, the connection ends."""
import os
import resource
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from hostile import run_cases
from nbd_client import EIO, ENOSPC, READ
from nbd_server import KiB, MODES, MiB, Server, fails, need, pattern, raw_disk, require, same, tool

K64, SIZE = 64 * KiB, 4 * MiB
BAD = 20  # the cluster that cannot be read


def damaged():
    """A qcow2 image; one cluster lies where no file can be."""
    raw_disk('x.raw', SIZE, (0, SIZE))
    tool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'x.raw', 'x.qcow2')
    with open('x.qcow2', 'r+b') as f:
        f.seek(40)
        f.seek(struct.unpack('>Q', f.read(8))[0])
        table = struct.unpack('>Q', f.read(8))[0] & 0x00fffffffffffe00
        f.seek(table + 8 * BAD)
        f.write(struct.pack('>Q', 1 << 63 | 1 << 50))
    return os.path.abspath('x.qcow2')


def goes_on(t):
    require(t.read(0, 4096) == pattern(0, 4096), 'wrong bytes')
    t.disconnect()


# ---- reading ----

def unreadable_at_once():
    with Server('-f', 'qcow2', damaged()) as s:
        for mode in MODES:
            t = s.go(mode)
            for flags in [0] + [nbd.DF] * (mode != 'simple'):
                fails(EIO, t.read, BAD * K64, 512, flags)
                fails(EIO, t.read, BAD * K64 + 5, K64 - 5, flags)
            goes_on(t)


def unreadable_in_the_middle():
    """Of a request that is larger than any buffer. What was sent before the error is right."""
    with Server('-f', 'qcow2', damaged()) as s:
        for mode in MODES:
            for offset, length in ((0, SIZE), (BAD * K64 - 100, 200), ((BAD - 1) * K64, 3 * K64)):
                t = s.go(mode)
                r = t.submit(READ, offset, length)
                try:
                    t.wait(r)
                except nbd.Closed:
                    same(mode, 'simple', 'the connection ends')
                    continue
                same(r.error, EIO)
                for kind, at, n in r.chunks:
                    end = min(at + n, BAD * K64)
                    require(kind == nbd.CHUNK_DATA and (end <= at or r.data[at - offset:end - offset] ==
                                                        pattern(at, end - at)), f'wrong bytes at {at}')
                goes_on(t)


def others_do_not_notice():
    with Server('-f', 'qcow2', damaged()) as s:
        for mode in MODES:
            t = s.go(mode)
            asked = [t.submit(READ, n * K64, 4096) for n in range(64)]
            t.wait_all()
            same([r.offset // K64 for r in asked if r.error], [BAD])
            require(all(r.error or r.data == pattern(r.offset, 4096) for r in asked), 'wrong bytes')
            goes_on(t)


def a_file_that_became_shorter():
    """By somebody else's doing: an error or zeros, but not somebody's memory."""
    path = raw_disk('short.raw', SIZE, (0, SIZE))
    with Server('-f', 'raw', path) as s:
        s.ready()
        for mode in MODES:
            os.truncate(path, MiB)
            t = s.go(mode)
            for offset, length in ((2 * MiB, 4096), (MiB - 512, 1024), (0, SIZE)):
                r = t.submit(READ, offset, length)
                try:
                    t.wait(r)
                except nbd.Closed:
                    same(mode, 'simple', 'the connection ends')
                    t = s.go(mode)
                    continue
                require(r.error in (0, EIO), f'error {r.error}')
                here = max(0, MiB - offset)
                require(r.error or r.data == pattern(offset, here) + bytes(length - here), 'other bytes')
            goes_on(t)
            raw_disk(path, SIZE, (0, SIZE))


# ---- writing ----

def little_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, MiB))


def no_room_in_the_file():
    """The limit of a file's size stands for a full disk; what fits is written."""
    for fmt in ('raw', 'qcow2'):
        path = os.path.abspath(f'full.{fmt}')
        tool('qemu-img', 'create', '-q', '-f', fmt, path, SIZE)
        with Server('-f', fmt, path, preexec_fn=little_room) as s:
            for mode in MODES:
                t = s.go(mode)
                t.write(0, pattern(0, 4096), nbd.FUA)
                for flags in (0, nbd.FUA):
                    for offset in range(MiB, SIZE, K64):
                        r = t.wait(t.submit(nbd.WRITE, offset, K64, flags, b'x' * K64))
                        require(r.error in (0, ENOSPC), f'error {r.error}')
                    same(r.error, ENOSPC)
                goes_on(t)
        if fmt == 'qcow2':
            tool('qemu-img', 'check', path, codes=(0, 3))


need('qemu-img')
run_cases([unreadable_at_once, unreadable_in_the_middle, others_do_not_notice, a_file_that_became_shorter,
           no_room_in_the_file])
