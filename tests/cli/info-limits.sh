# SPDX-License-Identifier: GPL-2.0-or-later
# info --limits: alignments of the format, and of the file under the cache mode.
page=$(getconf PAGE_SIZE)
shown() { sed "s/mem-alignment\": $page/mem-alignment\": PAGE/; s/mem alignment: $page/mem alignment: PAGE/"; }
img create -q -f raw disk.raw 1M
img create -q -f qcow2 -o cluster_size=4k -b disk.raw -F raw disk.qcow2
img info --limits disk.qcow2 | sed -n '/^Block limits/,/^Format/p' | shown
img info --limits --output=json disk.qcow2 | sed -n '/"limits"/,/}/p' | shown
img info --limits --output=json disk.raw | sed -n '/"limits"/,/}/p' | shown
img info --limits --backing-chain disk.qcow2 | grep -c 'Block limits'
img info disk.qcow2 | grep -c limits || true
