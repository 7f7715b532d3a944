# SPDX-License-Identifier: GPL-2.0-or-later
# The version is that of the public header; under the peer's name the first words are the peer's.
part() { sed -n "s/^#define IMGKIT_VERSION_$1  *//p" "$TOP/include/imgkit.h"; }
version=$(part MAJOR).$(part MINOR).$(part PATCH)
img --version | sed "s/$version/VERSION/"
img -V | sed "s/$version/VERSION/"
ln -s "$IMG" "$TMPDIR/qemu-img"
"$TMPDIR/qemu-img" --version | sed "s/$version/VERSION/"
