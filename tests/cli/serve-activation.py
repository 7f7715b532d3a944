# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets and streams that img serve gets from whoever starts it: systemd's, a descriptor's, inetd's."""
import os
import socket
import subprocess

IMG = os.environ['IMG']
GREETING = b'NBDMAGICIHAVEOPT\0\3'


def check(what, got, expected):
    if got != expected:
        print(f'{what}: {got!r}, expected {expected!r}')


def listening(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen()
    return s


def start(shell, *fds, **kw):
    """Runs a shell command line in which 3, 4 … are these sockets."""
    def move():
        for i, s in enumerate(fds):
            os.dup2(s.fileno() + 100, 3 + i)

    for s in fds:
        os.dup2(s.fileno(), s.fileno() + 100, inheritable=False)
    proc = subprocess.Popen(['sh', '-c', shell], stderr=subprocess.PIPE, text=True, close_fds=False,
                            preexec_fn=move, **kw)  # pylint: disable=subprocess-popen-preexec-fn
    for s in fds:
        os.close(s.fileno() + 100)
    return proc


def greeting(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        return s.recv(18)


def ends(proc, code, says=''):
    err = proc.communicate()[1]
    if proc.returncode != code or says not in err or (err and not says):
        print(f'exit {proc.returncode}, expected {code}: {err!r}')


with open('disk', 'wb') as f:
    f.truncate(1 << 20)
one, two = listening('one'), listening('two')

activation = 'LISTEN_FDS={0} LISTEN_PID=$$ LISTEN_FDNAMES={1}; export LISTEN_FDS LISTEN_PID LISTEN_FDNAMES;'
server = start(activation.format(2, 'a:b') + 'exec "$IMG" serve -f raw disk', one, two)
check('first', greeting('one'), GREETING)
check('second', greeting('two'), GREETING)
server.terminate()
ends(server, 0)
check('the sockets are not ours to remove', sorted(os.listdir('.')), ['disk', 'one', 'two'])

server = start('exec "$IMG" serve -f raw --fd 3 disk', one)
check('--fd', greeting('one'), GREETING)
server.terminate()
ends(server, 0)
# Variables that are meant for another process are not for us; -k is.
server = start('LISTEN_FDS=1 LISTEN_PID=1; export LISTEN_FDS LISTEN_PID; '
               'exec "$IMG" serve -f raw --print-uri -k three disk', one, stdout=subprocess.PIPE)
check('not for us', server.stdout.readline(), f'nbd+unix:///?socket={os.getcwd()}/three\n')
server.terminate()
ends(server, 0)
ends(start('exec "$IMG" serve -f raw --fd 3 disk', open('disk', 'rb')), 1, '--fd 3: ')
ends(start(activation.format(1, 'a') + 'exec "$IMG" serve -f raw --stdio disk', one), 1, 'LISTEN_FDS')

# One client on standard input and output: pipes; a socket, on which nothing else is said.
proc = subprocess.Popen([IMG, 'serve', '-f', 'raw', '--stdio', 'disk'], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE)
check('pipes', proc.stdout.read(18), GREETING)
proc.stdin.close()
check('end', (proc.stdout.read(), proc.wait()), (b'', 0))
ours, theirs = socket.socketpair()
proc = subprocess.Popen([IMG, 'serve', '-f', 'raw', '-v', '-v', '--stdio', 'disk'], stdin=theirs,
                        stdout=theirs, stderr=theirs)
theirs.close()
check('socket', ours.recv(18, socket.MSG_WAITALL), GREETING)
ours.shutdown(socket.SHUT_WR)
check('end', (ours.recv(100), proc.wait()), (b'', 0))
