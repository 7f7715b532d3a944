# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""What a server says of the bytes of a disk, in each meta context, is what qemu-nbd says of the same
image, read by nbdinfo; and qemu-img finds the same disk and the same map through the server."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import find
from serving import IMG, Server, out

for program in ('qemu-img', 'qemu-nbd', 'qemu-io', 'nbdinfo'):
    find(program)


def io(fmt, path, *commands):
    out('qemu-io', '-f', fmt, *[a for c in commands for a in ('-c', c)], path)


def make():
    """Names of images by format, and their bitmaps."""
    images = []
    out('qemu-img', 'create', '-q', '-f', 'raw', 'sparse.raw', '4M')
    io('raw', 'sparse.raw', 'write 64k 64k', 'write 1M 4k', 'write 1M 512k')
    images.append(('raw', 'sparse.raw', []))
    for name, options in (('small', 'cluster_size=4k'), ('large', 'cluster_size=1M,lazy_refcounts=on'),
                          ('sub', 'extended_l2=on,cluster_size=64k'), ('old', 'compat=0.10'),
                          ('metadata', 'preallocation=metadata'), ('full', 'preallocation=falloc')):
        path = name + '.qcow2'
        out('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path, '4M')
        zeros = [] if name == 'old' else ['write -z 128k 68k', 'write -z -u 1M 1M', 'discard 1536k 64k']
        io('qcow2', path, 'write 0 70000', 'write 512k 4k', *zeros, 'write 4095k 1k')
        images.append(('qcow2', path, []))
    out('qemu-img', 'convert', '-c', '-O', 'qcow2', 'small.qcow2', 'coded.qcow2')
    images.append(('qcow2', 'coded.qcow2', []))
    # A chain of three, each longer than the one below, with bitmaps in two of them.
    out('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'coded.qcow2', '-F', 'qcow2', 'middle.qcow2', '6M')
    out('qemu-img', 'bitmap', '--add', '-g', '64k', 'middle.qcow2', 'below')
    io('qcow2', 'middle.qcow2', 'write 2M 100k', 'write -z 5M 64k', 'write 6143k 1k')
    out('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'middle.qcow2', '-F', 'qcow2', 'top.qcow2', '9M')
    out('qemu-img', 'bitmap', '--add', '-g', '4k', 'top.qcow2', 'fine')
    out('qemu-img', 'bitmap', '--add', '--disable', 'top.qcow2', 'stopped')
    io('qcow2', 'top.qcow2', 'write 64k 64k', 'write -z 512k 64k', 'discard 2M 64k', 'write 8M 1000',
       'write 9215k 1k')
    images.append(('qcow2', 'middle.qcow2', ['below']))
    images.append(('qcow2', 'top.qcow2', ['fine', 'stopped', 'below']))
    return images


def maps(uri, contexts):
    return {c: [(e['offset'], e['length'], e['type'])
                for e in json.loads(out('nbdinfo', '--json', f'--map={c}', uri))] for c in contexts}


def peer(fmt, path, bitmaps, contexts):
    sock = os.path.abspath('peer.sock')
    subprocess.run(['qemu-nbd', '--fork', '-t', '-r', '-A', '-f', fmt, '-k', sock, '--pid-file=peer.pid',
                    *[f'-B{b}' for b in bitmaps], path], check=True)
    try:
        return maps(f'nbd+unix:///?socket={sock}', contexts)
    finally:
        with open('peer.pid', encoding='ascii') as f:
            os.kill(int(f.read()), 15)


bad = 0
for form, image, names in make():
    wanted = ['base:allocation', 'qemu:allocation-depth', *[f'qemu:dirty-bitmap:{n}' for n in names]]
    theirs = peer(form, image, names, wanted)
    with Server('-r', '-A', '-f', form, *[a for n in names for a in ('-B', n)], '-k', os.path.abspath('s'),
                image) as server:
        ours = maps(server.uri, wanted)
        out('qemu-img', 'compare', '-q', '-f', form, '-F', 'raw', image, server.uri)
        out(IMG, 'compare', '-q', '-f', form, image, server.uri)
    for context in wanted:
        if ours[context] != theirs[context]:
            bad = 1
            print(f'{image}, {context}:\n ours   {ours[context]}\n theirs {theirs[context]}')
sys.exit(bad)
