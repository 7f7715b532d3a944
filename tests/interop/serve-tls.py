# SPDX-License-Identifier: GPL-2.0-or-later
"""img serve behind TLS, with clients of other makers (GnuTLS) and our own, in both versions, over TCP and Unix
sockets; and whoever has the wrong key, certificate or name stays outside, which the server can explain."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from certificates import Authority, psk
from serving import IMG, Server, out

SIZE = 3 << 20
HERE = os.getcwd()
PAST = ('20200101000000Z', '20200102000000Z')
TLS12 = 'NORMAL:-VERS-TLS1.3'

for program in ('nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'openssl'):
    if not shutil.which(program):
        print(f'no {program}')
        sys.exit(77)


def same(path):
    with open('disk', 'rb') as a, open(path, 'rb') as b:
        if a.read() != b.read():
            print(f'{path} is not the disk')
    os.remove(path)


def qemu(server, creds):
    """What qemu-img and qemu-io call the export: an object, and a description."""
    where = (f'server.type=unix,server.path={HERE}/socket,tls-hostname=localhost' if 'socket' in server.uri else
             f'server.type=inet,server.host=localhost,server.port={server.port}')
    return ['--object', creds + ',endpoint=client,id=keys', '--image-opts',
            f'driver=raw,file.driver=nbd,file.tls-creds=keys,file.{where.replace(",", ",file.")}']


def use(server, uri, creds):
    """Each client gets in, and gets at the bytes."""
    if out('nbdinfo', '--size', uri) != f'{SIZE}\n':
        print(f'nbdinfo {uri}')
    out('nbdcopy', uri, 'copy')
    same('copy')
    out(IMG, 'convert', '-f', 'raw', '-O', 'raw', uri, 'copy')
    same('copy')
    for priority in ('', f',priority={TLS12}'):
        out('qemu-img', 'convert', '-O', 'raw', *qemu(server, creds + priority), 'copy')
        same('copy')
        out('qemu-io', '-c', 'write -P 0x5a 1M 700k', '-c', 'flush', '-c', 'read -P 0x5a 1M 700k',
            *qemu(server, creds + priority))
        out('qemu-io', '-c', 'write -z 1M 1M', '-c', 'flush', *qemu(server, creds + priority))


def serve(options, uri_of, creds):
    for listen in (['-k', f'{HERE}/socket'], ['-b', 'localhost', '-p', '0']):
        with Server('-f', 'raw', *listen, *options, 'disk') as server:
            server.port = None if 'socket' in server.uri else server.uri.split(':')[2].strip('/')
            use(server, uri_of(server.uri), creds)
            code, err = server.stop()
            if code or err:
                print(f'{options}: exit {code}: {err}')


def with_query(uri, query, user=''):
    uri = uri.replace('://', f'://{user}', 1)
    return f'{uri}{"&" if "?" in uri else "?"}{query}'


def outside(options, says, uri_of):
    """The client fails, and the server can tell why."""
    with Server('-f', 'raw', '-k', f'{HERE}/socket', *options, 'disk') as server:
        proc = subprocess.run(['nbdinfo', '--size', uri_of(server.uri)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        code, err = server.stop()
        if proc.returncode == 0 or code or not any(s in err for s in says):
            print(f'{options}: client {proc.returncode} {proc.stderr}, server {code} {err}, wanted {says}')


def certificates(directory):
    return lambda uri: with_query(uri, f'tls-certificates={HERE}/{directory}')


def keys(user, path='psk/keys.psk'):
    return lambda uri: with_query(uri, f'tls-psk-file={HERE}/{path}', user + '@')


with open('disk', 'wb') as f:
    f.write(os.urandom(SIZE))
ca = Authority('ca')
ca.server('pki')
ca.client('pki', 'alice')
for name in ('expired', 'revoked', 'mallory'):
    ca.client(name, name, PAST if name == 'expired' else ())
ca.revoke('revoked/client-cert.pem')
shutil.copytree('pki', 'lists')
ca.revocations('lists/ca-crl.pem')
other = Authority('ca2', 'Another CA')
other.client('other', 'alice')
shutil.copy('pki/ca-cert.pem', 'other')  # it knows the server, but not the other way round
os.mkdir('anybody')
shutil.copy('pki/ca-cert.pem', 'anybody')
os.mkdir('psk')
psk('psk/keys.psk', {'alice': os.urandom(32), 'Zo\u00e9 & co': os.urandom(64)})
psk('wrong.psk', {'alice': os.urandom(32), 'eve': os.urandom(32)})

serve(['--tls-dir', 'pki'], certificates('pki'), 'tls-creds-x509,dir=pki')
serve(['--tls-dir', 'lists', '--tls-verify', '--tls-authz', 'CN=alice,O=*'], certificates('pki'),
      'tls-creds-x509,dir=pki')
serve(['--tls-psk', 'psk/keys.psk'], keys('alice'), 'tls-creds-psk,dir=psk,username=alice')

VERIFY = ['--tls-dir', 'lists', '--tls-verify']
outside(VERIFY, ["the client's certificate: certificate has expired"], certificates('expired'))
outside(VERIFY, ["the client's certificate: certificate revoked"], certificates('revoked'))
# GnuTLS does not show a certificate of an authority that the server did not name.
outside(VERIFY, ['peer did not return a certificate', "the client's certificate: "], certificates('other'))
outside(VERIFY, ['peer did not return a certificate'], certificates('anybody'))
outside([*VERIFY, '--tls-authz', 'CN=a*,*'], ['name is not one of those allowed'], certificates('mallory'))
PSK = ['--tls-psk', 'psk/keys.psk']
outside(PSK, ['(user alice)'], keys('alice', 'wrong.psk'))
outside(PSK, ['there is no user eve'], keys('eve', 'wrong.psk'))
outside(PSK, ['TLS: '], certificates('pki'))
outside(VERIFY, [''], lambda uri: uri.replace('nbds', 'nbd'))
outside([], [''], lambda uri: certificates('pki')(uri.replace('nbd', 'nbds', 1)))
# A name that needs to be quoted.
with Server('-f', 'raw', '-k', f'{HERE}/socket', *PSK, 'disk') as s:
    out('nbdinfo', '--size', keys('Zo%C3%A9%20%26%20co')(s.uri))
