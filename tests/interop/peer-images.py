# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
# variants: asan
"""Whatever the peer makes, we read: every command that looks at an image says what the peer says,
and finds the same bytes. One image for each pair of features."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (Mistake, covering, img, ours, peer, peer_is_reference, run_rows, same_files,
                     same_output)
from peer_images import PARAMS, make, valid


def check_reports(path):
    for output in ('human', 'json'):
        same_output('info', f'--output={output}', path)
        same_output('info', '--backing-chain', f'--output={output}', path)
        same_output('check', f'--output={output}', path)
        same_output('measure', '-O', 'qcow2', f'--output={output}', path)
        same_output('measure', '-O', 'raw', f'--output={output}', path)
    same_output('map', '--output=json', path)
    same_output('map', path)
    same_output('snapshot', '-l', path)


def check_content(path):
    peer('convert', '-O', 'raw', path, 'peer.raw')
    ours('convert', '-O', 'raw', path, 'ours.raw')
    same_files('peer.raw', 'ours.raw')
    for a, b in ((path, 'peer.raw'), ('peer.raw', path)):
        same_output('compare', a, b)
    sums = [img('checksum', f).out.split()[0] for f in (path, 'peer.raw')]
    if sums[0] != sums[1]:
        raise Mistake(f'checksums differ: {sums}')


def check_row(row, rng):
    _, snapshots = make('disk.qcow2', row, rng)
    before = os.stat('disk.qcow2')
    check_reports('disk.qcow2')
    check_content('disk.qcow2')
    for name in snapshots:
        peer('convert', '-l', name, '-O', 'raw', 'disk.qcow2', 'peer.raw')
        ours('convert', '-l', name, '-O', 'raw', 'disk.qcow2', 'ours.raw')
        same_files('peer.raw', 'ours.raw')
        same_output('measure', '-l', name, '-O', 'qcow2', 'disk.qcow2')
    after = os.stat('disk.qcow2')
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Mistake('reading changed the image')


peer_is_reference()
run_rows(covering(PARAMS, valid), check_row)
