# SPDX-License-Identifier: GPL-2.0-or-later
"""What the NBD protocol asks of servers with TLS: nothing is told before it where it is required, nothing
that was said before it counts after it, and it is closed as it was opened; clients that break it."""
import os
import random
import shutil
import socket
import ssl
import sys
import warnings

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from certificates import Authority
from hostile import run_cases
from nbd_server import HERE, MiB, Server, ended, fails, pattern, raw_disk, refused, require, same

warnings.simplefilter('ignore', DeprecationWarning)  # of old versions, which are to be refused


class TlsSocket:
    """What Wire wants of a socket, over TLS."""

    def __init__(self, sock, certificate=None, version=None):
        context = ssl.create_default_context(cafile=f'{HERE}/pki/ca-cert.pem')
        if version:
            context.minimum_version = context.maximum_version = version
        if certificate:
            context.load_cert_chain(f'{certificate}/client-cert.pem', f'{certificate}/client-key.pem')
        sock.settimeout(nbd.PATIENCE)
        self.tls = context.wrap_socket(sock, server_hostname='localhost', suppress_ragged_eofs=False)

    def setblocking(self, on):
        self.tls.setblocking(on)

    def send(self, data):
        return self.translate(self.tls.send, data)

    def recv(self, n):
        return self.translate(self.tls.recv, n)

    @staticmethod
    def translate(function, argument):
        try:
            return function(argument)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            raise nbd.Violation('TLS was not closed') from None

    def fileno(self):
        return self.tls.fileno()

    def close(self):
        self.tls.close()


def secured(h, **how):
    """STARTTLS, and the handshake of TLS; all that was negotiated is void."""
    same(h.ask(nbd.STARTTLS), [])
    require(not h.wire.buffer, 'bytes behind the ACK')
    h.wire = nbd.Wire(TlsSocket(h.wire.sock, **how))
    h.structured, h.extended, h.contexts = False, False, {}
    return h


def good(h):
    same(h.list(), [('', '')])
    t = h.structured_reply().go()
    require(t.read(0, MiB) == pattern(0, MiB), 'wrong bytes')
    t.write(512, pattern(512, 600), nbd.FUA)
    t.disconnect()


# ---- required ----

def nothing_is_told_before(s):
    h = s.handshake()
    for option, data in ((nbd.LIST, b''), (nbd.INFO, nbd.info_bytes()), (nbd.GO, nbd.info_bytes()),
                         (nbd.GO, nbd.info_bytes('other')), (nbd.STRUCTURED_REPLY, b''), (nbd.EXTENDED_HEADERS, b''),
                         (nbd.LIST_META_CONTEXT, nbd.contexts_bytes()), (99, b'x'), (nbd.INFO, b'malformed'),
                         (nbd.SET_META_CONTEXT, nbd.contexts_bytes('', ['base:allocation']))):
        same([kind for kind, _ in h.option(option, data)], [nbd.ERR_TLS_REQD], f'option {option}')
    good(secured(h))


def export_name_ends_it(s):
    ended(s.handshake().export_name)
    ended(s.handshake(0).export_name)


def abort_needs_no_tls(s):
    s.handshake().abort()


def starttls_takes_no_data(s):
    h = s.handshake()
    refused(nbd.ERR_INVALID, h.ask, nbd.STARTTLS, b'x')
    good(secured(h))


def once_is_enough(s):
    h = secured(s.handshake())
    refused(nbd.ERR_INVALID, h.ask, nbd.STARTTLS)
    good(h)


def both_versions(s):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        good(secured(s.handshake(), version=version))


def old_versions_end_it(s):
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        h = s.handshake()
        h.ask(nbd.STARTTLS)
        try:
            TlsSocket(h.wire.sock, version=version)
        except (ssl.SSLError, OSError):
            continue
        require(False, f'{version} is accepted')


def what_comes_with_starttls_is_not_obeyed(s):
    """Somebody in the middle could have put it there."""
    for more in (nbd.option_bytes(nbd.LIST), nbd.option_bytes(nbd.ABORT), nbd.option_bytes(nbd.GO, nbd.info_bytes())):
        h = s.handshake()
        h.wire.send(nbd.option_bytes(nbd.STARTTLS) + more)
        same(h.replies(nbd.STARTTLS), [(nbd.REP_ACK, b'')])
        while h.wire.more():
            pass
        require(b'\x03\xe8\x89\x04\x55\x65\xa9' not in h.wire.buffer, f'an answer: {h.wire.buffer}')
        h.close()


