# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""NBD clients that send more than anybody asked for, or next to nothing, and read no replies: the server
stops taking from them or ends them; others are served, memory stays bounded."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import contexts_bytes, info_bytes, option_bytes, request_bytes
from nbd_server import MODES, RELEASE, KiB, MiB, Server, raw_disk, serve_cases
from nbd_streams import Witness, options

MEMORY = 96 * MiB if RELEASE else None
LOOKS = 40  # at others, after which a server that took nothing meanwhile counts as having stopped


def pour(sock, witness, data, most=8 * MiB):
    """Sends without reading, until the server takes no more, ends it, or has taken `most` bytes."""
    sock.setblocking(False)
    sent = idle = at = 0
    while sent < most and idle < LOOKS:
        try:
            n = sock.send(data[at:])
            sent, at, idle = sent + n, (at + n) % len(data), 0
        except BlockingIOError:
            idle += 1
            witness.look()
        except (BrokenPipeError, ConnectionResetError):
            break
    return sent


def flood(server, head, data, clients=4):
    witness = Witness(server, MEMORY)
    socks = [server.connect() for _ in range(clients)]
    for sock in socks:
        sock.sendall(head)
        pour(sock, witness, data)
    witness.look_closely()
    for sock in socks:
        sock.close()
    witness.end()


HELLO = (nbd.FIXED | nbd.NO_ZEROES).to_bytes(4, 'big')
GO = option_bytes(nbd.GO, info_bytes())


def transmission(mode):
    return b''.join(options(mode)) + GO


def lists(s):
    flood(s, HELLO, option_bytes(nbd.LIST) * 1000)


def unknown_options(s):
    flood(s, HELLO, option_bytes(99, b'x' * 1000) * 100)


def informations(s):
    flood(s, HELLO, option_bytes(nbd.INFO, info_bytes('', [3] * 30000)))


def contexts(s):
    data = option_bytes(nbd.LIST_META_CONTEXT, contexts_bytes('', ['base:'] * 5000))
    flood(s, HELLO + option_bytes(nbd.STRUCTURED_REPLY), data)
    data = option_bytes(nbd.SET_META_CONTEXT, contexts_bytes('', ['base:allocation'] * 3000))
    flood(s, HELLO + option_bytes(nbd.STRUCTURED_REPLY), data)


def one_endless_option(s):
    for option in (nbd.LIST, nbd.EXPORT_NAME, nbd.INFO, nbd.ABORT, 99):
        flood(s, HELLO + option_bytes(option, b'', length=0xffffffff), bytes(MiB), 1)


def reads(s):
    for mode in MODES:
        flood(s, transmission(mode), request_bytes(mode == 'extended', nbd.READ, 1, 0, 65536) * 1000, 2)


def flushes_and_errors(s):
    for mode in MODES:
        ext = mode == 'extended'
        data = (request_bytes(ext, nbd.FLUSH, 1), request_bytes(ext, 99, 2),
                request_bytes(ext, nbd.READ, 3, 1 << 60, 1))
        flood(s, transmission(mode), b''.join(data) * 1000, 2)


def statuses(s):
    for mode in MODES[1:]:
        flood(s, transmission(mode), request_bytes(mode == 'extended', nbd.BLOCK_STATUS, 1, 0, MiB) * 1000, 2)


def unknown_payloads(s):
    """With extended headers any command can have one."""
    if 'extended' in MODES:
        data = request_bytes(True, 99, 1, 0, MiB, nbd.PAYLOAD_LEN) + bytes(MiB)
        flood(s, transmission('extended'), data, 2)


def half_of_the_payload(s):
    """Many large writes that never become whole."""
    witness = Witness(s, 192 * MiB if RELEASE else None)
    socks = []
    for n in range(12):
        mode = MODES[n % len(MODES)]
        flags = nbd.PAYLOAD_LEN if mode == 'extended' else 0
        socks.append(s.connect())
        socks[-1].sendall(transmission(mode))
        data = request_bytes(mode == 'extended', nbd.WRITE, 1, 0, 32 * MiB, flags) + bytes(20 * MiB)
        pour(socks[-1], witness, data, len(data))
    witness.look_closely()
    for sock in socks:
        sock.close()
    witness.end()


def trickles(s):
    """One byte, then somebody else's turn."""
    witness = Witness(s)
    data = b''.join(options('structured')) + GO + request_bytes(False, nbd.WRITE, 1, 0, 64 * KiB)
    socks = [s.connect() for _ in range(3)]
    for byte in data + bytes(300):
        for sock in socks:
            sock.sendall(bytes([byte]))
        witness.look()
    for sock in socks:
        sock.close()
    witness.end()


serve_cases(Server('-f', 'raw', raw_disk('x.raw', 32 * MiB, (0, MiB))), globals())
