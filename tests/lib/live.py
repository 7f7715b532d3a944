# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of running guests on our NBD server: what the tests of live migration share."""
import os
import signal
import socket

from certificates import Authority, psk
from interop import Mistake, img, peer
from serving import Server

RECONNECT = 90  # seconds for which QEMU waits for its server: long, so that load does not matter
SLOW = 1  # byte per second: a job does one request, and then waits until it gets `full_speed`


class Place:
    """Where a server listens, and with which keys: the same for every server that is started
    there, and for QEMU. `tls`: None, 'x509' (also clients have certificates) or 'psk'."""
    count = 0

    def __init__(self, tcp=False, tls=None):
        Place.count += 1
        self.tls, self.tcp = tls, tcp
        self.path = os.path.abspath(f'place{Place.count}')
        if tcp:
            # Nobody else uses this address, so the port that the kernel chooses stays ours while
            # no server listens.
            pid = os.getpid()
            self.host = f'127.{64 + pid // 65536 % 64}.{pid // 256 % 256}.{pid % 256}'
            with socket.socket() as s:
                s.bind((self.host, 0))
                self.port = s.getsockname()[1]
        if tls == 'x509':
            self.authority = Authority(f'{self.path}-ca', addresses=[self.host] if tcp else ())
            self.keys = f'{self.path}-keys'
            self.authority.server(self.keys)
            self.authority.client(self.keys)
        elif tls == 'psk':
            self.keys = f'{self.path}-keys'
            os.mkdir(self.keys)
            psk(f'{self.keys}/keys.psk', {'mirror': os.urandom(32)})

    def server_options(self):
        where = ['-b', self.host, '-p', str(self.port)] if self.tcp else ['-k', self.path]
        if self.tls:
            verify = ',verify-peer=on' if self.tls == 'x509' else ''
            where += ['--object', f'tls-creds-{self.tls},id=tls,endpoint=server,dir={self.keys}{verify}',
                      '--tls-creds', 'tls']
        return where

    def give_keys(self, guest):
        """QEMU gets what a client of this place needs."""
        if self.tls:
            guest.cmd('object-add', **self.client_object())

    def client_object(self):
        """QEMU's object for a client of this place, as arguments of object-add."""
        user = {'username': 'mirror'} if self.tls == 'psk' else {}
        return {'qom-type': f'tls-creds-{self.tls}', 'id': 'tls', 'endpoint': 'client',
                'dir': self.keys, **user}

    def address(self):
        """As QEMU's SocketAddress."""
        if self.tcp:
            return {'type': 'inet', 'host': self.host, 'port': str(self.port)}
        return {'type': 'unix', 'path': self.path}

    def server_address(self):
        """The same for nbd-server-start."""
        data = self.address()
        return {'type': data.pop('type'), 'data': data}

    def uri(self, export='disk'):
        """For our client, which is libnbd. Not for pre-shared keys."""
        scheme, keys = ('nbds', f'tls-certificates={self.keys}') if self.tls else ('nbd', '')
        if self.tcp:
            return f'{scheme}://{self.host}:{self.port}/{export}?{keys}'.rstrip('?')
        return f'{scheme}+unix:///{export}?socket={self.path}&{keys}'.rstrip('&')

    def blockdev(self, node, tls='tls', **more):
        """Options of a node that is the server's disk."""
        options = {'driver': 'nbd', 'node-name': node, 'server': self.address(), 'export': 'disk',
                   'discard': 'unmap', **more}
        if self.tls and tls:
            options['tls-creds'] = tls
            if not self.tcp:
                options['tls-hostname'] = 'localhost'
        return options


class Export(Server):
    """A server of an image at a place, which listens already."""

    def __init__(self, place, image, fmt, *options):
        super().__init__('-f', fmt, '-x', 'disk', *place.server_options(), *options, image)

    def killed(self, work=lambda: None):
        """It does not answer to `work`, as if its machine hangs, and dies with requests in flight."""
        os.kill(self.server, signal.SIGSTOP)
        work()
        os.kill(self.server, signal.SIGKILL)
        self.wait()

    def ended(self, work=lambda: None):
        """It is asked to end while it has `work`, and succeeds."""
        work()
        code, said = self.stop()
        if code:
            raise Mistake(f'the server ends with exit code {code}: {said}')

    def __exit__(self, kind, *_):
        if kind:
            self.proc.kill()
        elif self.proc.returncode is None:
            self.ended()


# ---- mirroring ----

def start_mirror(guest, place, job='mirror', speed=SLOW, **more):
    """The guest's disk is mirrored to a place; unless told otherwise, the job stays at its beginning
    until it is given `full_speed`."""
    guest.cmd('blockdev-add', **place.blockdev(f'{job}-target', **more.pop('target', {})))
    guest.cmd('blockdev-mirror', **{'job-id': job, 'device': 'disk', 'target': f'{job}-target',
                                    'sync': 'full', 'speed': speed, **more})


def full_speed(guest, job='mirror'):
    guest.cmd('block-job-set-speed', device=job, speed=0)


def is_running(guest, job='mirror'):
    """The job has begun and is not at its end: what happens now happens in the middle of it."""
    for j in guest.cmd('query-jobs'):
        if j['id'] == job and j['status'] == 'running':
            return
    raise Mistake(f'{job} does not run: {guest.cmd("query-jobs")}')


def switch(guest, job='mirror'):
    """Waits until the mirror has caught up, and lets the guest go on with the new disk."""
    guest.event('BLOCK_JOB_READY', device=job)
    guest.grant(40)
    guest.cmd('job-complete', id=job)
    succeeded(guest, job)
    guest.finish()
    used = guest.cmd('query-block')[0]['inserted']['node-name']
    if used != f'{job}-target':
        raise Mistake(f'the guest still uses {used}')


def succeeded(guest, job='mirror'):
    end = guest.event('BLOCK_JOB_COMPLETED', device=job)
    if 'error' in end['data'] or end['data']['offset'] != end['data']['len']:
        raise Mistake(f'{job} failed: {end}')
    gone(guest, job)


def failed(guest, job='mirror'):
    end = guest.event('BLOCK_JOB_COMPLETED', device=job)
    if 'error' not in end['data']:
        raise Mistake(f'{job} succeeds: {end}')
    gone(guest, job)


def gone(guest, job):
    """Nothing is left of the job."""
    guest.event('JOB_STATUS_CHANGE', id=job, status='null')


def holds(disk, image, fmt, killed=False):
    """An image that no one uses any more holds what the guest did, by our judgement and the
    peer's. Whoever was killed while writing it may have left clusters that leak, and no other fault."""
    raw = image
    if fmt != 'raw':
        if killed:
            img('check', '-r', 'leaks', '-f', fmt, image)
        img('check', '-f', fmt, image)
        peer('check', '-f', fmt, image)
        raw = 'held.raw'
        peer('convert', '-f', fmt, '-O', 'raw', image, raw)
    model = disk.write('model.raw', raw)
    img('compare', '-f', 'raw', '-F', fmt, model, image)
    peer('compare', '-f', 'raw', '-F', fmt, model, image)
