# SPDX-License-Identifier: GPL-2.0-or-later
"""NBD servers under test: started, reached, looked at from outside, stopped.

NBD_SERVER=qemu-nbd in the environment of a test that is run by hand puts the peer in the place of
`img serve`: what both fail is more likely wrong in the test."""
import array
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from hostile import Mistake, run_cases
from nbd_client import FIXED, NO_ZEROES, PATIENCE, Closed, Failure, Handshake, Refused

KIND = os.environ.get('NBD_SERVER', 'img')
COMMANDS = {'img': [os.environ.get('IMG', 'img'), 'serve'], 'qemu-nbd': ['qemu-nbd']}
RELEASE = os.environ.get('VARIANT', 'release') == 'release'
MODES = ('simple', 'structured', 'extended') if KIND == 'img' else ('simple', 'structured')
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
HERE = os.getcwd()  # cases change directories


def require(good, what):
    if not good:
        raise Mistake(what)


def same(got, want, what=''):
    if got != want:
        raise Mistake(f'{what}: {got!r:.2000} where {want!r:.2000} is right')


def refused(kind, function, *args):
    """The option must end with this error (or one of them)."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    try:
        result = function(*args)
    except Refused as e:
        require(e.kind in kinds, f'{e}, where {[k & 0xff for k in kinds]} is right')
        return
    raise Mistake(f'{args!r:.200} is accepted: {result}')


def fails(error, function, *args):
    """The request must end with this error (or one of them)."""
    errors = error if isinstance(error, tuple) else (error,)
    try:
        result = function(*args)
    except Failure as e:
        require(e.error in errors, f'{e}, where error {errors} is right')
        return
    raise Mistake(f'{args!r:.200} succeeds: {result!r:.200}')


def ended(function, *args):
    """The server must end the connection."""
    try:
        result = function(*args)
    except Closed:
        return
    raise Mistake(f'the connection goes on: {result!r:.200}')


def need(*programs):
    """Skips the test where one of them is missing."""
    for program in programs:
        if not shutil.which(program):
            print(f'no {program}')
            sys.exit(77)


class Server:
    """A server that goes on until it is stopped."""
    count = 0

    def __init__(self, *argv, options=('-t', '-e', '0'), listen=None, env=None, **popen):
        Server.count += 1
        self.path = f'{HERE}/s{Server.count}'
        listen = ['-k', self.path] if listen is None else listen
        self.argv = [*COMMANDS[KIND], *listen, *options, *(str(a) for a in argv)]
        self.log = open(f'{self.path}.log', 'w+b')
        self.proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                     env=dict(os.environ, **(env or {})), **popen)
        self.stopped = False
        self.idle_files = None  # descriptors when nobody is connected

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.stopped:
            return
        if kind is None or kind is SystemExit:
            self.stop()
        else:
            self.kill()
            print(self.said())

    def said(self):
        self.log.seek(0)
        return self.log.read().decode('utf-8', 'replace')

    # ---- clients ----

    def connect(self):
        end = time.monotonic() + PATIENCE
        while True:
            require(self.proc.poll() is None, f'{self.argv}: exit {self.proc.returncode}: {self.said()}')
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            try:
                sock.connect(self.path)
                return sock
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                require(time.monotonic() < end, f'{self.argv} does not listen')
                time.sleep(0.003)

    def ready(self):
        """When it is; how many descriptors it has then."""
        self.handshake().abort()
        self.idle_files = self.files()
        return self

    def handshake(self, flags=FIXED | NO_ZEROES):
        return Handshake(self.connect(), flags)

    def go(self, mode='structured', name='', contexts=()):
        h = self.handshake().mode(mode)
        if contexts:
            h.set_contexts(name, contexts)
        return h.go(name)

    def uri(self, name=''):
        return f'nbd+unix:///{name}?socket={self.path}'

    # ---- from outside ----

    def alive(self):
        require(self.proc.poll() is None, f'the server ended: exit {self.proc.returncode}: {self.said()}')

    def processes(self):
        """The one that was started, and the one that serves, if it is another."""
        pid = self.proc.pid
        with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as f:
            return [pid, *map(int, f.read().split())]

    def status(self, field):
        """A number of /proc/PID/status, of all processes together."""
        total = 0
        for pid in self.processes():
            with open(f'/proc/{pid}/status', encoding='ascii') as f:
                total += int(re.search(rf'^{field}:\s+(\d+)', f.read(), re.M)[1])
        return total

    def peak(self):
        """The largest resident size, in bytes."""
        return self.status('VmHWM') * KiB

    def files(self):
        return len(os.listdir(f'/proc/{self.processes()[-1]}/fd'))

    def wait_for_files(self, most):
        """Descriptors of clients that left go soon."""
        end = time.monotonic() + PATIENCE
        while self.files() > most:
            require(time.monotonic() < end, f'{self.files()} descriptors, {most} before')
            time.sleep(0.005)

    # ---- its end ----

    def stop(self, number=signal.SIGTERM, code=0):
        """Asks it to stop, which must be a success."""
        self.alive()
        self.proc.send_signal(number)
        self.wait(code)

    def wait(self, code=0):
        self.stopped = True
        try:
            got = self.proc.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Mistake(f'the server does not stop: {self.said()}') from None
        require(got == code, f'the server ends with exit {got}: {self.said()}')

    def kill(self):
        """The process that serves ends at once; the other one has nothing to wait for then."""
        self.stopped = True
        if self.proc.poll() is None:
            for pid in reversed(self.processes()):
                os.kill(pid, signal.SIGKILL)
        self.proc.wait()


def cases_of(names):
    """The cases of a file: functions that take a server, `s`, and maybe a mode, for each of which
    they are called."""
    found = []
    for name, f in names.items():
        arguments = f.__code__.co_varnames[:f.__code__.co_argcount] if hasattr(f, '__code__') else ()
        if arguments == ('s', 'mode'):
            found += [(f'{name}_{m}', functools.partial(f, mode=m)) for m in MODES]
        elif arguments == ('s',) and (KIND == 'img' or 'extended' not in name):
            found.append((name, f))
    return found


def serve_cases(server, names):
    """Calls each case with the server, in a directory of its own; the server must outlive them."""
    def bound(name, case):
        def call():
            case(server)
            server.alive()
        call.__name__ = name
        return call
    with server:
        server.ready()
        run_cases([bound(*c) for c in cases_of(names)])


# ---- disks ----

def pattern(offset, length):
    """Bytes that tell where they belong; none of their 8-byte words is zero."""
    first, last = offset // 8, (offset + length + 7) // 8
    return array.array('Q', range(first + 1, last + 1)).tobytes()[offset % 8:][:length]


def raw_disk(path, size, *parts):
    """A sparse raw file with the pattern in parts, (offset, length) each; its path, absolute."""
    with open(path, 'wb') as f:
        f.truncate(size)
        for offset, length in parts:
            f.seek(offset)
            f.write(pattern(offset, length))
    return os.path.abspath(path)


def held(path, offset, length):
    """What a raw file holds."""
    with open(path, 'rb') as f:
        f.seek(offset)
        return f.read(length)


def tool(*argv, codes=(0,)):
    """Runs another program; what it prints."""
    argv = [str(a) for a in argv]
    proc = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=PATIENCE, check=False, text=True)
    require(proc.returncode in codes, f'{argv}: exit {proc.returncode}: {proc.stdout}')
    return proc.stdout
