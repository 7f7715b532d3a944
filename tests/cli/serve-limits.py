# SPDX-License-Identifier: GPL-2.0-or-later
"""--rate, --read-rate, --write-rate: who read beyond the limit waits with the next request, who writes beyond
it with the data; --idle-timeout: who asks for nothing is dropped, who waits for an answer is not.

Few bytes per second make pauses of hours: no machine is so slow that it sees their end."""
import os
import select
import sys
import time

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_server import MiB, Server, require, same

BIG, DATA = 4 * MiB, bytes(65536)  # DATA: fits into a socket


def reads(s, length=BIG):
    """A client who has read so much, and has asked for one byte more."""
    t = s.go()
    t.read(0, length)
    t.submit(nbd.READ, 0, 1)
    return t


def writes(s, data=DATA):
    t = s.go()
    t.submit(nbd.WRITE, 0, len(data), payload=data)
    return t


def waiting(t):
    """Whether nothing has come from the server, neither an answer nor the end."""
    return not select.select([t.wire.sock], [], [], 0)[0]


def free(t, command):
    """What is not limited is done any number of times."""
    for i in range(50):
        t.run(command, i * 4096, 4096, payload=bytes(4096) if command == nbd.WRITE else b'')


def limits(option, requests, unlimited):
    with Server('-f', 'raw', option, 'disk') as s:
        limited = [request(s) for request in requests]
        for command in unlimited:
            free(s.go(), command)
        free_of_data = s.go()
        free_of_data.flush()
        free_of_data.zero(0, BIG)
        for t in limited:
            require(waiting(t), f'{option}: {t.pending} is not held back')
        # All clients have one limit: a byte alone would be within what is free.
        others = [request(s, 1 if request == reads else b'x') for request in requests]
        free_of_data.flush()
        for t in others:
            require(waiting(t), f'{option}: another client has a limit of its own')
        # A server that stops does what it was sent, and waits for nobody's pause.
        s.stop()
        for t in limited + others:
            t.wait_all()


def pauses_end():
    """No earlier than the limit allows; a burst of a tenth of a second is free."""
    with Server('-f', 'raw', '--read-rate=16M', 'disk') as s:
        t = s.go()
        began = time.monotonic()
        t.read(0, BIG)
        t.read(0, 1)
        took = time.monotonic() - began
        require(took >= 0.25 - 0.1, f'4 MiB at 16 MiB/s took {took} s')
        for _ in range(20):
            t.read(0, 512)


def unread(s):
    t = s.go()
    t.submit(nbd.READ, 0, 16 * MiB)
    return t


def dropped(s, quiet):
    try:
        quiet.wire.receive(1)
        raise SystemExit('it says something')
    except nbd.Closed:
        same(s.said().count('it was idle for too long'), 1, s.said())


def idle():
    """Those that have to wait were quiet for longer than the one that is dropped."""
    with Server('-f', 'raw', '--idle-timeout=4', '--rate=64', 'disk') as limited, \
            Server('-f', 'raw', '--idle-timeout=4', 'other') as s:
        held_back, slow = [reads(limited), writes(limited)], unread(s)
        quiet = limited.go(), s.go()
        dropped(limited, quiet[0])
        dropped(s, quiet[1])
        require(all(waiting(t) for t in held_back), 'who is held back is answered')
        slow.wait_all()
        limited.stop()
        for t in held_back:
            t.wait_all()


for path in 'disk', 'other':
    with open(path, 'wb') as disk:
        disk.write(b'd' * 16 * MiB)
limits('--read-rate=64', [reads], [nbd.WRITE])
limits('--write-rate=64', [writes], [nbd.READ])
limits('--rate=64', [reads, writes], [])
pauses_end()
idle()
