# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Sessions of NBD clients in two pieces, cut at every byte: the answer is that of one piece. And ended at
every byte, in the ways that a connection can end: nobody else notices, no descriptor is lost."""
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from nbd_server import RELEASE, MiB, Server, raw_disk, require, serve_cases
from nbd_streams import Witness, requests, say, session

STEP = 1 if RELEASE else 3


def split_everywhere(s, mode):
    """Replies may come in any order, so they are compared as one would sort them. What is a hole
    is the same from the second session on."""
    witness, data = Witness(s), b''.join(session(mode))
    say(s.connect(), data)
    want = say(s.connect(), data)
    for at in range(1, len(data), STEP):
        sock = s.connect()
        sock.sendall(data[:at])
        witness.look()
        got = say(sock, data[at:])
        require(sorted(got) == sorted(want), f'other replies when cut at {at}: {got.hex()} and {want.hex()}')
    witness.end()


def end_everywhere(s, mode):
    witness, data = Witness(s), b''.join(session(mode))
    for at in range(0, len(data), STEP):
        say(s.connect(), data[:at])       # its end is seen as such
        sock = s.connect()
        sock.sendall(data[:at])
        sock.close()                           # with replies unread: reset
        if at % 16 == 0:
            witness.look()
    witness.end()


def end_with_many_in_flight(s, mode):
    """1 to 64 reads of 64 KiB, none of them read; some also without the last header's end."""
    witness = Witness(s)
    messages = session(mode)[:-1 - len([*requests(mode)])]
    read = next(requests(mode))
    many = read[:-4] + (65536).to_bytes(4, 'big')
    for n in range(1, 65):
        for missing in (0, 5):
            sock = s.connect()
            data = b''.join(messages) + many * n
            sock.sendall(data[:len(data) - missing])
            if n & 1:
                sock.shutdown(socket.SHUT_WR)
            sock.close()
        witness.look()
    witness.end()


serve_cases(Server('-f', 'raw', raw_disk('x.raw', MiB, (0, MiB))), globals())
