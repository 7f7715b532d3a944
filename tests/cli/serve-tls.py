# SPDX-License-Identifier: GPL-2.0-or-later
"""Which keys a server uses, in each way to say so, and whom it lets in; all in the sealed process."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from certificates import Authority
from serving import IMG, Server, out

for program in ('nbdinfo', 'openssl'):
    if not shutil.which(program):
        print(f'no {program}')
        sys.exit(77)

out(IMG, 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M')
ca = Authority('ca')
ca.server('pki')
ca.client('pki', 'alice')
ca.client('bob', 'bob')
os.mkdir('keys')
with open('keys/keys.psk', 'w', encoding='ascii', opener=lambda p, f: os.open(p, f, 0o600)) as keys:
    keys.write('alice:' + 'a5' * 32 + '\n')
HERE = os.getcwd()
PLAIN, PSK = '', f'?tls-psk-file={HERE}/keys/keys.psk'
ALICE, BOB = f'?tls-certificates={HERE}/pki', f'?tls-certificates={HERE}/bob'


def comes_in(port, query):
    scheme = 'nbds://alice@' if query == PSK else 'nbds://' if query else 'nbd://'
    proc = subprocess.run(['nbdinfo', '--size', f'{scheme}localhost:{port}/{query}'], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False)
    return proc.stdout == '1048576\n'


def case(options, who):
    """Each of who comes in, and none of the others."""
    with Server('-p', '0', *options, 'disk.qcow2') as server:
        scheme = 'nbd' if PLAIN in who else 'nbds'
        port = server.uri.split(':')[2].rstrip('/')
        if not server.uri.startswith(scheme + '://'):
            print(f'{options}: {server.uri}')
        for client in (PLAIN, PSK, ALICE, BOB):
            if comes_in(port, client) != (client in who):
                print(f'{options}: {client or "without TLS"}: {"turned away" if client in who else "let in"}')
        code, err = server.stop()
        if code or 'killed' in err:
            print(f'{options}: exit {code}: {err}')


X509 = 'tls-creds-x509,id=tls0,endpoint=server,dir=pki'
case([], [PLAIN])
case(['--tls-dir', 'pki'], [ALICE, BOB])
case(['--tls-dir', 'pki', '--tls=on'], [PLAIN, ALICE, BOB])
case(['--tls-dir', 'pki', '--tls-verify', '--tls-authz', '*,CN=al*,*'], [ALICE])
case(['--tls-psk', 'keys/keys.psk'], [PSK])
case(['--object', X509 + ',verify-peer=off', '--tls-creds', 'tls0'], [ALICE, BOB])
case(['--object', 'tls-creds-psk,id=p,endpoint=server,dir=keys', '--tls-creds', 'p'], [PSK])
# The peer's default is to verify; and its authz is a name, not a pattern.
case(['--object', X509, '--tls-creds', 'tls0', '--object', 'authz-simple,id=who,identity=*,,CN=bob',
      '--tls-authz', 'who'], [])
case(['--object', X509, '--tls-creds', 'tls0', '--object', 'authz-simple,id=who,identity=CN=bob,,O=imgkit',
      '--tls-authz', 'who'], [BOB])
