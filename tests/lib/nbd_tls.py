# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS for the clients of nbd_client: sockets that are encrypted, to be had after STARTTLS, and hellos to
be sent in pieces."""
import select
import ssl
import struct

import nbd_client as nbd
from nbd_client import check

ALERT, HANDSHAKE = 0x15, 0x16


def context(certificate=None, version=None):
    """Of a client that takes any server, and shows the certificate of a directory."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    if certificate:
        c.load_cert_chain(f'{certificate}/client-cert.pem', f'{certificate}/client-key.pem')
    return c


class Encrypted:
    """In the place of a non-blocking socket."""

    def __init__(self, sock, how):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = how.wrap_bio(self.incoming, self.outgoing)
        self.unsent = b''

    def fileno(self):
        return self.sock.fileno()

    def setblocking(self, flag):
        self.sock.setblocking(flag)

    def close(self):
        self.sock.close()

    def push(self):
        """Sends what there is; BlockingIOError: not all of it."""
        self.unsent += self.outgoing.read()
        while self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent):]

    def try_to(self, function):
        """Its BlockingIOError is for later."""
        try:
            function()
        except BlockingIOError:
            pass

    def pull(self):
        data = self.sock.recv(1 << 16)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def send(self, data):
        self.push()
        n = self.tls.write(data[:1 << 16])
        self.try_to(self.push)
        return n

    def recv(self, n):
        self.try_to(self.push)
        while True:
            try:
                return self.tls.read(n)
            except ssl.SSLWantReadError:
                self.pull()
            except ssl.SSLError:
                return b''  # the end, by a good-bye, an alert, or nothing

    def shake(self, wire):
        """The handshake; ssl.SSLError: refused. nbd.Closed: without a word."""
        done = False
        while not done or self.unsent:
            try:
                done = done or self.tls.do_handshake() is None
            except ssl.SSLWantReadError:
                pass
            try:
                self.try_to(self.push)
                if not done or self.unsent:
                    wire.ready((0 if done else select.POLLIN) | (select.POLLOUT if self.unsent else 0))
                if not done:
                    self.try_to(self.pull)
            except (BrokenPipeError, ConnectionResetError):
                raise nbd.Closed('in the TLS handshake') from None
        return self


def ask(h):
    """STARTTLS, and it is agreed on: the server waits for a hello."""
    found = h.option(nbd.STARTTLS)
    check(found == [(nbd.REP_ACK, b'')], f'STARTTLS is answered by {found}')
    check(not h.wire.buffer, f'bytes behind the answer to STARTTLS: {bytes(h.wire.buffer).hex()}')
    return h


def start(h, how=None):
    """From now on the handshake is encrypted."""
    ask(h)
    h.wire.sock = Encrypted(h.wire.sock, how or context()).shake(h.wire)
    return h


def hello(how=None):
    """The first bytes of a TLS client."""
    e = Encrypted(None, how or context())
    try:
        e.tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return e.outgoing.read()


def turned_away(h):
    """The server ends the connection, in clear with nothing but an alert."""
    while h.wire.more():
        pass
    said = bytes(h.wire.buffer)
    while said:
        kind, _, n = struct.unpack('>BHH', said[:5])
        check(kind == ALERT and len(said) >= 5 + n, f'more than an alert: {said.hex()}')
        said = said[5 + n:]
    h.close()
