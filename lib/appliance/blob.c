/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's program, carried in the library: a program of its own (GPL), loaded into a cell and
 * never linked with what carries it.
 */
#include "appliance/blob.h"

__asm__(".pushsection .rodata.agent,\"a\",@progbits\n"
	".balign 4096\n"
	".hidden agent_blob_start, agent_blob_end\n"
	".global agent_blob_start, agent_blob_end\n"
	"agent_blob_start:\n"
	".incbin \"build/agent/agent.stripped\"\n"
	"agent_blob_end:\n"
	".popsection\n");
extern const unsigned char agent_blob_start[] __attribute__((visibility("hidden")));
extern const unsigned char agent_blob_end[] __attribute__((visibility("hidden")));

const void *agent_blob(size_t *size)
{
	*size = (size_t)(agent_blob_end - agent_blob_start);
	return agent_blob_start;
}
