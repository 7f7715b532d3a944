# SPDX-License-Identifier: GPL-2.0-or-later
# info: one image, its chain, both forms; and no other file unless it is asked for.
img create -q -f qcow2 -o compat=v2 base.qcow2 1G
img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
img info top.qcow2 | sed 's/^disk size: .*/disk size: N/'
img info --backing-chain top.qcow2 | grep image:
img info --output=json --backing-chain top.qcow2 | sed 's/"actual-size": .*/"actual-size": N,/'
rm base.qcow2
img info top.qcow2 | grep backing
img info --backing-chain top.qcow2
img info --untrusted --backing-chain top.qcow2
echo "exit $?"
