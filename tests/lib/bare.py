# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest without an operating system of tests/bare, and the model of what it does to its disk."""
import array
import functools
import os

from interop import MiB, Mistake, find, run
from qmp import Qemu

SECTOR, LANES, FIRST_SECTOR, MOST, CLUSTER = 512, 4, 128, 48, 128
PROGRAM_SECTORS = 16  # with the boot sector; what boot.S loads
M32 = 0xffffffff
OUT, FLUSH, DISCARD, ZEROES, IN = 'write', 'flush', 'discard', 'zeroes', 'read'


@functools.cache
def program():
    """The boot sector and what follows it, made by the compiler."""
    source = os.path.join(os.environ['TOP'], 'tests/bare/')
    if os.uname().machine != 'x86_64':
        print('the guest is for x86')
        raise SystemExit(77)
    run(find('gcc'), '-m32', '-O2', '-Wall', '-Wextra', '-Werror', '-ffreestanding', '-fno-pie', '-no-pie',
        '-fno-stack-protector', '-fcf-protection=none', '-fno-asynchronous-unwind-tables',
        '-mno-sse', '-mno-mmx', '-nostdlib', '-static',
        '-Wl,-N,-Ttext=0x7c00,--oformat=binary,--build-id=none',
        source + 'boot.S', source + 'guest.c', '-o', 'guest.bin')
    with open('guest.bin', 'rb') as f:
        data = f.read()
    assert data[510:512] == b'\x55\xaa' and len(data) <= PROGRAM_SECTORS * SECTOR, len(data)
    return data


def mix(x):
    x ^= x >> 16
    x = x * 0x85ebca6b & M32
    x ^= x >> 13
    x = x * 0xc2b2ae35 & M32
    return x ^ x >> 16


def content(step, sector):
    """The bytes of a sector that a step wrote."""
    words = array.array('I', range(base := mix(step ^ mix(sector)) & 0x7fffffff, base + 128))
    words[0], words[1] = step, sector
    return words.tobytes()


DISCARDED = 1 << 31  # beside the step: the sector may also be zero


class Disk:
    """The model: which step wrote each sector (0: it is zero)."""

    def __init__(self, size=32 * MiB):
        self.size, self.done = size, 0
        self.lane_sectors = (size // SECTOR - FIRST_SECTOR) // LANES
        self.by = array.array('I', bytes(4 * (size // SECTOR)))
        self.program = program()

    def plan(self, step, lane):
        """What a step does in a lane: kind, first sector, number of sectors."""
        h = mix(step * LANES + lane)
        kind, count = h & 15, 1 + (h >> 4) % MOST
        at = FIRST_SECTOR + lane * self.lane_sectors + mix(h) % (self.lane_sectors - 2 * CLUSTER)
        if kind == 1:
            count, at = CLUSTER, (at + CLUSTER - 1) // CLUSTER * CLUSTER
        what = FLUSH if kind == 0 else DISCARD if kind == 1 else ZEROES if kind < 4 else \
            IN if kind < 7 else OUT
        return what, at, count

    def advance(self, step):
        """Does all steps up to this one."""
        while self.done < step:
            self.done += 1
            for lane in range(LANES):
                what, at, count = self.plan(self.done, lane)
                if what in (OUT, ZEROES):
                    self.by[at:at + count] = array.array('I', [self.done if what == OUT else 0]) * count
                elif what == DISCARD:
                    self.by[at:at + count] = array.array('I', [b | DISCARDED for b in self.by[at:at + count]])

    def write(self, path, like=None):
        """Makes a raw file that holds what the disk must hold now. Of what was discarded, `like`,
        a raw file as well, decides whether it is zero."""
        with open(path, 'wb') as f, open(like or os.devnull, 'rb') as other:
            f.truncate(self.size)
            f.write(self.program)
            for sector, by in enumerate(self.by):
                if by & DISCARDED:
                    other.seek(sector * SECTOR)
                    by = 0 if not any(other.read(SECTOR)) else by & ~DISCARDED
                if by:
                    f.seek(sector * SECTOR)
                    f.write(content(by, sector))
        return path


class Guest(Qemu):
    """A machine that booted from the disk `node`, with a model of that disk beside it.

    `argv` has the -blockdev options; the machine has the rights to discard and to write zeroes."""

    def __init__(self, disk, *argv, node='disk', log='qemu.log'):
        device = f'virtio-blk-pci,id=vda,drive={node},addr=4,disable-modern=on,bootindex=0,' \
            'werror=report,rerror=report,share-rw=on'
        super().__init__(*argv, '-device', device, log=log)
        self.disk, self.granted = disk, 0
        self.booted()

    def booted(self):
        """Tells the guest what it did before it was booted, and waits until it is ready."""
        self.heard('?')
        self.grant(self.disk.done - self.granted)
        self.reached(self.granted)

    def grant(self, steps):
        """Lets it do that many more steps; does not wait for them."""
        self.granted += steps
        self.serial.send(f'{self.granted}\n')

    def heard(self, wanted):
        """Waits until the guest says this."""
        while (line := self.serial.read()) != wanted:
            if not line.isdigit():
                raise Mistake(f'the guest says {line!r}\n{self.said()}')

    def reached(self, step):
        """Waits until it has done this step."""
        self.heard(str(step))

    def steps(self, n):
        """It does that many steps."""
        self.grant(n)
        self.finish()

    def finish(self):
        """Waits until all that was granted is done, and tells the model."""
        self.reached(self.granted)
        self.disk.advance(self.granted)


def local(path, fmt, node='disk'):
    """Options for a disk in a file."""
    return ['-blockdev', f'{fmt},node-name={node},discard=unmap,file.driver=file,file.filename={path},'
            'file.discard=unmap']
