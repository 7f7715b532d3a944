# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""The NBD server is killed under load: what was written before a FLUSH that was acknowledged, or with FUA,
is in the image, whatever else is or is not; and the image is whole in our eyes and the peer's."""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import FLUSH, FUA, WRITE, WRITE_ZEROES
from nbd_server import KIND, MODES, RELEASE, KiB, MiB, Server, held, need, require, tool

SLOT = 4 * KiB
SLOTS = 1500
STRIDE = 20 * KiB  # several slots in a cluster
SIZE = 64 * MiB
ROUNDS = 10 if RELEASE else 3


class Slot:
    """What a place of the disk may hold: the contents since the last one that must be there."""

    def __init__(self):
        self.contents = [bytes(SLOT)]
        self.busy = False

    def sent(self, data):
        self.contents.append(data)
        self.busy = True

    def durable(self, data):
        del self.contents[:self.contents.index(data)]


class Load:
    """One client with requests in flight, each slot in one of them at most."""

    def __init__(self, t, slots, rng):
        self.t, self.slots, self.rng = t, slots, rng
        self.flights = {}   # request -> (slot, data), or the writes that a flush covers
        self.done = []      # (slot, data), acknowledged and not flushed

    def change(self):
        at = self.rng.choice([n for n, s in enumerate(self.slots) if not s.busy])
        slot, flags = self.slots[at], FUA if self.rng.random() < 0.1 else 0
        if self.rng.random() < 0.15:
            data, r = bytes(SLOT), self.t.submit(WRITE_ZEROES, at * STRIDE, SLOT, flags)
        else:
            data = self.rng.randbytes(16) * (SLOT // 16)
            r = self.t.submit(WRITE, at * STRIDE, SLOT, flags, data)
        slot.sent(data)
        self.flights[r] = (slot, data)

    def flush(self):
        r = self.t.submit(FLUSH)
        self.flights[r] = list(self.done)
        self.done.clear()

    def collect(self):
        """Takes one reply and what it means."""
        self.t.receive_one()
        for r in [r for r in self.flights if r.done]:
            require(not r.error, f'error {r.error}')
            what = self.flights.pop(r)
            if r.command == FLUSH:
                for slot, data in what:
                    if data in slot.contents:  # else something newer is durable
                        slot.durable(data)
                continue
            what[0].busy = False
            if r.flags & FUA:
                what[0].durable(what[1])
            else:
                self.done.append(what)


def load(server, rng):
    """Until the server is killed in the middle of it."""
    slots = [Slot() for _ in range(SLOTS)]
    clients = [Load(server.go(MODES[n % len(MODES)]), slots, rng) for n in range(3)]
    for _ in range(rng.randrange(100, 700)):
        c = rng.choice(clients)
        if len(c.flights) < 16:
            (c.flush if rng.random() < 0.05 else c.change)()
        else:
            c.collect()
    for c in clients:
        for _ in range(8):
            c.change()
    server.kill()
    for c in clients:  # replies that were on their way count
        try:
            while True:
                c.collect()
        except nbd.Closed:
            c.t.close()
    return slots


def judge(slots):
    for argv in (['qemu-img', 'check', '-f', 'qcow2'], [os.environ['IMG'], 'check']):
        if KIND == 'img' or argv[0] == 'qemu-img':
            tool(*argv, 'x.qcow2', codes=(0, 3))  # leaked clusters are allowed
    tool('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', 'x.qcow2', 'x.raw')
    for n, slot in enumerate(slots):
        data = held('x.raw', n * STRIDE, SLOT)
        require(data in slot.contents, f'slot {n} holds {data[:16].hex()}, where one of '
                f'{[c[:16].hex() for c in slot.contents]} is right')


def main():
    need('qemu-img')
    for n in range(ROUNDS):
        rng = random.Random(n + int(os.environ.get('SEED', '0')))
        tool('qemu-img', 'create', '-q', '-f', 'qcow2', 'x.qcow2', SIZE)
        server = Server('-f', 'qcow2', os.path.abspath('x.qcow2'))
        judge(load(server, rng))


main()
