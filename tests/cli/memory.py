# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""Memory does not grow with the size of the disk, but for the tables of a new image, nor with that of the
data."""
import os
import subprocess

IMG = os.environ['IMG']
MiB, TiB = 1 << 20, 1 << 40
LIMIT = 32 * MiB  # that of this interpreter included: before the exec it is the program's


def peak(*argv):
    """Bytes of memory that a command needed."""
    pid = os.posix_spawn(IMG, [IMG, *argv], os.environ,
                         file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    if status:
        print(f'{argv}: status {status}')
    return usage.ru_maxrss * 1024


def at_most(limit, *argv):
    used = peak(*argv)
    if used > limit:
        print(f'{" ".join(argv)}: {used / MiB:.1f} MiB, more than {limit / MiB:.1f}')


# 1 TiB with a little data all over it: at 64 KiB clusters 128 MiB of L2 tables if all of it were data.
with open('sparse.raw', 'wb') as f:
    f.truncate(TiB)
    for i in range(64):
        f.seek(i * TiB // 64)
        f.write(b'data' * 20000)
at_most(LIMIT, 'convert', '-O', 'qcow2', 'sparse.raw', 'sparse.qcow2')
at_most(LIMIT, 'convert', '-c', '-O', 'qcow2', 'sparse.raw', 'coded.qcow2')
at_most(LIMIT, 'convert', '-O', 'raw', 'sparse.qcow2', 'back.raw')
at_most(LIMIT, 'convert', '-O', 'qcow2', 'sparse.qcow2', 'again.qcow2')
for command in (['info'], ['map', '--output=json'], ['measure', '-O', 'qcow2'], ['snapshot', '-l']):
    at_most(LIMIT, *command, 'sparse.qcow2')
at_most(LIMIT, 'compare', 'sparse.raw', 'sparse.qcow2')
at_most(LIMIT, 'checksum', 'sparse.qcow2')
at_most(LIMIT, 'check', 'sparse.qcow2')
# All tables there: 128 MiB of them are walked, none is kept.
subprocess.run([IMG, 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', 'full.qcow2', '1T'],
               check=True)
at_most(LIMIT, 'map', '--output=json', 'full.qcow2')
at_most(LIMIT, 'check', 'full.qcow2')
at_most(LIMIT, 'measure', '-O', 'raw', 'full.qcow2')
at_most(LIMIT, 'info', 'full.qcow2')
# Much data: what is in flight, not what there is.
with open('data.raw', 'wb') as f:
    for i in range(256):
        f.write(os.urandom(MiB // 4) * 4)
for extra in ([], ['-c'], ['-W'], ['-c', '-m', '8']):
    at_most(LIMIT, 'convert', '--force', '-O', 'qcow2', *extra, 'data.raw', 'data.qcow2')
