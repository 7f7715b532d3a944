# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Random requests of several clients at once on images of several kinds, against a model: what is read is
what was written, statuses are true, and afterwards the peer finds the same bytes and an image without a
fault. The same sequence in every run; SOAK_SECONDS repeats it with other seeds, SEED chooses one."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import BLOCK_STATUS, CACHE, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES
from nbd_server import KIND, KiB, MODES, MiB, Server, held, need, pattern, raw_disk, require, tool

SIZE = 4 * MiB + 512
BASE = 2 * MiB
KINDS = {'raw': None, 'qcow2': 'cluster_size=64k', 'small': 'cluster_size=4k,refcount_bits=8',
         'extended': 'cluster_size=64k,extended_l2=on', 'overlay': 'cluster_size=16k'}
DEPTH = 24  # requests in flight, of all clients


def make_disk(kind):
    """The path, its format, and what it holds."""
    raw_disk('base.raw', BASE, (0, BASE))
    if kind == 'raw':
        return raw_disk('disk.raw', SIZE, (0, BASE)), 'raw', pattern(0, BASE) + bytes(SIZE - BASE)
    how = ['-b', 'base.raw', '-F', 'raw'] if kind == 'overlay' else []
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', KINDS[kind], *how, 'disk.qcow2', SIZE)
    held_now = pattern(0, BASE) + bytes(SIZE - BASE) if how else bytes(SIZE)
    return os.path.abspath('disk.qcow2'), 'qcow2', held_now


class Load:
    """Requests in flight never overlap, so each has one right answer."""

    def __init__(self, clients, content, rng):
        self.clients, self.rng = clients, rng
        self.model = bytearray(content)
        self.flights = []  # (client, request)

    def place(self):
        """A range that no request in flight touches, or None."""
        rng = self.rng
        length = rng.choice((1, 512, 4096, rng.randrange(1, 5000), rng.randrange(1, 300 * KiB)))
        offset = rng.choice((rng.randrange(SIZE), rng.randrange(SIZE) & ~0xfff, max(0, SIZE - length)))
        length = min(length, SIZE - offset)
        for _, r in self.flights:
            if offset < r.offset + r.length and r.offset < offset + length:
                return None
        return offset, length

    def ask(self):
        place = self.place()
        if not place:
            return
        rng, (offset, length) = self.rng, place
        client = rng.choice(self.clients)
        command = rng.choice((READ, READ, WRITE, WRITE, WRITE, WRITE_ZEROES, TRIM, CACHE, BLOCK_STATUS))
        flags, data = rng.choice((0, 0, 0, nbd.FUA)), b''
        if command == WRITE:
            data = rng.randbytes(min(length, 40)) * (length // 40 + 1)
            data = data[:length]
        if command == WRITE_ZEROES:
            flags |= rng.choice((0, nbd.NO_HOLE, nbd.FAST_ZERO, nbd.FAST_ZERO | nbd.NO_HOLE))
        if command == BLOCK_STATUS and not client.contexts:
            command = READ
        if rng.random() < 0.02:
            command, offset, length, flags, data = FLUSH, 0, 0, 0, b''
        r = client.submit(command, offset, length, flags, data)
        r.sent = data
        self.flights.append((client, r))

    def collect(self, most):
        while len(self.flights) > most:
            client, r = self.rng.choice(self.flights)
            client.wait(r)
            self.flights.remove((client, r))
            self.judge(client, r)

    def judge(self, client, r):
        a, b = r.offset, r.offset + r.length
        require(r.error == 0 or (r.error == nbd.ENOTSUP and r.flags & nbd.FAST_ZERO), f'error {r.error}')
        if r.command == WRITE:
            self.model[a:b] = r.sent
        elif r.command == WRITE_ZEROES and not r.error:
            self.model[a:b] = bytes(r.length)
        elif r.command == READ:
            require(r.data == self.model[a:b], f'{r.length} bytes at {a} are wrong')
        elif r.command == TRIM:  # they may be anything, from now on the same
            self.model[a:b] = client.read(a, r.length)
        elif r.command == BLOCK_STATUS:
            at = a
            for n, flags in r.status['base:allocation']:
                end = min(at + n, b)
                require(not flags & nbd.STATE_ZERO or not any(self.model[at:end]), f'not zero at {at}')
                at += n


def campaign(kind, seed):
    rng = random.Random(f'{kind} {seed}')
    path, fmt, content = make_disk(kind)
    with Server('-f', fmt, path) as server:
        clients = [server.go(m, contexts=['base:allocation'] if m != 'simple' else ()) for m in MODES * 2]
        load = Load(clients, content, rng)
        for _ in range(500):
            load.ask()
            load.collect(DEPTH)
        load.collect(0)
        for n, t in enumerate(clients):
            require(n or t.read(0, SIZE) == load.model, 'wrong in the end')
            t.disconnect()
    if fmt == 'qcow2':
        tool('qemu-img', 'check', '-q', '-f', fmt, path)
        if KIND == 'img':
            tool(os.environ['IMG'], 'check', '-q', path)
        tool('qemu-img', 'convert', '-f', fmt, '-O', 'raw', path, 'disk.raw')
    require(held('disk.raw', 0, SIZE) == load.model, f'{kind}: the peer reads other bytes')


def main():
    need('qemu-img')
    seed = int(os.environ.get('SEED', '1'))
    end = time.monotonic() + float(os.environ.get('SOAK_SECONDS', '0'))
    while True:
        for kind in KINDS:
            try:
                campaign(kind, seed)
            except Exception:
                print(f'seed {seed}, {kind}')
                raise
        seed += 1
        if time.monotonic() >= end:
            break


main()
