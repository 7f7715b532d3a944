# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 240
# `bench` under the peer's name: the same command lines, the same answers.
python3 "$TOP/tests/lib/parity.py" bench
