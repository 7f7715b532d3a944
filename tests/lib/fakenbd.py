# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD server for tests of clients, byte by byte: a small honest one, whose messages a test changes.

Every message that it sends goes through `tamper(name, data)`, which returns what is sent instead, or
None: then it says nothing any more and closes. With `leaves` it also does so after a changed message. Names: greeting, REPLY of options ('structured',
'contexts', 'go'), 'read', 'status', 'write', 'flush', 'zero', 'trim'. What it got is in `log`.
"""
import os
import socket
import struct
import threading

OPTION_REPLY = 0x3e889045565a9
REQUEST, SIMPLE, STRUCTURED = 0x25609513, 0x67446698, 0x668e33ef
ACK, INFO, META = 1, 3, 4
ERR_UNKNOWN, ERR_UNSUP = (1 << 31) + 6, (1 << 31) + 1
DATA, HOLE, STATUS = 1, 2, 5
HAS_FLAGS, READ_ONLY, CAN_FLUSH, CAN_TRIM, CAN_ZERO, MULTI = 1, 2, 4, 32, 64, 256
COMMANDS = {0: 'read', 1: 'write', 3: 'flush', 4: 'trim', 6: 'zero', 7: 'status'}


class Gone(Exception):
    """The other side closed, or we did."""


def option_reply(option, kind, data=b''):
    return struct.pack('>QIII', OPTION_REPLY, option, kind, len(data)) + data


def chunk(cookie, kind, data=b'', done=1, length=None):
    length = len(data) if length is None else length
    return struct.pack('>IHHQI', STRUCTURED, done, kind, cookie, length) + data


def info_export(size, flags):
    return struct.pack('>HQH', 0, size, flags)


def info_blocks(least, preferred, most):
    return struct.pack('>HIII', 3, least, preferred, most)


class FakeServer:
    def __init__(self, tamper=lambda name, data: data, size=1 << 20, flags=HAS_FLAGS | CAN_FLUSH | CAN_ZERO,
                 blocks=None, path='fake.sock', leaves=False):
        self.tamper, self.size, self.flags, self.blocks = tamper, size, flags, blocks
        self.leaves = leaves
        self.data = bytearray(os.urandom(4096) * (min(size, 1 << 22) // 4096))
        self.path, self.uri = path, f'nbd+unix:///?socket={path}'
        self.log, self.arrived, self.sent, self.cookie = [], threading.Event(), 0, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.threads = []

    def __enter__(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        try:
            self.handshake(conn)
            while True:
                self.request(conn)
        except (Gone, OSError):
            pass
        finally:
            conn.close()

    def send(self, conn, name, honest):
        data = self.tamper(name, honest)
        if data is None:
            raise Gone
        if data == 'silence':
            self.arrived.set()
            while conn.recv(4096):
                pass
            raise Gone
        conn.sendall(data)
        self.sent += len(data)
        if self.leaves and data != honest:
            conn.shutdown(socket.SHUT_WR)

    @staticmethod
    def receive(conn, n):
        data = b''
        while len(data) < n:
            more = conn.recv(n - len(data))
            if not more:
                raise Gone
            data += more
        return data

    def handshake(self, conn):
        self.send(conn, 'greeting', b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
        self.receive(conn, 4)
        while True:
            _, option, length = struct.unpack('>8sII', self.receive(conn, 16))
            self.receive(conn, length)
            self.log.append(option)
            self.answer(conn, option)
            if option == 7:
                return

    def answer(self, conn, option):
        if option == 8:
            self.send(conn, 'structured', option_reply(8, ACK))
        elif option == 10:
            self.send(conn, 'contexts', option_reply(10, META, struct.pack('>I', 7) +
                                                     b'base:allocation') + option_reply(10, ACK))
        elif option == 7:
            replies = option_reply(7, INFO, info_export(self.size, self.flags))
            if self.blocks:
                replies += option_reply(7, INFO, info_blocks(*self.blocks))
            self.send(conn, 'go', replies + option_reply(7, ACK))
        elif option == 2:
            raise Gone
        else:
            self.send(conn, 'other', option_reply(option, ERR_UNSUP))

    def request(self, conn):
        _, _, kind, cookie, off, length = struct.unpack('>IHHQQI', self.receive(conn, 28))
        if kind == 2:
            raise Gone
        name = COMMANDS.get(kind, 'unknown')
        self.log.append((name, off, length))
        self.cookie = cookie
        if kind == 1:
            self.data[off:off + length] = self.receive(conn, length)
        if kind == 0:
            reply = chunk(cookie, DATA, struct.pack('>Q', off) + bytes(self.data[off:off + length]))
        elif kind == 7:
            half = (length // 2 + 511) // 512 * 512
            entries = [(half, 0), (length - half, 3)] if half < length else [(length, 0)]
            reply = chunk(cookie, STATUS, struct.pack('>I', 7) +
                          b''.join(struct.pack('>II', *e) for e in entries))
        else:
            reply = struct.pack('>IIQ', SIMPLE, 0, cookie)
        self.send(conn, name, reply)
