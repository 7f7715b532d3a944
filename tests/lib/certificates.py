# SPDX-License-Identifier: GPL-2.0-or-later
"""X.509 certificates and pre-shared keys for tests of TLS, by openssl(1); EC keys, made in a moment.

A test makes an Authority, which signs certificates into directories that have the layout of QEMU's
and libnbd's (ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem):

    ca = Authority('ca')
    ca.server('pki')
    ca.client('pki', 'alice')

As a program, `certificates.py DIR` does this for shell scripts, with a client of the name client."""
import os
import shutil
import subprocess
import sys

CONFIG = '''
[ca]
default_ca = this
[this]
dir = {dir}
database = $dir/index.txt
serial = $dir/serial
new_certs_dir = $dir
certificate = $dir/cert.pem
private_key = $dir/key.pem
default_md = sha256
default_days = 30
default_crl_days = 30
unique_subject = no
policy = any
[any]
commonName = supplied
organizationName = optional
organizationalUnitName = optional
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1{more}
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
'''

NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']


def openssl(*args):
    """Its output; a failure shows what it said."""
    run = subprocess.run(['openssl', *args], stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, check=False)
    if run.returncode:
        sys.exit(f'openssl {args[0]}: {run.stderr}')
    return run.stdout


class Authority:
    """A CA in a directory of its own. Servers have these addresses beside the usual ones."""

    def __init__(self, path, name='Test CA', addresses=()):
        self.path = path
        self.config = os.path.join(path, 'config')
        self.certificate = os.path.join(path, 'cert.pem')
        os.mkdir(path)
        with open(self.config, 'w', encoding='utf-8') as f:
            f.write(CONFIG.format(dir=path, more=''.join(f', IP:{a}' for a in addresses)))
        for file, text in (('index.txt', ''), ('serial', '1000\n')):
            with open(os.path.join(path, file), 'w', encoding='utf-8') as f:
                f.write(text)
        openssl('req', '-x509', '-config', self.config, '-extensions', 'authority', *NEW_KEY,
                '-keyout', os.path.join(path, 'key.pem'), '-out', self.certificate,
                '-subj', f'/CN={name}', '-days', '30')

    def issue(self, directory, kind, subject, dates=()):
        """kind-cert.pem and kind-key.pem in directory, and the authority's certificate beside them.

        kind: server or client; subject: /O=…/CN=…; dates: first and last, as 20200101000000Z."""
        os.makedirs(directory, exist_ok=True)
        out = os.path.join(directory, kind)
        request = os.path.join(self.path, 'request.pem')
        openssl('req', '-new', '-config', self.config, *NEW_KEY, '-utf8', '-keyout', out + '-key.pem',
                '-out', request, '-subj', subject)
        os.chmod(out + '-key.pem', 0o600)
        openssl('ca', '-batch', '-notext', '-preserveDN', '-config', self.config, '-extensions', kind,
                '-in', request, '-out', out + '-cert.pem',
                *(['-startdate', dates[0], '-enddate', dates[1]] if dates else []))
        shutil.copy(self.certificate, os.path.join(directory, 'ca-cert.pem'))

    def server(self, directory, dates=()):
        """For localhost, 127.0.0.1 and ::1."""
        self.issue(directory, 'server', '/O=imgkit/CN=localhost', dates)

    def client(self, directory, name='client', dates=()):
        """Subject: /O=imgkit/CN=name."""
        self.issue(directory, 'client', f'/O=imgkit/CN={name}', dates)

    def revoke(self, certificate):
        """The next list has it."""
        openssl('ca', '-config', self.config, '-revoke', certificate)

    def revocations(self, out, dates=()):
        """Writes the list of revoked certificates; dates: when it was made, and when the next is due."""
        openssl('ca', '-config', self.config, '-gencrl', '-out', out,
                *(['-crl_lastupdate', dates[0], '-crl_nextupdate', dates[1]] if dates else []))


def psk(path, users):
    """A file of pre-shared keys as psktool makes it; users: {name: bytes}."""
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 'w', encoding='utf-8') as f:
        for name, key in users.items():
            f.write(f'{name}:{key.hex()}\n')


def main():
    """See the head of this file."""
    directory, = sys.argv[1:]
    authority = Authority(directory.rstrip('/') + '.ca')
    authority.server(directory)
    authority.client(directory)


if __name__ == '__main__':
    main()
