# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""A thousand NBD connections at a time: idle ones, ones that stop in an option, and ones that ask for a
megabyte each and read nothing. Others are served meanwhile, memory and threads stay few, all get their replies in the end."""
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import run_cases
from nbd_client import INFO, LIST, READ, option_bytes
from nbd_server import KiB, MiB, MODES, RELEASE, Server, pattern, raw_disk, require
from nbd_streams import Witness

# The limits are those of the optimised build; the other one is looked at for its reports.
COUNT = 1000 if RELEASE else 150
DEPTH, SIZE = 16, 64 * KiB


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 2 * COUNT + 100
    if hard != resource.RLIM_INFINITY and hard < want:
        print(f'no {want} descriptors')
        sys.exit(77)
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


def limited(server, most):
    peak, threads = server.peak(), server.status('Threads')
    require(threads <= os.cpu_count() + 4, f'{threads} threads')
    if RELEASE:
        require(peak <= most, f'{peak / MiB:.1f} MiB, {most / MiB} are allowed')


def idle():
    with Server('-f', 'raw', PATH) as server:
        witness = Witness(server)
        crowd = [server.go(MODES[n % len(MODES)]) for n in range(COUNT)]
        witness.look_closely()
        limited(server, 16 * MiB)
        for t in crowd:
            require(t.read(8, 8) == pattern(8, 8), 'wrong bytes')
            t.disconnect()
        witness.end()


def half_an_option():
    """The largest one that is taken, but for a byte."""
    with Server('-f', 'raw', PATH) as server:
        witness = Witness(server)
        crowd = [server.handshake() for _ in range(COUNT)]
        for h in crowd:
            h.wire.send(option_bytes(INFO, bytes(SIZE))[:-1])
        witness.look_closely()
        server.go('structured').disconnect()
        limited(server, 40 * MiB)
        for h in crowd:
            h.close()
        witness.end()
        # Most of them were dropped; the log says so now and then only.
        lines = len(server.said().splitlines())
        require(lines < 300, f'{lines} lines in the log')


def unread_lists():
    """Of 60 exports with the longest names."""
    names = [f'{n:02}' + 'n' * 4094 for n in range(60)]
    with Server('-r', *(f'--export=name={name},file={PATH},format=raw' for name in names)) as server:
        crowd = [server.handshake() for _ in range(COUNT)]
        for h in crowd:
            h.wire.send(option_bytes(LIST))
        h = server.handshake()
        require([name for name, _ in h.list()] == names, 'another list')
        h.close()
        limited(server, 64 * MiB)
        for h in crowd:
            h.close()


def unread():
    with Server('-f', 'raw', PATH) as server:
        witness = Witness(server)
        crowd = [server.go(MODES[n % len(MODES)]) for n in range(COUNT)]
        for t in crowd:
            for n in range(DEPTH):
                t.submit(READ, n * SIZE, SIZE)
        witness.look_closely()
        limited(server, 64 * MiB)
        for t in crowd[::10]:
            for r in list(t.pending.values()):
                require(t.succeed(r).data == pattern(r.offset, SIZE), 'wrong bytes')
            t.disconnect()
        for t in crowd:
            t.close()
        witness.end()
        limited(server, 64 * MiB)


def large_and_unread():
    """Few that ask for as much as they may."""
    with Server('-f', 'raw', PATH) as server:
        witness = Witness(server)
        crowd = [server.go(MODES[n % len(MODES)]) for n in range(16)]
        for t in crowd:
            for _ in range(16):
                t.submit(READ, 0, 32 * MiB)
        witness.look_closely()
        limited(server, 128 * MiB)
        for t in crowd:
            t.close()
        witness.end()


raise_file_limit()
PATH = raw_disk('x.raw', 32 * MiB, (0, 2 * MiB))
run_cases([idle, half_an_option, unread_lists, unread, large_and_unread])
