# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process and its QMP monitor (QEMU's docs/interop/qmp-spec).

Monitor and serial line are socket pairs that the process inherits, so there are no paths and no
waiting for a listener. Nothing sleeps: whoever waits, waits for an event or a line. SAFETY only
makes an error out of what would be waited for in vain.
"""
import json
import signal
import socket
import subprocess

from interop import Mistake, find

SAFETY = 100  # seconds


class Refused(Mistake):
    """An error that QEMU answered."""


class Lines:
    """A socket, line by line."""

    def __init__(self, sock, name):
        self.sock, self.name, self.data = sock, name, b''
        sock.settimeout(SAFETY)

    def send(self, text):
        self.sock.sendall(text.encode())

    def read(self):
        while b'\n' not in self.data:
            try:
                more = self.sock.recv(65536)
            except TimeoutError as e:
                raise Mistake(f'{self.name}: nothing for {SAFETY} s') from e
            if not more:
                raise Mistake(f'{self.name}: QEMU ended')
            self.data += more
        line, _, self.data = self.data.partition(b'\n')
        return line.decode('utf-8', 'replace').strip()


class Qmp:
    """The monitor: commands, and the events that came meanwhile."""

    def __init__(self, sock):
        self.lines, self.events = Lines(sock, 'monitor'), []
        json.loads(self.lines.read())  # the greeting
        self.cmd('qmp_capabilities')

    def _message(self):
        return json.loads(self.lines.read())

    def cmd(self, command, **arguments):
        """Runs a command; `_` in names of arguments stands for `-`. Returns its value."""
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        self.lines.send(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        while True:
            m = self._message()
            if 'event' in m:
                self.events.append(m)
            elif 'error' in m:
                raise Refused(f"{command}: {m['error']['desc']}")
            else:
                return m['return']

    def event(self, *names, **values):
        """Waits for the first event of one of these names whose data has these values, and takes
        it out of the list."""
        def wanted(m):
            data = m.get('data', {})
            return m['event'] in names and all(data.get(k) == v for k, v in values.items())

        at = 0
        while True:
            while at < len(self.events):
                if wanted(self.events[at]):
                    return self.events.pop(at)
                at += 1
            m = self._message()
            if 'event' in m:
                self.events.append(m)


class Qemu:
    """A machine without a guest: what it has comes from `argv` and by QMP."""

    def __init__(self, *argv, log='qemu.log'):
        monitor, its_monitor = socket.socketpair()
        serial, its_serial = socket.socketpair()
        fds = (its_monitor.fileno(), its_serial.fileno())
        command = [find('qemu-system-x86_64'), '-M', 'pc,accel=tcg', '-m', '16', '-nodefaults',
                   '-no-user-config', '-display', 'none',
                   '-chardev', f'socket,id=monitor,fd={fds[0]}', '-mon', 'monitor,mode=control',
                   '-chardev', f'socket,id=serial,fd={fds[1]}', '-serial', 'chardev:serial', *argv]
        self.log = log
        with open(log, 'ab') as out:
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                         pass_fds=fds)
        its_monitor.close()
        its_serial.close()
        self.serial = Lines(serial, 'serial line')
        try:
            self.qmp = Qmp(monitor)
        except Mistake as e:
            raise Mistake(f'{e}\n{self.said()}') from e
        self.cmd, self.event = self.qmp.cmd, self.qmp.event

    def said(self):
        """What it wrote to its standard error output."""
        with open(self.log, encoding='utf-8', errors='replace') as f:
            return f.read()

    def quit(self):
        """Ends it in an orderly way: images are closed."""
        self.cmd('quit')
        code = self.proc.wait(SAFETY)
        if code:
            raise Mistake(f'QEMU exits with {code}\n{self.said()}')

    def kill(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGKILL)
            self.proc.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
