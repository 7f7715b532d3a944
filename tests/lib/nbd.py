# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers of the peers, for tests: `with Server('qemu-nbd', …) as name:`.

A server listens on a socket in the current directory, and is killed at the end. That it listens is
known when its pid file is there.
"""
import os
import shutil
import subprocess
import time

from interop import Mistake, skip


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            skip(f'no {program}')


class Server:
    """argv: the program and its arguments, in which SOCKET stands for the socket's absolute path and
    PID for that of the pid file."""
    count = 0

    def __init__(self, *argv, export=''):
        Server.count += 1
        self.path = f'nbd{Server.count}.sock'
        path = os.path.abspath(self.path)
        self.argv = [str(a).replace('SOCKET', path).replace('PID', path + '.pid') for a in argv]
        self.uri = f'nbd+unix:///{export}?socket={self.path}'
        self.proc = None

    def __enter__(self):
        self.proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL)
        while not os.path.exists(self.path + '.pid'):
            if self.proc.poll() is not None:
                raise Mistake(f'{self.argv}: ended with {self.proc.returncode}')
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.wait()


def qemu_nbd(path, fmt, *options, **how):
    """For any number of clients, that write as well unless -r is among the options."""
    return Server('qemu-nbd', '-k', 'SOCKET', '--pid-file=PID', '-t', '-e', '8', '-f', fmt, *options, path, **how)


def nbdkit(*options, **how):
    """options: filters, plugin, its parameters."""
    return Server('nbdkit', '-f', '-U', 'SOCKET', '-P', 'PID', *options, **how)
