# SPDX-License-Identifier: GPL-2.0-or-later
# create -o: the list of a format, defaults, and values that do not fit.
img create -f qcow2 -o help
img create -o help new.raw
img create -f qcow2 -o compat=v3,lazy_refcounts=on -o cluster_size=128k a.qcow2 1M
img create -f qcow2 -o refcount_bits=3 b.qcow2 1M
img create -f qcow2 -o lazy_refcounts=maybe b.qcow2 1M
img create -f qcow2 -o , b.qcow2 1M
img create -f qcow2 -o size=1M b.qcow2 1M
img create -f what b 1M
