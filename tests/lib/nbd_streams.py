# SPDX-License-Identifier: GPL-2.0-or-later
"""What hostile NBD clients send: whole sessions as messages, and what can be done to them."""
import socket
import struct

import nbd_client as nbd
from nbd_client import contexts_bytes, info_bytes, option_bytes, request_bytes
from nbd_server import Mistake, require

# Numbers that programs get wrong.
NUMBERS = (0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
           0x80000000, 0xfffffffe, 0xffffffff, 1 << 32, (1 << 32) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 512,
           (1 << 64) - 1)


def options(mode, contexts=True):
    """A handshake with every option, as messages."""
    yield struct.pack('>I', nbd.FIXED | nbd.NO_ZEROES)
    yield option_bytes(nbd.LIST)
    yield option_bytes(99, b'unknown')
    yield option_bytes(nbd.STARTTLS)
    if mode == 'structured':
        yield option_bytes(nbd.STRUCTURED_REPLY)
    if mode == 'extended':
        yield option_bytes(nbd.EXTENDED_HEADERS)
    yield option_bytes(nbd.LIST_META_CONTEXT, contexts_bytes('', ['base:', 'qemu:dirty-bitmap:']))
    if contexts:
        yield option_bytes(nbd.SET_META_CONTEXT, contexts_bytes('', ['base:allocation', 'x-y:z']))
    yield option_bytes(nbd.INFO, info_bytes('', [nbd.INFO_NAME, nbd.INFO_DESCRIPTION, nbd.INFO_BLOCK_SIZE]))
    yield option_bytes(nbd.INFO, info_bytes('other'))


def requests(mode):
    """Every command, as messages."""
    ext, flag = mode == 'extended', nbd.PAYLOAD_LEN if mode == 'extended' else 0
    yield request_bytes(ext, nbd.READ, 1, 4096, 700)
    yield request_bytes(ext, nbd.WRITE, 2, 512, 100, flag) + b'w' * 100
    yield request_bytes(ext, nbd.WRITE, 3, 8000, 300, flag | nbd.FUA) + b'v' * 300
    yield request_bytes(ext, nbd.TRIM, 4, 65536, 4096)
    yield request_bytes(ext, nbd.WRITE_ZEROES, 5, 9000, 5000, nbd.NO_HOLE)
    yield request_bytes(ext, nbd.CACHE, 6, 0, 4096)
    yield request_bytes(ext, nbd.BLOCK_STATUS, 7, 0, 65536)
    yield request_bytes(ext, nbd.BLOCK_STATUS, 8, 100, 5000, nbd.REQ_ONE)
    if ext:
        yield request_bytes(ext, nbd.BLOCK_STATUS, 9, 0, 12, nbd.PAYLOAD_LEN) + struct.pack('>QI', 4096, 0)
    yield request_bytes(ext, nbd.FLUSH, 10)
    yield request_bytes(ext, 99, 11)
    yield request_bytes(ext, nbd.READ, 12, 1 << 40, 512)


def session(mode, end='disc'):
    """All that a client sends from the greeting on."""
    messages = [*options(mode)]
    if end == 'abort':
        return [*messages, option_bytes(nbd.ABORT)]
    if end == 'name':
        messages.append(option_bytes(nbd.EXPORT_NAME))
    else:
        messages.append(option_bytes(nbd.GO, info_bytes('', [nbd.INFO_BLOCK_SIZE])))
    return [*messages, *requests(mode), request_bytes(mode == 'extended', nbd.DISC, 13)]


# ---- mutations ----

def put_number(data, rng):
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - size + 1))
    number = rng.choice(NUMBERS) & (1 << 8 * size) - 1
    data[at:at + size] = number.to_bytes(size, 'big')


def flip_bits(data, rng):
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut_out(data, rng):
    at = rng.randrange(len(data))
    del data[at:at + rng.choice((1, 2, 4, 8, 100))]


def put_in(data, rng):
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 200, 5000)))


def repeat(data, rng):
    a = rng.randrange(len(data))
    data[a:a] = data[a:a + rng.randrange(1, 40)] * rng.choice((1, 3, 50))


def mutated(messages, rng):
    """One message is changed, left out, doubled or exchanged; maybe the end is missing."""
    found, at = [bytearray(m) for m in messages], rng.randrange(len(messages))
    kind = rng.randrange(10)
    if kind == 0:
        del found[at]
    elif kind == 1:
        found[at:at] = [found[at]] * rng.choice((1, 2, 60))
    elif kind == 2:
        other = rng.randrange(len(found))
        found[at], found[other] = found[other], found[at]
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            if found[at]:
                rng.choice((put_number, put_number, flip_bits, cut_out, put_in, repeat))(found[at], rng)
    data = b''.join(found)
    return data[:rng.randrange(len(data) + 1)] if rng.randrange(5) == 0 else data


# ---- clients that do it ----

def say(sock, data, most=256 << 20):
    """Sends all that the server takes, says that this was all, and reads until the server closes.
    Returns what came; Violation when the server goes on waiting."""
    wire, got = nbd.Wire(sock), bytearray()
    try:
        wire.send(data)
        sock.shutdown(socket.SHUT_WR)
    except (nbd.Closed, OSError):
        pass
    while wire.more():
        got += wire.buffer
        wire.buffer.clear()
        require(len(got) <= most, f'{len(got)} bytes of replies')
    got += wire.buffer
    wire.close()
    return bytes(got)


class Witness:
    """An ordinary client whose requests are answered whatever others do; and the server's resources,
    which are as before when the others are gone."""

    def __init__(self, server, memory=None):
        self.server, self.memory = server, memory
        self.client = server.go('structured')
        self.files = server.files()

    def look(self):
        self.server.alive()
        self.client.read(0, 512)

    def look_closely(self):
        self.look()
        self.server.go('simple').disconnect()
        if self.memory and self.server.peak() > self.memory:
            raise Mistake(f'{self.server.peak() >> 20} MiB, {self.memory >> 20} are allowed')

    def end(self):
        self.look_closely()
        self.server.wait_for_files(self.files)
        self.client.disconnect()
