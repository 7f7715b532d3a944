# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGUSR1 tells how far a command is, on stderr, without -p; and does not disturb it."""
import os
import re
import signal
import subprocess
import time

with open('disk.raw', 'wb') as f:
    f.write(b'data' * (1 << 20))
proc = subprocess.Popen([os.environ['IMG'], 'convert', '-r', '2M', 'disk.raw', 'copy.raw'],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
# It handles the signal as soon as it has a thread to show progress.
while len(os.listdir(f'/proc/{proc.pid}/task')) < 2:
    time.sleep(0.01)
time.sleep(0.1)
for _ in range(3):
    proc.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
out, err = proc.communicate()
with open('disk.raw', 'rb') as a, open('copy.raw', 'rb') as b:
    print('same' if a.read() == b.read() else 'different', 'exit code', proc.returncode, repr(out))
lines = re.split(r'[\r\n]+', err.strip('\r\n'))
print('three lines' if len(lines) == 3 else err)
for line in lines:
    if not re.fullmatch(r' *\(\d+\.\d\d/100%\)', line):
        print(repr(line))
