# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers for tests: started, ready when start() returns, and never left behind."""
import json
import os
import subprocess

IMG = os.environ['IMG']


class Server:
    """img serve with --output=json; .uri is that of the first export."""

    def __init__(self, *argv, prog=(IMG, 'serve'), **kw):
        self.proc = subprocess.Popen([*prog, '--output=json', *argv], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
        text = ''
        for line in self.proc.stdout:
            text += line
            if line == '}\n':
                break
        if not text:
            raise SystemExit(f'{argv}: {self.proc.stderr.read()}')
        self.ready = json.loads(text)
        self.exports = {e['name']: e for e in self.ready['exports']}
        self.server = self.ready['server-pid']
        self.uri = self.ready['exports'][0]['uris'][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.proc.poll() is None:
            self.stop()

    def stop(self, sig=15):
        """Exit code and what was said."""
        self.proc.send_signal(sig)
        return self.wait()

    def wait(self):
        err = self.proc.communicate()[1]
        return self.proc.returncode, err


def out(*argv, code=0, **kw):
    """Standard output of a program that is to succeed, or to end with this code."""
    proc = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False, **kw)
    if proc.returncode != code:
        raise SystemExit(f'{argv}: exit {proc.returncode}: {proc.stdout}{proc.stderr}')
    return proc.stdout
