# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 240
# Without a command, and with wrong ones, under the name of the peer: the same answers.
python3 "$TOP/tests/lib/parity.py" general
