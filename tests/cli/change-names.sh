# SPDX-License-Identifier: GPL-2.0-or-later
# mkdir, ln, mv and rm: what they make and remove, and what they refuse.
. "$TOP/tests/lib/guest.sh"
mkdir -p tree/etc tree/full/deep && echo hello > tree/etc/hosts && ln -s hosts tree/etc/link
ln -s full tree/way && touch tree/full/a
make_ext tree fs 16M
echo "-- mkdir"
try mkdir fs:/x fs:/x/y
try mkdir fs:/x fs:/new
try mkdir fs:/not/there
try mkdir -p fs:/p/q/r fs:/x
try mkdir -m 1770 fs:/m
try mkdir -pm u=rwx,go= fs:/n/o/
try mkdir -m 8 fs:/bad
try mkdir fs:/etc/hosts/x
list / fs
state /m fs
state /n fs
state /n/o fs

echo "-- ln"
try ln -s /etc/hosts fs:/x/soft
try ln -s nowhere fs:/x/soft
try ln -sf nowhere fs:/x/soft
ext "stat /x/soft" fs | grep -o 'Fast link dest.*'
try ln /etc/hosts fs:/x/hard
try ln fs:/etc/hosts fs:/x
try ln -f /etc/hosts fs:/x
try ln -f /etc/hosts fs:/x/soft
try ln other:/etc/hosts fs:/x
try ln /etc fs:/dir
try ln -s a fs:/y
try ln -s a b fs:/x
try ln -s t fs:/way
try ln -sn t fs:/way
try ln -sfn t fs:/way
try ln -sT t fs:/x
try ln -sfT t fs:/x
try ln -s '' fs:/empty
state /etc/hosts fs
list /x fs
list / fs

echo "-- mv"
try mv fs:/x/hosts /x/renamed
try mv fs:/x/renamed fs:/x/hard
try mv fs:/x fs:/x/y
try mv fs:/m fs:/n fs:/p
try mv fs:/p/m fs:/nowhere
try mv fs:/p/m other:/m
try mv -nT fs:/x/a fs:/x/b
try mv -T fs:/etc fs:/p/q
try mv -T fs:/p/q/r fs:/p/n
try mv fs:/gone fs:/x
try mv fs:/ fs:/x
list /p fs

echo "-- rm"
try rm fs:/full
try rm -d fs:/full
try rm fs:/etc/link fs:/gone fs:/x/a
try rm -f fs:/gone fs:/not/there
try rm -r fs:/way/
try rm -rf fs:/full fs:/ fs:/p/.. fs:/etc/.
try rm -d fs:/nowhere fs:/p/q
try rm fs:/x/hard fs:/x/renamed fs:/x/soft
try rm -R fs:/x
state /etc/hosts fs
list / fs
sound fs

echo "-- what is no place"
try rm fs
try rm
try ln x
try mv fs:/x
try mkdir gone:/x
try mkdir -q fs:/x

echo "-- several need a directory"
try ln -s a b fs:/several
try ln -sT a b fs:/new
try mv fs:/way fs:/etc/hosts fs:/several
try mv -T fs:/way fs:/etc/hosts fs:/new
try mv fs:/way fs:/etc/hosts fs:/new
list /new fs
sound fs
