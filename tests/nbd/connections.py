# SPDX-License-Identifier: GPL-2.0-or-later
"""How clients reach the NBD server and how connections end: TCP, standard input and output, sockets that
somebody else opened; silent clients, too many clients, the last client, a server that is stopped."""
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from hostile import run_cases
from nbd_client import Handshake
from nbd_server import COMMANDS, MiB, Server, held, pattern, raw_disk, require, same

PATH = raw_disk('x.raw', MiB, (0, MiB))
PERSISTENT = ('-t', '-e', '0')


def good(h):
    t = h.structured_reply().go()
    require(t.read(0, MiB) == pattern(0, MiB), 'wrong bytes')
    t.write(4096, pattern(4096, 100), nbd.FUA)
    t.disconnect()


def activated(listener, *options):
    """A server that is given its listening socket by who starts it, as systemd does."""
    argv = [*COMMANDS['img'], *options, '-f', 'raw', PATH]
    script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    return subprocess.Popen(['sh', '-c', script, 'sh', *argv], pass_fds=[listener.fileno()],
                            stdin=subprocess.DEVNULL)


def ends(proc, code=0):
    try:
        same(proc.wait(nbd.PATIENCE), code, 'exit code')
    finally:
        proc.kill()


def tcp():
    for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
        listener = socket.socket(family)
        try:
            listener.bind((host, 0))
        except OSError:
            require(family == socket.AF_INET6, 'no IPv4')
            continue
        listener.listen()
        proc = activated(listener, *PERSISTENT)
        port = listener.getsockname()[1]
        for _ in range(5):
            good(Handshake(socket.create_connection((host, port))))
        listener.close()
        proc.send_signal(signal.SIGTERM)
        ends(proc)


def a_port_of_its_own():
    """The kernel chooses it, the server tells."""
    argv = [*COMMANDS['img'], '-b', '127.0.0.1', '-p', '0', '-t', '--print-uri', '-f', 'raw', PATH]
    proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    host, port = proc.stdout.readline().strip().removeprefix('nbd://').strip('/').rsplit(':', 1)
    same(host, '127.0.0.1')
    good(Handshake(socket.create_connection((host, int(port)))))
    proc.send_signal(signal.SIGTERM)
    ends(proc)


def standard_streams():
    """One client, over a socket pair."""
    ours, theirs = nbd.pair()
    proc = subprocess.Popen([*COMMANDS['img'], '--stdio', '-f', 'raw', PATH], stdin=theirs, stdout=theirs)
    theirs.close()
    good(Handshake(ours))
    ends(proc)


def the_last_client_ends_it():
    server = Server('-f', 'raw', PATH, options=('--once',))
    a = server.go()
    a.write(0, pattern(0, 512))
    a.disconnect()
    server.wait()


def more_clients_than_allowed_wait():
    with Server('-f', 'raw', PATH, options=('-t', '-e', '2')) as server:
        first, second = server.go(), server.go()
        third = server.connect()  # the kernel takes it, the server not yet
        first.read(0, 512)
        first.disconnect()
        good(Handshake(third))
        second.disconnect()


def in_time(function):
    """On a machine that has other things to do, a client may be late."""
    while True:
        try:
            return function()
        except nbd.Closed:
            continue


def silent_clients_are_dropped():
    """In any state of the handshake; those that are through it may be silent."""
    with Server('-f', 'raw', PATH, '--handshake-timeout', '1') as server:
        through, silent = in_time(server.go), nbd.Wire(server.connect())
        begun, half = in_time(server.handshake), in_time(server.handshake)
        half.wire.send(nbd.option_bytes(nbd.INFO, b'', 60000)[:-1])
        silent.receive(18)
        for wire in (silent, begun.wire, half.wire):
            wire.expect_end()
        through.read(0, 512)
        through.disconnect()


def handshakes_end_whatever_is_asked():
    """A client does not stay in it by asking on and on."""
    with Server('-f', 'raw', PATH) as server:
        h = server.handshake()
        try:
            for _ in range(100000):
                h.list()
                require(server.proc.poll() is None, 'the server ended')
        except nbd.Closed:
            return
        require(False, 'the handshake goes on')


def stopping_answers_what_it_took():
    for number in (signal.SIGTERM, signal.SIGINT):
        with Server('-f', 'raw', PATH) as server:
            t = server.go()
            asked = [t.submit(nbd.WRITE, n * 4096, 4096, 0, bytes([n]) * 4096) for n in range(100)]
            t.succeed(asked[0])
            os.kill(server.proc.pid, number)
            try:
                t.wait_all()
            except nbd.Closed:
                pass
            server.wait()
            for n, r in enumerate(asked):
                if r.done and not r.error:
                    require(held(PATH, n * 4096, 4096) == bytes([n]) * 4096, f'write {n} is lost')
            raw_disk(PATH, MiB, (0, MiB))


def stopping_does_not_wait_for_the_silent():
    with Server('-f', 'raw', PATH) as server:
        idle, begun, silent = server.go(), server.handshake(), server.connect()
        server.stop()
        idle.wire.expect_end()
        begun.wire.expect_end()
        silent.close()


run_cases([tcp, a_port_of_its_own, standard_streams, the_last_client_ends_it, more_clients_than_allowed_wait,
           silent_clients_are_dropped, handshakes_end_whatever_is_asked, stopping_answers_what_it_took,
           stopping_does_not_wait_for_the_silent])
