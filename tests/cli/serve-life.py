# SPDX-License-Identifier: GPL-2.0-or-later
"""How a server lives and ends: daemons, pid files, signals, what is left; whoever starts it is told the
truth at each step."""
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from serving import IMG, Server, out

PR_SET_CHILD_SUBREAPER = 36


def check(what, got, expected):
    if got != expected:
        print(f'{what}: {got!r}, expected {expected!r}')


def left(*but):
    return sorted(set(os.listdir('.')) - {'disk.qcow2', *but})


def greeting(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        return s.recv(18)


GREETING = b'NBDMAGICIHAVEOPT\0\3'
out(IMG, 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M')
# Orphans become our children: their end can be waited for.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

# A signal that stops it in order, whichever it is.
for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    server = Server('-k', 's', '--pid-file', 'pid', 'disk.qcow2')
    check('greeting', greeting('s'), GREETING)
    check('pid file', open('pid', encoding='ascii').read(), f'{server.proc.pid}\n')
    check('end', server.stop(sig), (0, ''))
    check('left', left(), [])
out(IMG, 'check', '-q', 'disk.qcow2')

# What it does, when asked.
with Server('-k', 's', 'disk.qcow2') as server:
    server.proc.send_signal(signal.SIGUSR1)
    check('state', server.proc.stderr.readline(),
          'img: serve: 0 clients, 0 requests, 0 B read (0 B/s), 0 B written (0 B/s)\n')

# systemd hears of it. The second signal ends it at once, also when it hangs.
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.bind('notify')
    server = Server('-k', 's', 'disk.qcow2', env={**os.environ, 'NOTIFY_SOCKET': os.path.abspath('notify')})
    check('notify', notify.recv(100), b'READY=1')
    os.kill(server.server, signal.SIGSTOP)
    server.proc.send_signal(signal.SIGTERM)
    check('notify', notify.recv(100), b'STOPPING=1')
    check('second signal', server.stop(signal.SIGTERM), (-signal.SIGTERM, 'img: Stopped by SIGTERM\n'))
os.unlink('notify')
check('left', left(), [])

# The server crashes: that is said, and what it had made is removed.
server = Server('-k', 's', 'disk.qcow2')
os.kill(server.server, signal.SIGKILL)
check('crash', server.wait(), (1, "img: The server's process was killed by SIGKILL\n"))
check('left', left(), [])

# Without its supervisor it ends as well: we inherit it, and see it end in order.
server = Server('-k', 's', 'disk.qcow2')
server.proc.kill()
server.proc.wait()
check('orphan', os.waitpid(server.server, 0)[1], 0)
os.unlink('s')

# A daemon: its caller returns when it serves.
text = out(IMG, 'serve', '--daemon', '--pid-file', 'pid', '-k', 's', '--output=json', 'disk.qcow2')
pid = int(open('pid', encoding='ascii').read())
check('pid', json.loads(text)['pid'], pid)
check('greeting', greeting('s'), GREETING)
check('session', os.getsid(pid), pid)
check('streams', {os.readlink(f'/proc/{pid}/fd/{n}') for n in range(3)}, {'/dev/null'})
os.kill(pid, signal.SIGTERM)
check('daemon', os.waitpid(pid, 0)[1], 0)
check('left', left(), [])
# One that cannot serve.
for argv in (['missing'], ['--pid-file', 'no/pid', 'disk.qcow2']):
    proc = subprocess.run([IMG, 'serve', '--fork', '-k', 's', *argv], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    check(argv, (proc.returncode, 'No such file or directory' in proc.stderr), (1, True))
    check('left', left(), [])

# The pid file of another server that runs is not taken from it, whatever else has the name stays, and one
# that was left behind is replaced.
with Server('-k', 's', '--pid-file', 'pid', 'disk.qcow2') as server:
    out(IMG, 'create', '-q', '-f', 'raw', 'other', '1M')
    for path, why in (('pid', 'the pid file of another process'), ('other', 'not a pid file'),
                      ('s', 'not a pid file')):
        proc = subprocess.run([IMG, 'serve', '--pid-file', path, '-k', 't', '-f', 'raw', '--run', 'echo runs',
                               'other'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        check(path, (proc.returncode, proc.stdout, why in proc.stderr), (1, '', True))
    check('left', left(), ['other', 'pid', 's'])
    check('size', os.stat('other').st_size, 1 << 20)
    check('pid file', open('pid', encoding='ascii').read(), f'{server.proc.pid}\n')
os.unlink('other')
with open('pid', 'w', encoding='ascii') as f:
    f.write('1\n')
with Server('-k', 's', '--pid-file', 'pid', 'disk.qcow2') as server:
    check('pid file', open('pid', encoding='ascii').read(), f'{server.proc.pid}\n')
check('left', left(), [])

# Ports are told as they are.
with Server('-b', '127.0.0.1', '-p', '0', '--once', 'disk.qcow2') as server:
    port = int(server.uri.split(':')[2].rstrip('/'))
    with socket.create_connection(('127.0.0.1', port)) as s:
        check('greeting', s.recv(18), GREETING)
        # who only looks is no client
    with socket.create_connection(('127.0.0.1', port)) as s:
        check('greeting', s.recv(18), GREETING)
        s.sendall(b'\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0')  # the default export
        s.recv(10, socket.MSG_WAITALL)
    check('after the last client', server.wait(), (0, ''))
check('left', left(), [])
