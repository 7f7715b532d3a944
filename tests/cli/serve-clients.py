# SPDX-License-Identifier: GPL-2.0-or-later
"""How many clients there may be, and what a full disk is to them."""
import os
import resource
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from serving import IMG, Server, out

GREETING = b'NBDMAGICIHAVEOPT\0\3'
REP_ACK, REP_INFO, ERR_UNKNOWN = 1, 3, 1 << 31 | 6


def check(what, got, expected):
    if got != expected:
        print(f'{what}: {got!r}, expected {expected!r}')


class Client:
    """Asks for an export; .answer is the last reply's type."""

    def __init__(self, path, name=b''):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        check('greeting', self.get(18), GREETING)
        data = struct.pack('>I', len(name)) + name + b'\0\0'
        self.sock.sendall(struct.pack('>I8sII', 3, b'IHAVEOPT', 7, len(data)) + data)
        self.answer = REP_INFO
        while self.answer == REP_INFO:
            _, _, self.answer, length = struct.unpack('>QIII', self.get(20))
            self.get(length)

    def get(self, n):
        return self.sock.recv(n, socket.MSG_WAITALL) if n else b''

    def leave(self):
        """In order; the server has forgotten the connection when this returns."""
        self.sock.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 2, 0, 0, 0))
        check('goodbye', self.sock.recv(1), b'')
        self.sock.close()


out(IMG, 'create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
out(IMG, 'create', '-q', '-f', 'qcow2', 'b.qcow2', '1M')

# Of one export: the second is told so; when the first has left there is room.
with Server('-k', 's', '--export', 'name=one,file=a.qcow2,clients=1',
            '--export', 'name=any,file=b.qcow2') as server:
    first = Client('s', b'one')
    check('first', first.answer, REP_ACK)
    check('second refused', Client('s', b'one').answer > 1 << 31, True)
    check('no such export', Client('s', b'none').answer, ERR_UNKNOWN)
    many = [Client('s', b'any') for _ in range(8)]
    check('the other export', {c.answer for c in many}, {REP_ACK})
    first.leave()
    again = Client('s', b'one')
    check('again', again.answer, REP_ACK)
    check('end', server.stop(), (0, ''))

# Of the server: the second waits without an answer, and has its turn.
with Server('-k', 's', '-e', '1', 'a.qcow2') as server:
    first = Client('s')
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect('s')
    waiting.setblocking(False)
    try:
        print(f'too early: {waiting.recv(18)}')
    except BlockingIOError:
        pass
    first.leave()
    waiting.setblocking(True)
    check('its turn', waiting.recv(18, socket.MSG_WAITALL), GREETING)
    waiting.close()
    check('end', server.stop(), (0, ''))

# A disk that is full (a limit on the size of files is one): clients hear ENOSPC or EFBIG's EIO, the
# server lives, and what it could not write it tells at the end, or had told the client.
def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


out(IMG, 'create', '-q', '-f', 'qcow2', 'full.qcow2', '8M')
with Server('-k', 's', 'full.qcow2', preexec_fn=limit) as server:
    proc = subprocess.run(['qemu-io', '-f', 'raw', '-c', 'write -q 0 4M', '-c', 'read -q 7M 64k', server.uri],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    check('a failed write', ('write failed' in proc.stdout, 'read failed' in proc.stdout), (True, False))
    code, err = server.stop()
    check('told', 'full.qcow2' in err, True)
out(IMG, 'check', '-q', '-r', 'leaks', 'full.qcow2')