def what_is_no_tls_ends_it(s):
    rng = random.Random(5)
    for n in range(100):
        h = s.handshake()
        h.ask(nbd.STARTTLS)
        h.wire.send(rng.choice((b'', b'\x16\x03\x01', b'\x16\x03\x01\x40\x00', b'\x80', b'\x17\x03\x03\xff\xff')) +
                    rng.randbytes(n * 20))
        try:
            h.wire.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it ended it already
        while h.wire.more():
            pass
        h.close()
    good(secured(s.handshake()))
    s.wait_for_files(s.idle_files)


def damaged_records_end_it(s):
    """Behind a good beginning."""
    rng = random.Random(6)
    for _ in range(30):
        h = secured(s.handshake())
        h.structured_reply()
        raw = socket.socket(fileno=os.dup(h.wire.sock.fileno()))
        raw.setblocking(True)
        raw.sendall(rng.choice((b'\x17\x03\x03\x00\x20', b'\x15\x03\x03\x00\x02', b'')) + rng.randbytes(64))
        raw.shutdown(socket.SHUT_WR)
        try:
            while h.wire.more():
                h.wire.buffer.clear()
        except (ssl.SSLError, OSError, nbd.Violation):
            pass
        raw.close()
        h.close()
    good(secured(s.handshake()))
    s.wait_for_files(s.idle_files)


def clients_that_leave_in_the_middle(s):
    for _ in range(20):
        h = secured(s.handshake()).structured_reply()
        t = h.go()
        for n in range(10):
            t.submit(nbd.READ, 0, 65536)
            t.submit(nbd.WRITE, n * 512, 512, 0, pattern(n * 512, 512))
        os.close(h.wire.sock.tls.detach())
    good(secured(s.handshake()))
    s.wait_for_files(s.idle_files)


# ---- for who asks ----

def offered(s):
    good(s.handshake())
    good(secured(s.handshake()))
    t = s.handshake().export_name()
    same(t.read(0, 512), pattern(0, 512))
    t.disconnect()


def nothing_from_before_counts(s):
    for mode in ('structured', 'extended'):
        h = s.handshake().mode(mode)
        h.set_contexts('', ['base:allocation'])
        t = secured(h).go()  # which holds it to simple replies
        same(t.read(0, 512), pattern(0, 512))
        t.disconnect()
    h = s.handshake().structured_reply()
    h.set_contexts('', ['base:allocation'])
    t = secured(h).structured_reply().go()
    fails(nbd.EINVAL, t.status, 0, 512)
    t.disconnect()
    good(secured(s.handshake().structured_reply()))


# ---- certificates, silence ----

def only_with_a_certificate(s):
    good(secured(s.handshake(), certificate=f'{HERE}/pki'))
    h = s.handshake()
    try:
        good(secured(h))
        require(False, 'a client without certificate is let in')
    except (ssl.SSLError, OSError, nbd.Closed, nbd.Violation):
        pass


def silence_in_its_handshake_ends_it(s):
    h = s.handshake()
    h.ask(nbd.STARTTLS)
    h.wire.send(b'\x16\x03\x01\x02\x00')
    h.wire.expect_end()


def main():
    if not shutil.which('openssl'):
        print('no openssl')
        sys.exit(77)
    authority = Authority('ca')
    authority.server('pki')
    authority.client('pki')
    path, keys = raw_disk('x.raw', MiB, (0, MiB)), ('-f', 'raw', '--tls-dir', f'{HERE}/pki')
    cases = {(): [nothing_is_told_before, export_name_ends_it, abort_needs_no_tls, starttls_takes_no_data,
                  once_is_enough, both_versions, old_versions_end_it, what_comes_with_starttls_is_not_obeyed,
                  what_is_no_tls_ends_it, damaged_records_end_it, clients_that_leave_in_the_middle],
             ('--tls=on',): [offered, nothing_from_before_counts],
             ('--tls-verify',): [only_with_a_certificate],
             ('--handshake-timeout', '1'): [silence_in_its_handshake_ends_it]}
    found = []
    for options, functions in cases.items():
        for f in functions:
            def call(f=f, options=options):
                with Server(*keys, *options, path) as server:
                    f(server.ready())
            call.__name__ = f.__name__
            found.append(call)
    run_cases(found)


main()
