# SPDX-License-Identifier: GPL-2.0-or-later
# Help, and command lines that make no sense.
img
img inof disk
img serialize disk
img --nonsense
img help resize
img resize --help | head -1
img help nonsense
img info --output=xml disk
img info one two
img info -f what disk
img info lost
img map --start disk
