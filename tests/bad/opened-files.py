# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
# timeout: 300
"""No file is opened because an image names it: every command is run on images that name decoys, and
watched from outside. --untrusted is for every command; info, check, map and snapshot open nothing
else without it either."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import Image
from syscalls import need_strace, opened

IMG = os.environ['IMG']
DECOYS = ('decoy.raw', 'decoy.data', 'decoy.json')
BAD = []


def overlay(path, name, fmt='raw'):
    image = Image(path, clusters=0)
    image.backing(name, fmt)
    return image.close()


def prepare():
    for name in DECOYS:
        with open(name, 'wb') as f:
            f.write(b'secret' * 20000)
    overlay('backing.qcow2', 'decoy.raw')
    overlay('absolute.qcow2', os.path.abspath('decoy.raw'))
    overlay('guessed.qcow2', 'decoy.raw', None)
    overlay('json.qcow2', 'json:{"driver":"raw","file.filename":"decoy.json"}')
    overlay('proto.qcow2', 'file:decoy.raw')
    image = Image('data.qcow2')
    image.extension(0x44415441, b'decoy.data')
    image.header(incompatible=4).close()


IMAGES = ('backing.qcow2', 'absolute.qcow2', 'guessed.qcow2', 'json.qcow2', 'proto.qcow2',
          'data.qcow2')

# How a command is called; FILE is the image. The others take the image alone.
CALLS = {
    'create': ['-q', '-f', 'qcow2', '-b', 'FILE', '-F', 'qcow2', 'new.qcow2'],
    'convert': ['-O', 'raw', 'FILE', 'new.raw'],
    'resize': ['FILE', '+64k'],
    'compare': ['FILE', 'plain.qcow2'],
    'measure': ['-O', 'qcow2', 'FILE'],
    'bitmap': ['--add', 'FILE', 'name'],
    'dd': ['if=FILE', 'of=new.raw'],
    'amend': ['-o', 'lazy_refcounts=on', 'FILE'],
    'rebase': ['-b', '', 'FILE'],
    'serve': ['--run', 'true', 'FILE'],
    'mirror': ['FILE', 'plain.qcow2'],
    'cat': ['FILE:/file'],
    'cp': ['FILE:/file', 'copied'],
    'edit': ['-e', 's/a/b/', 'FILE:/file'],
    'rm': ['FILE:/file'],
    'mkdir': ['FILE:/directory'],
    'ln': ['-s', 'file', 'FILE:/link'],
    'mv': ['FILE:/file', 'FILE:/other'],
    'chmod': ['600', 'FILE:/file'],
    'chown': ['0', 'FILE:/file'],
    'tar': ['out', 'FILE:/'],
}
# Those that take no image.
NO_IMAGE = ('doctor',)
# These open nothing but what they are given in any case.
ALWAYS = ('info', 'check', 'snapshot', 'map')


def commands():
    out = subprocess.run([IMG, '--completion-data'], stdout=subprocess.PIPE, check=True,
                         text=True).stdout
    rows = [line.split('\t') for line in out.splitlines()]
    untrusted = {r[1] for r in rows if r[0] == 'option' and r[3] == '--untrusted'}
    return [r[1] for r in rows if r[0] == 'command'], untrusted


def touched(argv, pristine):
    """Decoys that the command opened; the images are as before for the next one."""
    code, out, paths = opened([IMG, *argv])
    for name, data in pristine.items():
        with open(name, 'wb') as f:
            f.write(data)
    for name in ('new.qcow2', 'new.raw'):
        if os.path.exists(name):
            os.unlink(name)
    return code, out, [p for p in paths if any(d in p for d in DECOYS)]


def expect_none(argv, pristine):
    code, out, paths = touched(argv, pristine)
    if paths:
        BAD.append(f'img {" ".join(argv)}: opened {paths}')
    if code < 0 or code > 63:
        BAD.append(f'img {" ".join(argv)}: exit {code}: {out}')


def call(command, image, *options):
    return [command, *options, *(a.replace('FILE', image) for a in CALLS.get(command, ['FILE']))]


def main():
    need_strace()
    prepare()
    Image('plain.qcow2').close()
    pristine = {}
    for name in (*IMAGES, 'plain.qcow2', *DECOYS):
        with open(name, 'rb') as f:
            pristine[name] = f.read()
    # What this test relies on: an opened decoy is seen.
    if not touched(['map', '--backing-chain', 'backing.qcow2'], pristine)[2]:
        BAD.append('the backing file that map opens was not seen')
    names, untrusted = commands()
    for command in names:
        if command in NO_IMAGE:
            continue
        if command not in untrusted:
            BAD.append(f'{command} has no --untrusted')
            continue
        for image in IMAGES:
            expect_none(call(command, image, '--untrusted'), pristine)
        if command in ALWAYS:
            for image in IMAGES:
                expect_none(call(command, image), pristine)
    for image in IMAGES:
        expect_none(['info', '--untrusted', '--backing-chain', image], pristine)
        expect_none(['check', '-r', 'all', image], pristine)
        expect_none(['info', '--image-opts', f'driver=qcow2,file.filename={image}'], pristine)
        expect_none(['map', f'json:{{"driver": "qcow2", "file.filename": "{image}", '
                     '"backing": null}'], pristine)
        expect_none(['map', '--untrusted', '--backing-chain', image], pristine)
    # Names that are no paths open nothing in any case.
    for image in ('json.qcow2', 'proto.qcow2'):
        for command in ('map', 'convert', 'compare', 'measure', 'checksum'):
            expect_none(call(command, image), pristine)
        expect_none(['info', '--backing-chain', image], pristine)
        expect_none(['map', '--backing-chain', image], pristine)
    print('\n'.join(BAD), end='\n' if BAD else '')
    sys.exit(1 if BAD else 0)


main()
