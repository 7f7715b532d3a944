# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD and TLS, by clients that do not keep to the rules: what is said in clear counts for nothing, what is
not TLS ends the connection, and nobody who dawdles in a TLS handshake holds up others.

variants: release asan"""
import os
import shutil
import ssl
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
import nbd_tls
from certificates import Authority
from interop import skip
from nbd_client import ERR_INVALID, ERR_POLICY, ERR_TLS_REQD, ERR_UNSUP, contexts_bytes, info_bytes, option_bytes
from nbd_server import RELEASE, KiB, MiB, Server, ended, fails, held, pattern, raw_disk, refused, require, same, \
    serve_cases

SIZE = 4 * MiB
HALF_OPEN = 200


def goes(s, how=None):
    """The server serves, encrypted."""
    t = nbd_tls.start(s.handshake(), how).structured_reply().go()
    same(t.read(0, 64 * KiB), pattern(0, 64 * KiB), 'what is read')
    t.disconnect()


# ---- what is said in clear ----

def required_means_required(s):
    h = s.handshake()
    for option, data in ((nbd.LIST, b''), (nbd.INFO, info_bytes()), (nbd.GO, info_bytes()),
                         (nbd.STRUCTURED_REPLY, b''), (nbd.EXTENDED_HEADERS, b''),
                         (nbd.SET_META_CONTEXT, contexts_bytes()), (99, b'x')):
        refused(ERR_TLS_REQD, h.ask, option, data)
    nbd_tls.start(h).go().disconnect()
    s.handshake().abort()
    ended(s.handshake().export_name)
    ended(s.handshake(0).option, nbd.STARTTLS)


def starttls_has_no_data(s):
    h = s.handshake()
    refused(ERR_INVALID, h.ask, nbd.STARTTLS, b'x')
    nbd_tls.start(h).go().disconnect()


def starttls_is_once(s):
    h = nbd_tls.start(s.handshake())
    refused(ERR_INVALID, h.ask, nbd.STARTTLS)
    h.go().disconnect()


def bytes_behind_starttls(s):
    """Whoever sits between could have put them there: they are neither answered nor kept."""
    for more in (option_bytes(nbd.LIST), option_bytes(nbd.GO, info_bytes()), b'\0' * 4096,
                 option_bytes(nbd.ABORT) + nbd_tls.hello()):
        h = s.handshake()
        h.wire.send(option_bytes(nbd.STARTTLS) + more)
        same(h.replies(nbd.STARTTLS), [(nbd.REP_ACK, b'')])
        nbd_tls.turned_away(h)


def a_hello_at_once(s):
    """Not nice, but nothing that could do harm: TLS sees every byte of it."""
    h = s.handshake()
    e = nbd_tls.Encrypted(h.wire.sock, nbd_tls.context())
    try:
        e.tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    h.wire.send(option_bytes(nbd.STARTTLS) + e.outgoing.read())
    same(h.replies(nbd.STARTTLS), [(nbd.REP_ACK, b'')])
    e.incoming.write(bytes(h.wire.buffer))
    h.wire.buffer.clear()
    h.wire.sock = e.shake(h.wire)
    h.go().disconnect()


# ---- what is no handshake ----

def garbage(s):
    for junk in (b'GET / HTTP/1.0\r\n\r\n', b'\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00', b'\x17\x03\x03\x00\x01x',
                 b'\x15\x03\x01\x00\x02\x02\x28', b'\x16\x03\x01\xff\xff' + b'\x01' * 100,
                 option_bytes(nbd.STARTTLS), bytes(range(256)) * 16):
        h = nbd_tls.ask(s.handshake())
        h.wire.send(junk)
        nbd_tls.turned_away(h)


def broken_hellos(s):
    """A bit is wrong somewhere; what some versions read over, they may."""
    good = nbd_tls.hello()
    for at in range(0, len(good), len(good) // 40):
        h = nbd_tls.ask(s.handshake())
        h.wire.send(good[:at] + bytes([good[at] ^ 0x5a]) + good[at + 1:])
        h.close()


def leaving(s):
    """At every state of the handshake."""
    good = nbd_tls.hello()
    for n in (0, 1, 4, 5, 6, 50, len(good) - 1, len(good)):
        h = nbd_tls.ask(s.handshake())
        h.wire.send(good[:n])
        h.close()
    h = nbd_tls.ask(s.handshake())
    h.wire.send(good)
    h.wire.receive(100)
    h.close()
    nbd_tls.start(s.handshake()).close()
    nbd_tls.start(s.handshake()).go().close()
    t = nbd_tls.start(s.handshake()).structured_reply().go()
    for _ in range(16):
        t.submit(nbd.READ, 0, MiB)
    t.close()
    s.wait_for_files(s.idle_files)


def byte_by_byte(s):
    """A long hello, too."""
    how = nbd_tls.context()
    how.set_alpn_protocols([f'{i:0200}' for i in range(5)])
    h = nbd_tls.ask(s.handshake())

    class Slow(nbd_tls.Encrypted):
        def push(self):
            self.unsent += self.outgoing.read()
            while self.unsent:
                self.sock.send(self.unsent[:1])
                self.unsent = self.unsent[1:]

        def pull(self):
            self.incoming.write(self.sock.recv(1))

    h.wire.sock = Slow(h.wire.sock, how).shake(h.wire)
    h.go().disconnect()


def old_versions(s):
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        how = nbd_tls.context(version=version)
        how.set_ciphers('ALL:@SECLEVEL=0')
        try:
            nbd_tls.start(s.handshake(), how)
        except ssl.SSLError:
            continue
        require(False, f'{version} is accepted')
    goes(s, nbd_tls.context(version=ssl.TLSVersion.TLSv1_2))


# ---- encrypted, and still hostile ----

def cut_in_the_middle(s):
    """Records that were changed on their way."""
    t = nbd_tls.start(s.handshake()).go()
    e = t.wire.sock
    e.tls.write(nbd.request_bytes(False, nbd.WRITE, 1, 0, 512) + b'!' * 512)
    record = bytearray(e.outgoing.read())
    record[-1] ^= 1
    e.sock.setblocking(True)
    e.sock.sendall(record)
    e.sock.setblocking(False)
    ended(t.wire.receive, 1)
    same(held(s.disk, 0, 512), pattern(0, 512), 'the disk')
    t.close()


def late_readers(s):
    """Replies that wait, in whatever pieces they go, are the right ones."""
    for mode in ('simple', 'structured', 'extended'):
        t = nbd_tls.start(s.handshake()).mode(mode).go()
        asked = [t.submit(nbd.READ, i * 4321, 200 * KiB + i * 7) for i in range(12)]
        goes(s)
        for request in asked:
            t.succeed(request)
            same(request.data, pattern(request.offset, request.length), 'what is read')
        t.disconnect()


def writes(s):
    t = nbd_tls.start(s.handshake()).structured_reply().go()
    for i in range(8):
        t.submit(nbd.WRITE, 2 * MiB + i * 200 * KiB, 200 * KiB, 0, pattern(i, 200 * KiB))
    t.wait_all()
    t.flush()
    for i in range(8):
        same(t.read(2 * MiB + i * 200 * KiB, 200 * KiB), pattern(i, 200 * KiB), f'piece {i}')
    fails(nbd.EINVAL, t.read, SIZE, 1)
    t.disconnect()


def half_open(s):
    """Many, each with as much of a hello as it likes; others are served meanwhile."""
    goes(s)
    before = s.status('VmRSS') * KiB
    waiting = []
    for i in range(HALF_OPEN):
        h = nbd_tls.ask(s.handshake())
        h.wire.send(b'\x16\x03\x01\x40\x00\x01\x00\xff\xfc\x03\x03' + bytes(i * 50))
        waiting.append(h)
    goes(s)
    grown = s.status('VmRSS') * KiB - before
    require(not RELEASE or grown < HALF_OPEN * 128 * KiB, f'{grown >> 20} MiB for {HALF_OPEN} clients')
    same(s.status('Threads') < 32, True, 'threads are few')
    for h in waiting:
        h.close()
    s.wait_for_files(s.idle_files)


# ---- other servers ----

def other(*options):
    return Server(*options, '-f', 'raw', raw_disk('disk', SIZE, (0, SIZE)))


def state_is_forgotten(s):
    """What was agreed on in clear; not whether the client knows fixed newstyle."""
    with other('--tls=on', '--tls-dir', PKI) as o:
        h = o.handshake().structured_reply()
        h.set_contexts('', ['base:allocation'])
        nbd_tls.start(h)
        h.structured, h.contexts = False, {}
        refused(ERR_INVALID, h.set_contexts, '', ['base:allocation'])
        t = h.go()  # which holds the flags and the replies against what was agreed on
        same(t.read(0, 4096), pattern(0, 4096), 'what is read')
        fails(nbd.EINVAL, t.succeed, t.submit(nbd.BLOCK_STATUS, 0, 4096))
        t.disconnect()
        h = o.handshake().extended_headers()
        nbd_tls.start(h)
        h.extended = False
        h.structured_reply().go().disconnect()
        # Who does not want it goes without.
        o.go().disconnect()
    goes(s)


def without_tls(s):
    with other() as o:
        h = o.handshake()
        refused((ERR_POLICY, ERR_UNSUP), h.ask, nbd.STARTTLS)
        h.go().disconnect()
    goes(s)


def who_dawdles_is_dropped(s):
    with other('--handshake-timeout=1', '--tls-dir', PKI) as o:
        waiting = [nbd_tls.ask(o.handshake()) for _ in range(3)]
        waiting[1].wire.send(nbd_tls.hello()[:40])
        waiting[2].wire.send(nbd_tls.hello())
        for h in waiting:
            while h.wire.more():
                pass
            h.close()
        goes(o)
    goes(s)


def stopped_meanwhile(s):
    """A server that is told to stop waits for nobody's handshake."""
    with other('--tls-dir', PKI) as o:
        waiting = [nbd_tls.ask(o.handshake()) for _ in range(3)]
        waiting[1].wire.send(nbd_tls.hello()[:40])
        waiting[2].wire.send(nbd_tls.hello())
        o.stop()
    goes(s)


if not shutil.which('openssl'):
    skip('no openssl')
PKI = os.path.abspath('pki')
Authority('ca').server(PKI)
server = Server('--tls-dir', PKI, '-f', 'raw', raw_disk('disk', SIZE, (0, SIZE)))
server.disk = os.path.abspath('disk')
serve_cases(server, globals())
