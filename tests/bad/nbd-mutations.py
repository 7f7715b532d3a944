# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Thousands of sessions of NBD clients that went wrong somewhere: whatever they send, the server goes
on, another client is served meanwhile, memory stays bounded, no descriptor is lost, and the image is
whole afterwards. A raw disk, or qcow2 with the sanitizers. The same sequence in every run; SOAK_SECONDS
repeats it with other seeds, SEED chooses one."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from nbd_server import MODES, RELEASE, MiB, Server, raw_disk, tool
from nbd_streams import Witness, mutated, say, session

COUNT = 2000 if RELEASE else 1000
ENDS = ('disc', 'disc', 'disc', 'name', 'abort')


def campaign(server, seed):
    rng = random.Random(seed)
    witness = Witness(server, 64 * MiB if RELEASE else None)
    for n in range(COUNT):
        data = mutated(session(rng.choice(MODES), rng.choice(ENDS)), rng)
        try:
            say(server.connect(), data)
            witness.look()
            if n % 50 == 0:
                witness.look_closely()
        except Exception:
            print(f'seed {seed}, session {n}: {data.hex()}')
            raise
    witness.end()


def main():
    seed = int(os.environ.get('SEED', '1'))
    end = time.monotonic() + float(os.environ.get('SOAK_SECONDS', '0'))
    path, fmt = raw_disk('x.raw', MiB, (0, MiB)), 'raw' if RELEASE else 'qcow2'
    if fmt == 'qcow2':
        path += '.qcow2'
        tool(os.environ['IMG'], 'convert', '-q', '-O', fmt, '-o', 'cluster_size=4k', 'x.raw', path)
    with Server('-f', fmt, path) as server:
        while True:
            campaign(server, seed)
            seed += 1
            if time.monotonic() >= end:
                break
    if fmt == 'qcow2':
        tool(os.environ['IMG'], 'check', path)


main()
