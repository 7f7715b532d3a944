# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports behind TLS, of qemu-nbd and nbdkit: certificates and pre-shared keys, by URI and by the peer's
objects; whoever the keys do not fit is not read from."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from certificates import Authority, psk
from interop import MiB, Mistake, Model, find, img, same_files
from nbd import nbdkit, need, qemu_nbd


def refused(says, *argv):
    result = img(*argv, code=1)
    if says not in result.err.decode('utf-8', 'replace'):
        raise Mistake(f'not {says!r}\n{result.shown()}')


def fetch(*source):
    img('convert', '--force', '-O', 'raw', *source, 'copy.raw')
    same_files('served.raw', 'copy.raw')


def described(server, dir_, kind='x509', more=''):
    return ('--object', f'tls-creds-{kind},id=keys,dir={dir_},endpoint=client{more}', '--image-opts',
            f'driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={server.path},file.tls-creds=keys')


def certificates(server):
    uri = server.uri.replace('nbd+', 'nbds+')
    fetch('-f', 'raw', f'{uri}&tls-certificates=pki')
    fetch(*described(server, 'pki'))
    refused('TLS', 'info', server.uri)
    refused('nbds+unix', 'info', f'{uri}&tls-certificates=other')
    refused('nbds+unix', 'info', f'{uri}&tls-certificates=nowhere')
    refused('nbds+unix', 'info', *described(server, 'other'))


def verified():
    """The server asks for nothing, but we do: its authority has to be the one that was named."""
    os.mkdir('empty')
    result = img('serve', '-r', '-f', 'raw', '--tls-dir', 'pki', '-b', '127.0.0.1', '-p', '0', '--run', '''
        for dir in pki other nowhere empty; do
            "$IMG" info -f raw "$uri?tls-certificates=$dir" >/dev/null && echo "$dir"
        done
        "$IMG" info -f raw "$uri" >/dev/null && echo none
        any=driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=$port,file.tls-creds=a
        "$IMG" info --object tls-creds-x509,id=a,dir=other,verify-peer=off --image-opts "$any" >/dev/null &&
            echo unverified
        true''', 'served.raw')
    if result.out != b'pki\nunverified\n':
        raise Mistake(f'trusted: {result.out}\n{result.shown()}')


def keys(server):
    fetch('-f', 'raw', server.uri.replace('nbd+unix://', 'nbds+unix://alice@') + '&tls-psk-file=psk/keys.psk')
    fetch(*described(server, 'psk', 'psk', ',username=alice'))
    refused('nbds+unix', 'info', *described(server, 'psk', 'psk', ',username=mallory'))
    refused('nbds+unix', 'info', *described(server, 'wrong', 'psk', ',username=alice'))


def objects():
    """What is wrong on the command line is said before anybody connects."""
    for says, argv in (
            ("No TLS credentials with id 'b'", ('--image-opts', 'driver=nbd,path=s,tls-creds=b')),
            ('endpoint=client', ('--object', 'tls-creds-x509,id=a,dir=pki,endpoint=server', 'x')),
            ("'dir'", ('--object', 'tls-creds-psk,id=a', 'x')),
            ('duplicate', ('--object', 'tls-creds-psk,id=a,dir=d', '--object', 'tls-creds-psk,id=a,dir=d', 'x')),
            ("the parameter 'tls-psk-file=x' does not belong there", ('nbd://h?tls-psk-file=x',)),
            ('tls-hostname', ('--image-opts', 'driver=nbd,host=h,tls-hostname=h'))):
        refused(says, 'info', *argv)


need('qemu-nbd', 'nbdkit')
find('openssl')
Model('served.raw', 2 * MiB).write(MiB - 5, b'behind a lock')
for name in ('pki', 'other'):
    authority = Authority(f'ca-{name}')
    authority.server(name)
    authority.client(name, 'client')
for name in ('psk', 'wrong'):
    os.mkdir(name)
    psk(f'{name}/keys.psk', {'alice': os.urandom(32), 'mallory': os.urandom(16)} if name == 'wrong'
        else {'alice': os.urandom(32)})
objects()
with qemu_nbd('served.raw', 'raw', '-r', '--object', 'tls-creds-x509,id=t,dir=pki,endpoint=server,verify-peer=on',
              '--tls-creds', 't') as peer:
    certificates(peer)
with nbdkit('-r', '--tls=require', '--tls-certificates=pki', '--tls-verify-peer', 'file', 'served.raw') as peer:
    certificates(peer)
verified()
with nbdkit('-r', '--tls=require', '--tls-psk=psk/keys.psk', 'file', 'served.raw') as peer:
    keys(peer)
