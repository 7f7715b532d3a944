/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libext2fs's way to the disk: an io_manager over the cache of the volume.
 *
 * The library opens a channel by a name only, so the name carries the address of the mount. It
 * speaks of blocks of a size that it changes as it goes; the cache speaks of bytes. Why a request
 * failed is kept in the mount, because the library carries a number only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"

static struct ext *mount_of(io_channel channel)
{
	return channel->private_data;
}

static errcode_t manager_open(const char *name, int flags, io_channel *out)
{
	io_channel channel = calloc(1, sizeof(*channel));

	(void)flags;
	if (!channel)
		return ENOMEM;
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = ext_manager();
	channel->name = strdup(name);
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = (void *)(uintptr_t)strtoull(name, NULL, 16);
	if (!channel->name) {
		free(channel);
		return ENOMEM;
	}
	*out = channel;
	return 0;
}

static errcode_t manager_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t manager_set_blksize(io_channel channel, int size)
{
	channel->block_size = size;
	return 0;
}

/* count: blocks, or when negative bytes. */
static bool request_of(io_channel channel, unsigned long long block, int count, uint64_t *off,
		       size_t *len)
{
	uint64_t bs = (uint64_t)channel->block_size;

	*len = count < 0 ? (size_t) - (int64_t)count : (size_t)count * bs;
	return mul_ok(block, bs, off);
}

static errcode_t manager_read(io_channel channel, unsigned long long block, int count, void *data)
{
	struct ext *x = mount_of(channel);
	uint64_t off;
	size_t len;

	if (!request_of(channel, block, count, &off, &len))
		return EXT2_ET_BAD_BLOCK_NUM;
	return -cache_read(x->cache, data, len, off, &x->io_err);
}

static errcode_t manager_write(io_channel channel, unsigned long long block, int count,
			       const void *data)
{
	struct ext *x = mount_of(channel);
	uint64_t off;
	size_t len;

	if (!request_of(channel, block, count, &off, &len))
		return EXT2_ET_BAD_BLOCK_NUM;
	return -cache_write(x->cache, data, len, off, &x->io_err);
}

static errcode_t manager_read32(io_channel channel, unsigned long block, int count, void *data)
{
	return manager_read(channel, block, count, data);
}

static errcode_t manager_write32(io_channel channel, unsigned long block, int count,
				 const void *data)
{
	return manager_write(channel, block, count, data);
}

static errcode_t manager_flush(io_channel channel)
{
	struct ext *x = mount_of(channel);

	return -cache_flush(x->cache, &x->io_err);
}

static errcode_t manager_zeroout(io_channel channel, unsigned long long block,
				 unsigned long long count)
{
	struct ext *x = mount_of(channel);
	uint64_t off, len, bs = (uint64_t)channel->block_size;

	if (!mul_ok(block, bs, &off) || !mul_ok(count, bs, &len))
		return EXT2_ET_BAD_BLOCK_NUM;
	return -cache_zero(x->cache, off, len, &x->io_err);
}

static errcode_t manager_set_option(io_channel channel, const char *option, const char *arg)
{
	(void)channel;
	(void)option;
	(void)arg;
	return EXT2_ET_INVALID_ARGUMENT;
}

io_manager ext_manager(void)
{
	/* Not const in the library's types only: nothing writes to it. */
	static struct struct_io_manager manager = {
		.magic = EXT2_ET_MAGIC_IO_MANAGER,
		.name = "cache",
		.open = manager_open,
		.close = manager_close,
		.set_blksize = manager_set_blksize,
		.read_blk = manager_read32,
		.write_blk = manager_write32,
		.flush = manager_flush,
		.set_option = manager_set_option,
		.read_blk64 = manager_read,
		.write_blk64 = manager_write,
		.zeroout = manager_zeroout,
	};

	return &manager;
}
