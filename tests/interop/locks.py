# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that a program of the peer has open is not written to by accident, nor the other way round; -U
looks all the same. The locks are the peer's: byte ranges of the file."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import QEMU_IO, Mistake, img, ours, peer, run, run_rows

LOCKED = b'lock'
ROWS = [{'format': f, 'who': w} for f in ('qcow2', 'raw')
        for w in ('peer writes', 'peer reads', 'we write', 'we read', 'two readers')]


class PeerHolds:
    """qemu-io with the image open."""

    def __init__(self, path, fmt, *options):
        self.proc = subprocess.Popen([QEMU_IO, *options, '-f', fmt, path], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.say('read 0 512', b'read 512/512')

    def say(self, command, answer):
        self.proc.stdin.write(command.encode() + b'\n')
        self.proc.stdin.flush()
        for line in self.proc.stdout:
            if answer in line:
                return
        raise Mistake('qemu-io ended')

    def close(self):
        self.proc.communicate(b'quit\n')


class WeHold:
    """A slow convert from or into the image."""

    def __init__(self, *argv):
        self.proc = subprocess.Popen([os.environ['IMG'], 'convert', '--progress=json', '-r', '1M', *argv],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in self.proc.stdout:
            if b'"done": 0,' not in line:
                return
        raise Mistake(f'convert ended: {self.proc.stderr.read()}')

    def close(self):
        self.proc.kill()
        self.proc.communicate()


def refused(program, *argv, code=1):
    result = program(*argv, code=None)
    if result.code != code or LOCKED not in result.err:
        raise Mistake(f'not refused for its lock\n{result.shown()}')


def looking(name, fmt):
    """Commands that only read."""
    commands = [['info', '-f', fmt, name], ['map', '-f', fmt, name],
                ['compare', '-f', fmt, '-F', 'raw', name, 'source.raw'],
                ['measure', '-f', fmt, '-O', 'raw', name], ['convert', '-f', fmt, name, 'copy.raw']]
    return commands + ([['check', '-f', fmt, name], ['snapshot', '-l', name]] if fmt == 'qcow2' else [])


def writing(name, fmt):
    commands = [['resize', '-f', fmt, name, '+1M'],
                ['convert', '-n', '-f', 'raw', '-O', fmt, 'source.raw', name]]
    if fmt == 'qcow2':
        commands += [['snapshot', '-c', 's', name], ['snapshot', '-a', 'one', name],
                     ['snapshot', '-d', 'one', name], ['check', '-r', 'all', '-f', fmt, name]]
    return commands


def replacing(name, fmt):
    return [['create', '--force', '-f', fmt, name, '1M'],
            ['convert', '--force', '-f', 'raw', '-O', fmt, 'source.raw', name]]


def exit_code(command):
    return 2 if command[0] == 'compare' else 1


def peer_writes(name, fmt):
    other = PeerHolds(name, fmt)
    for c in looking(name, fmt) + writing(name, fmt):
        refused(img, *c, code=exit_code(c))
    for c in replacing(name, fmt):
        refused(img, *c)
        refused(ours, *[a for a in c if a != '--force'])
    for c in looking(name, fmt):
        img(c[0], '-U', *c[1:])
        if os.path.exists('copy.raw'):
            os.unlink('copy.raw')
    img('checksum', '-U', '-f', fmt, name)
    other.say('write -P 7 0 512', b'wrote 512/512')
    other.close()


def peer_reads(name, fmt):
    other = PeerHolds(name, fmt, '-r')
    for c in looking(name, fmt):
        img(*c)
    # A reader of a raw disk lets others write, as far as the peer is concerned.
    for c in writing(name, fmt) + replacing(name, fmt) if fmt == 'qcow2' else []:
        refused(img, *c)
    other.close()


def we_write(name, fmt):
    holder = WeHold('-n', '-f', 'raw', '-O', fmt, 'source.raw', name)
    if fmt == 'qcow2':  # of a raw disk the peer needs nothing for that
        refused(peer, 'info', '-f', fmt, name)
    refused(peer, 'resize', '-f', fmt, name, '+1M')
    refused(run, QEMU_IO, '-f', fmt, '-c', 'read 0 512', name)
    refused(run, QEMU_IO, '-f', fmt, '-c', 'write 0 512', name)
    peer('info', '-U', '-f', fmt, name)
    for c in looking(name, fmt) + writing(name, fmt) + replacing(name, fmt):
        refused(img, *c, code=exit_code(c))
    holder.close()
    peer('info', '-f', fmt, name)  # the lock is gone with the process


def we_read(name, fmt):
    holder = WeHold('-f', fmt, '-O', 'raw', name, 'slow.raw')
    refused(run, QEMU_IO, '-f', fmt, '-c', 'write 0 512', name)
    refused(peer, 'resize', '-f', fmt, name, '+1M')
    run(QEMU_IO, '-r', '-f', fmt, '-c', 'read 0 512', name)
    for c in looking(name, fmt):
        peer(*c)
        img(*c[:-1], 'copy2.raw') if c[0] == 'convert' else img(*c)
    for c in writing(name, fmt) + replacing(name, fmt):
        refused(img, *c)
    holder.close()


def two_readers(name, fmt):
    # An overlay's backing file is read only, so a writer of the overlay does not keep us from it.
    peer('create', '-q', '-f', 'qcow2', '-b', name, '-F', fmt, 'top.qcow2')
    other = PeerHolds('top.qcow2', 'qcow2')
    for c in looking(name, fmt):
        img(*c)
    for c in writing(name, fmt) + replacing(name, fmt) if fmt == 'qcow2' else []:
        refused(img, *c)
    refused(img, 'info', 'top.qcow2')
    other.close()


CHECKS = {'peer writes': peer_writes, 'peer reads': peer_reads, 'we write': we_write, 'we read': we_read,
          'two readers': two_readers}


def check_row(row, _):
    fmt, name = row['format'], f'disk.{row["format"]}'
    with open('source.raw', 'wb') as f:
        f.write(b'data' * (2 << 20))
    peer('convert', '-f', 'raw', '-O', fmt, 'source.raw', name)
    if fmt == 'qcow2':
        peer('snapshot', '-c', 'one', name)
    CHECKS[row['who']](name, fmt)
    if fmt == 'qcow2':
        peer('check', name)


run_rows(ROWS, check_row)
