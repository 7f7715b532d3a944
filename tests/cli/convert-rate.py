# SPDX-License-Identifier: GPL-2.0-or-later
"""-r limits the rate; data that is not there takes no time."""
import os
import subprocess
import time

IMG = os.environ['IMG']


def convert(*argv):
    begin = time.monotonic()
    subprocess.run([IMG, 'convert', *argv], check=True)
    return time.monotonic() - begin


with open('disk.raw', 'wb') as f:
    f.write(b'data' * (1 << 20))
    f.truncate(1 << 40)
seconds = convert('-r', '4M', '-O', 'qcow2', 'disk.raw', 'a.qcow2')
print('slow' if seconds >= 0.5 else f'4 MiB at 4 MiB/s in {seconds} s', flush=True)
print('but not for holes' if seconds < 20 else f'{seconds} s', flush=True)
subprocess.run([IMG, 'compare', 'disk.raw', 'a.qcow2'], check=True)
