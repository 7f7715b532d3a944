# SPDX-License-Identifier: GPL-2.0-or-later
"""--list: what other servers export, told by us called qemu-nbd and by qemu-nbd itself in the same words; over
TLS; of servers that send too much, nonsense, or nothing."""
import json
import os
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from certificates import Authority, psk
from fakenbd import ACK, INFO, META, FakeServer, info_export, option_reply
from interop import Mistake, find
from nbd import nbdkit, need, qemu_nbd
from serving import IMG, Server, out

SERVER, ERR_POLICY = 2, (1 << 31) + 2
PEER = find('qemu-nbd')
need('nbdkit')
os.symlink(IMG, 'qemu-nbd')


def told(prog, *argv, code=0):
    argv = [os.path.abspath(a) if b == '-k' else a for a, b in zip(argv, ('', *argv))]
    proc = subprocess.run([prog, '-L', *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if proc.returncode != code:
        raise Mistake(f'{prog} -L {argv}: exit {proc.returncode}: {proc.stdout}{proc.stderr}')
    return proc.stdout if code == 0 else proc.stderr


def ours(*argv, code=0):
    proc = subprocess.run([IMG, 'serve', '--list', *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if proc.returncode != code:
        raise Mistake(f'--list {argv}: exit {proc.returncode}: {proc.stdout}{proc.stderr}')
    return proc.stdout if code == 0 else proc.stderr


def require(good, what):
    if not good:
        raise Mistake(what)


def says(text, *argv):
    got = ours(*argv, code=1)
    require(text in got, f'--list {argv}: {got}')


def alike(*argv):
    theirs, mine = told(PEER, *argv), told('./qemu-nbd', *argv)
    require(mine == theirs, f'{argv}: ours\n{mine}theirs\n{theirs}')


# ---- honest servers ----

def peers():
    with qemu_nbd('disk.qcow2', 'qcow2', '-r', '-x', 'name', '-D', 'words', '-B', 'dirty', '-A') as server:
        alike('-k', server.path)
    with nbdkit('-r', 'memory', '1M') as server:
        alike('-k', server.path)
        alike('-k', server.path, '-e', '3', '-t', '-r')  # which the peer does not mind
    with nbdkit('-o', 'memory', '1M') as server:  # without options
        alike('-k', server.path)
    with nbdkit('--filter=exportname', 'memory', '1M', 'exportname=a', 'exportname=b', 'exportname-list=explicit',
                'exportdesc=fixed:of both') as server:
        alike('-k', server.path)


def our_own():
    both = ('--export', 'name=a,file=disk.qcow2,bitmap=dirty,allocation-depth=on,description=of a',
            '--export', 'name=b,file=disk.raw,format=raw,read-only=on')
    with Server('-k', 'sock', '-b', '127.0.0.1', '-p', '0', *both) as server:
        alike('-k', 'sock')
        port = next(u for u in server.exports['a']['uris'] if 'socket' not in u).split(':')[-1].split('/')[0]
        require(ours('-b', '127.0.0.1', '-p', port) == ours('-k', 'sock'), 'TCP')
        a, b = json.loads(ours('-k', 'sock', '--output=json'))['exports']
        require(a['name'] == 'a' and a['description'] == 'of a' and a['size'] == 3 << 20 and
                'qemu:dirty-bitmap:dirty' in a['contexts'] and a['block-maximum'] == 32 << 20, str(a))
        require(b['flags'][0] == 'readonly' and 'description' not in b and
                b['contexts'] == ['base:allocation'], str(b))
    with Server('-k', 'sock', '--no-list', 'disk.qcow2'):
        says('does not tell', '-k', 'sock')


def keys():
    """X.509 and pre-shared keys; a server's certificate of another CA, and of another name."""
    def x509(d):
        return '--object', f'tls-creds-x509,id=t,endpoint=client,dir={d}', '--tls-creds', 't'
    with Server('-k', 'sock', '-b', 'localhost', '-p', '0', '--tls-dir', 'pki', '--tls-verify', 'disk.qcow2') as s:
        port = next(u for u in s.ready['exports'][0]['uris'] if 'socket' not in u).split(':')[-1].split('/')[0]
        plain = ours('-k', 'sock', '--tls-dir', 'pki')
        require('base:allocation' in plain, plain)
        tcp = '-b', 'localhost', '-p', port
        require(ours(*tcp, *x509('pki'), '--tls-hostname', 'localhost') == plain, 'over TCP')
        says('TLS', '-k', 'sock')
        says('nbds://localhost', *tcp, '--tls-dir', 'other')
        says("'elsewhere' cannot", *tcp, '--tls-dir', 'pki', '--tls-hostname', 'elsewhere')
        alike(*tcp, *x509('pki'), '--tls-hostname', 'localhost')
    with Server('-k', 'sock', '--tls-psk', 'psk/keys.psk', 'disk.qcow2'):
        creds = 'tls-creds-psk,id=p,endpoint=client,dir=psk'
        require(ours('-k', 'sock', '--object', creds + ',username=alice', '--tls-creds', 'p') == plain, 'keys')
        says('nbds+unix', '-k', 'sock', '--object', creds + ',username=bob', '--tls-creds', 'p')
        me = out('id', '-un').strip()
        require(ours('-k', 'sock', '--tls-psk', 'psk/keys.psk') == plain, f'the key of {me}')


# ---- others ----

class Lister(FakeServer):
    """names: what is sent as answers to LIST, before an ACK."""

    def __init__(self, names, **kw):
        super().__init__(**kw)
        self.names = names

    def answer(self, conn, option):
        if option == 3:
            for data in self.names():
                self.send(conn, 'export', option_reply(3, SERVER, data))
            self.send(conn, 'list', option_reply(3, ACK))
        elif option == 6:
            self.send(conn, 'info', option_reply(6, INFO, info_export(self.size, self.flags)) + option_reply(6, ACK))
        elif option == 9:
            for context in ('base:allocation', 'x:\33[2J'):
                self.send(conn, 'context', option_reply(9, META, struct.pack('>I', 0) + context.encode()))
            self.send(conn, 'contexts', option_reply(9, ACK))
        else:
            super().answer(conn, option)


def entry(name, description=b''):
    return struct.pack('>I', len(name)) + name + description


def one():
    yield entry(b'a\33]0;x\7', b'b\n\xff')


def endless(description):
    def names():
        while True:
            yield entry(b'x', description)
    return names


def hostile():
    at = '-k', 'fake.sock'
    with Lister(one):
        text = ours(*at)
        require('a\\x1b]0;x\\x07' in text and 'b\\x0a\\xff' in text and '   x:\\x1b[2J\n' in text and
                '\33' not in text, repr(text))
    for names in endless(b''), endless(b'd' * 4000):
        with Lister(names):
            says('lists more than', *at)
    with Lister(one, tamper=lambda name, data: option_reply(6, ERR_POLICY) if name == 'info' else data):
        require('size' not in ours(*at), 'of this export it tells nothing')
    for name in 'greeting', 'export', 'list', 'info', 'context', 'contexts':
        with Lister(one, tamper=lambda n, data, cut=name: None if n == cut else data):
            says('nbd+unix://?socket=fake.sock: ', *at)
        with Lister(one, tamper=lambda n, data, cut=name: b'?' * len(data) if n == cut else data):
            says('nbd+unix://?socket=fake.sock: ', *at)
        with Lister(one, tamper=lambda n, data, cut=name: 'silence' if n == cut else data) as server:
            with subprocess.Popen([IMG, 'serve', '--list', *at], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE) as proc:
                server.arrived.wait()
                proc.send_signal(signal.SIGINT)
                proc.communicate()
                require(proc.returncode == -signal.SIGINT, f'silent at {name}: {proc.returncode}')


def refused():
    """What belongs to a server."""
    for text, argv in (('file name', ['disk.raw']), ('per-device settings', ['-x', 'name']),
                       ('per-device settings', ['-v']), ('forking', ['--fork']),
                       ('one server', ['-k', 'a', '-k', 'b']), ('one server', ['-k', 'a', '-p', '1']),
                       ('two ways', ['--tls-dir', '.', '--tls-psk', 'x']),
                       ('instead of', ['--tls-dir', '.', '--tls-creds', 'x']),
                       ("No TLS credentials with id 'x'", ['--tls-creds', 'x']),
                       ('endpoint=client', ['--object', 'tls-creds-x509,id=x,endpoint=server,dir=.', '--tls-creds',
                                            'x']),
                       ('without --tls-creds', ['--tls-hostname', 'x'])):
        says(text, *argv)
    says('No such file', '-k', 'nobody')


out('qemu-img', 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '3M')
out('qemu-img', 'bitmap', '--add', 'disk.qcow2', 'dirty')
with open('disk.raw', 'wb') as disk:
    disk.truncate(1 << 20)
for ca in ('pki', 'other'):
    authority = Authority(f'ca-{ca}')
    authority.server(ca)
    authority.client(ca, 'client')
os.mkdir('psk')
psk('psk/keys.psk', {'alice': os.urandom(32), out('id', '-un').strip(): os.urandom(32)})
peers()
our_own()
keys()
hostile()
refused()
