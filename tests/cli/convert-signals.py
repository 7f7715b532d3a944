# SPDX-License-Identifier: GPL-2.0-or-later
"""A convert that is stopped leaves nothing behind, and what was to be replaced as it was; it dies of the
signal, so that a script around it stops too."""
import os
import signal
import subprocess

IMG = os.environ['IMG']


def start(*argv):
    """A convert that is slow, and has begun to copy."""
    proc = subprocess.Popen([IMG, 'convert', '--progress=json', '-r', '2M', '-O', 'qcow2', *argv],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in proc.stdout:
        if '"done": 0,' not in line:
            return proc
    raise SystemExit(f'it did not run: {proc.stderr.read()}')


def stop(proc, number):
    proc.send_signal(number)
    out, err = proc.communicate(timeout=60)
    if proc.returncode != -number:
        print(f'signal {number}: exit code {proc.returncode}')
    if number != signal.SIGKILL and f'Stopped by {number.name}' not in err:
        print(f'signal {number}: {err!r}')
    if '"state": "done"' in out:
        print(f'signal {number}: it says that it is done')


def files():
    return sorted((n, open(n, 'rb').read(9)) for n in os.listdir('.') if n != 'disk.raw')


with open('disk.raw', 'wb') as f:
    f.write(b'data' * (16 << 18))
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
    stop(start('disk.raw', 'new.qcow2'), sig)
    if files():
        print(f'signal {sig} leaves {files()}')
with open('old', 'w', encoding='ascii') as f:
    f.write('precious\n')
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
    stop(start('--force', 'disk.raw', 'old'), sig)
    if files() != [('old', b'precious\n')]:
        print(f'signal {sig} leaves {files()}')
# With snapshots: after the first one, which is empty.
for argv in (['create', '-q', '-f', 'qcow2', 'snaps', '16M'], ['snapshot', '-c', 'empty', 'snaps'],
             ['convert', '-n', '-O', 'qcow2', 'disk.raw', 'snaps']):
    subprocess.run([IMG, *argv], check=True)
before = files()
for sig in (signal.SIGINT, signal.SIGKILL):
    stop(start('--snapshots', 'snaps', 'new.qcow2'), sig)
    if files() != before:
        print(f'signal {sig} leaves {files()}')
# While it runs, the name is not there.
copy = start('disk.raw', 'new.qcow2')
if os.path.exists('new.qcow2'):
    print('the target has its name before it is whole')
copy.kill()
copy.communicate()
