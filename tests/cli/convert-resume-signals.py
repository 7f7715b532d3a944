# SPDX-License-Identifier: GPL-2.0-or-later
"""A convert with --resume that is stopped by a signal goes on later, also when it was killed; two at a time
exclude each other."""
import os
import signal
import subprocess

IMG = os.environ['IMG']


def command(*opts):
    return [IMG, 'convert', '--resume', *opts, 'disk.raw', 'copy']


def start(*opts):
    """One that is slow, and has copied more than lies between two checkpoints."""
    proc = subprocess.Popen(command('--progress=json', '-r', '40M', *opts), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    for line in proc.stdout:
        if int(line.split('"done": ')[1].split(',')[0]) > 12 << 20:
            return proc
    raise SystemExit(f'it did not run: {proc.stderr.read()}')


def stop(proc, number):
    proc.send_signal(number)
    proc.communicate(timeout=100)
    if proc.returncode != -number:
        print(f'signal {number}: exit code {proc.returncode}')


def go_on(*opts):
    done = subprocess.run(command(*opts), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f'{opts}: {done.stderr}')
    subprocess.run([IMG, 'convert', '--force', *opts, 'disk.raw', 'once'], check=True)
    with open('once', 'rb') as once, open('copy', 'rb') as copy:
        if once.read() != copy.read():
            print(f'{opts}: not the bytes of one run')
    os.remove('copy')
    if sorted(os.listdir()) != ['disk.raw', 'once']:
        print(f'{opts} leaves {os.listdir()}')
    return done.stderr


with open('disk.raw', 'wb') as f:
    for i in range(64 << 10):
        f.write(i.to_bytes(4, 'big') * 128)
for how in (['-O', 'raw'], ['-O', 'qcow2'], ['-O', 'qcow2', '-c']):
    stop(start(*how), signal.SIGKILL)
    go_on(*how)
    # Who is asked to stop notes what is done.
    stop(start(*how), signal.SIGINT)
    if 'going on' not in go_on(*how):
        print(f'{how}: it began anew')

first = start('-O', 'qcow2')
second = subprocess.run(command('-O', 'qcow2'), capture_output=True, text=True, check=False)
if second.returncode != 1 or 'Is another process using the image [copy.partial.journal]?' not in second.stderr:
    print(f'two at a time: {second.returncode} {second.stderr}')
stop(first, signal.SIGTERM)
go_on('-O', 'qcow2')
