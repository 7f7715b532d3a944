#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""QEMU as a client of our server with TLS: who has the right keys comes in, all others are refused,
and so is a connection without TLS: nothing falls back."""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from certificates import Authority, psk
from hostile import run_cases
from interop import MiB, Mistake, peer, run
from live import Export, Place
from qmp import Qemu, Refused


def listed(options):
    return ','.join(f'{k}={v}' for k, v in options.items())


class Client:
    """QEMU's client, which connects to a place with different keys."""

    def __init__(self, place):
        self.place = place

    def _connect(self, keys, options):
        """With a credentials object of these properties: None, or why it failed."""
        address = {f'server.{k}': v for k, v in self.place.address().items()}
        node = {'driver': 'nbd', 'export': 'disk', **address, **options}
        objects = []
        if keys:
            node['tls-creds'] = 'keys'
            objects = ['--object', listed({**keys, 'id': 'keys', 'endpoint': 'client'})]
        result = peer('info', *objects, '--image-opts', listed(node), code=None)
        return result.err.decode() if result.code else None

    def accepted(self, keys=None, **options):
        why = self._connect(keys, options)
        if why:
            raise Mistake(f'{keys} {options}: {why}')

    def refused(self, keys=None, **options):
        why = self._connect(keys, options)
        if not why or not re.search(r'TLS|handshake|certificate|Failed to read', why, re.I):
            raise Mistake(f'{keys} {options}: {why or "accepted"}')


def served(place, try_it):
    """Calls try_it(client) while a disk is served."""
    run('qemu-img', 'create', '-q', '-f', 'raw', 'disk', MiB)
    with Export(place, 'disk', 'raw'):
        try_it(Client(place))


def certificates():
    place = Place(tcp=True, tls='x509')
    # Of the same name, or the client would not even try its certificate.
    other = Authority('other')
    for authority, trusted, name in ((other, place.authority, 'stranger'), (place.authority, other, 'misled')):
        authority.client(name)
        shutil.copy(trusted.certificate, f'{name}/ca-cert.pem')
    os.mkdir('nameless')
    shutil.copy(place.authority.certificate, 'nameless/ca-cert.pem')

    def keys(path):
        return {'qom-type': 'tls-creds-x509', 'dir': os.path.abspath(path), 'sanity-check': 'off'}

    def try_it(client):
        good = keys(place.keys)
        client.accepted(good)
        client.refused()                                            # no TLS
        client.refused(keys('nameless'))                            # no certificate
        client.refused(keys('stranger'))                            # one of another authority
        client.refused(keys('misled'))                              # the client trusts another one
        client.refused(good, **{'tls-hostname': 'elsewhere'})       # not the server's name
        client.accepted(good, **{'tls-hostname': 'localhost'})
    served(place, try_it)


def refused_while_it_runs():
    """A QEMU that runs is told that its certificate is not wanted, and goes on: also when the server
    knows before the client has sent all of its handshake. Several times, as it was a race."""
    place = Place(tls='x509')
    Authority('other').client('stranger')
    shutil.copy(place.authority.certificate, 'stranger/ca-cert.pem')
    run('qemu-img', 'create', '-q', '-f', 'raw', 'disk', MiB)
    with Export(place, 'disk', 'raw'), Qemu('-S') as qemu:
        qemu.cmd('object-add', **{**place.client_object(), 'dir': os.path.abspath('stranger'),
                                  'sanity-check': False})
        for _ in range(8):
            try:
                qemu.cmd('blockdev-add', **place.blockdev('node'))
            except Refused:
                continue
            raise Mistake('a stranger comes in')
        qemu.quit()


def shared_keys():
    place = Place(tls='psk')
    with open(f'{place.keys}/keys.psk', encoding='ascii') as f:
        right = bytes.fromhex(f.read().strip().split(':')[1])
    for directory, user, key in (('wrong', 'mirror', bytes(32)), ('unknown', 'nobody', right)):
        os.mkdir(directory)
        psk(f'{directory}/keys.psk', {user: key})

    def keys(path, user='mirror'):
        return {'qom-type': 'tls-creds-psk', 'dir': os.path.abspath(path), 'username': user}

    def try_it(client):
        good = keys(place.keys)
        client.accepted(good)
        client.refused()                                            # no TLS
        client.refused(keys('wrong'))                               # the right name, another key
        client.refused(keys('unknown', 'nobody'))                   # the right key of no one
        client.accepted(good)
    served(place, try_it)


def server_without():
    """A client that wants TLS does not talk to a server that has none."""
    place = Place()
    Authority('ca').client('keys')

    def try_it(client):
        client.accepted()
        client.refused({'qom-type': 'tls-creds-x509', 'dir': os.path.abspath('keys')},
                       **{'tls-hostname': 'localhost'})
        client.accepted()
    served(place, try_it)


run_cases([certificates, refused_while_it_runs, shared_keys, server_without])
