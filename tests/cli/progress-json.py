# SPDX-License-Identifier: GPL-2.0-or-later
"""--progress=json: every line is an object; what is done grows up to the total; the last one says how it
ended. Data that goes to stdout sends it to stderr."""
import json
import os
import subprocess

IMG = os.environ['IMG']
KEYS = ['operation', 'state', 'done', 'total', 'percent', 'seconds', 'rate']
TOTAL = 4 << 20


def lines(what, stream, state, total=TOTAL):
    """Objects of a stream, which must be as the head of this file says. `left` is there when known."""
    objects = [json.loads(text) for text in stream.splitlines()]
    if not objects or any([k for k in o if k != 'left'] != KEYS or o['operation'] != what
                          for o in objects):
        print(f'{what}: {stream}')
        return []
    if [o['done'] for o in objects] != sorted(o['done'] for o in objects):
        print(f'{what}: goes back: {stream}')
    if any(o['state'] != 'running' for o in objects[:-1]) or objects[-1]['state'] != state:
        print(f'{what}: wrong states: {stream}')
    if total and (objects[-1]['done'], objects[-1]['total']) != (total, total):
        print(f'{what}: wrong end: {stream}')
    return objects


def img(*argv, code=0, **how):
    proc = subprocess.run([IMG, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **how)
    if proc.returncode != code:
        print(f'{argv}: exit code {proc.returncode}: {proc.stderr.decode()}')
    return proc


with open('disk.raw', 'wb') as f:
    f.write(b'data' * (1 << 20))
lines('convert', img('convert', '--progress=json', '-O', 'qcow2', 'disk.raw', 'a.qcow2').stdout, 'done')
slow = lines('convert', img('convert', '--progress=json', '-r', '2M', 'disk.raw', 'b.raw').stdout, 'done')
if len(slow) < 3:
    print('no lines while it runs')
proc = img('convert', '--progress=json', '--output=-', 'disk.raw')
lines('convert', proc.stderr, 'done')
if proc.stdout != b'data' * (1 << 20):
    print('progress is mixed with data')
out = img('compare', '--progress=json', 'disk.raw', 'a.qcow2').stdout.splitlines(True)
lines('compare', b''.join(out[:-1]), 'done')
if out[-1] != b'Images are identical.\n':
    print(out)
summed = img('checksum', '--progress=json', 'a.qcow2')
lines('checksum', summed.stderr, 'done')
if not summed.stdout.endswith(b'  a.qcow2\n'):
    print(summed.stdout)
checked = img('check', '--progress=json', 'a.qcow2').stdout.splitlines(True)
lines('check', b''.join(x for x in checked if x.startswith(b'{')), 'done', total=None)
# A failure: the line says so, the text is on stderr.
os.mkdir('dir')
failed = img('convert', '--progress=json', '-n', 'disk.raw', 'missing.raw', code=1)
if not failed.stderr.startswith(b'img: '):
    print(failed.stderr)
