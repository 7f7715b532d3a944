// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Formats of others that we know by their first bytes only: what begins like one of them is not
 * taken for raw, and a disk that was taken for raw is not given such a beginning. The list is that
 * of QEMU's probing (block/{vmdk,vhdx,vpc,vdi,qed,parallels,bochs,cloop}.c, block/crypto.c).
 */
#include <string.h>

#include "base/bytes.h"
#include "image/img.h"

#define MAGIC(text) .magic = (text), .len = sizeof(text) - 1

static const struct {
	const char *name;
	size_t at; /* byte in the file */
	const char *magic;
	size_t len;
} foreign[] = {
	{.name = "VMDK", MAGIC("KDMV")},
	{.name = "VMDK", MAGIC("COWD")},
	{.name = "VMDK", MAGIC("# Disk DescriptorFile")},
	{.name = "VMDK", MAGIC("\xbe\xba\xfe\xca\0\0\0\0")}, /* SESPARSE */
	{.name = "VHDX", MAGIC("vhdxfile")},
	{.name = "VHD", MAGIC("conectix")},
	{.name = "VDI", .at = 64, MAGIC("\x7f\x10\xda\xbe")},
	{.name = "QED", MAGIC("QED\0")},
	{.name = "LUKS", MAGIC("LUKS\xba\xbe")},
	{.name = "Parallels", MAGIC("WithoutFreeSpace")},
	{.name = "Parallels", MAGIC("WithouFreSpacExt")},
	{.name = "Bochs", MAGIC("Bochs Virtual HD Image")},
	{.name = "cloop", MAGIC("#!/bin/sh\n#V2.0 Format\n")},
};

const char *format_foreign(const struct probe *probe)
{
	for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
		if (foreign[i].at + foreign[i].len <= probe->head_len &&
		    memcmp(probe->head + foreign[i].at, foreign[i].magic, foreign[i].len) == 0)
			return foreign[i].name;
	}
	return NULL;
}
