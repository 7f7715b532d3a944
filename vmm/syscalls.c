/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls of a cell: a table of what is allowed, one small handler each. Numbers, arguments
 * and structures are those of Linux on x86-64.
 *
 * Addresses are checked by guest_read and guest_write; structures are copied out before they are
 * looked at. Lengths of one transfer are cut to TRANSFER_MAX, as Linux cuts them. Data of disks
 * moves straight between the guest's memory and the io.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/cell_impl.h"

#define TRANSFER_MAX (UINT64_C(64) << 20)
#define IOV_LIMIT    64u
#define ZERO_STEP    GiB

/* The arguments of a call. */
#define A(n) (regs->arg[n])

static struct cell_file *file_of(struct cell *cell, uint64_t fd, enum cell_file_kind kind)
{
	struct cell_file *f = fd < CELL_FILES ? &cell->files[fd] : NULL;

	return f && f->kind == kind ? f : NULL;
}

static int copy_out(struct cell *cell, uint64_t at, const void *p, size_t n)
{
	void *to = guest_write(&cell->mem, at, n);

	if (!to)
		return -EFAULT;
	memcpy(to, p, n);
	return 0;
}

/* ---- streams and disks ---- */

static int64_t disk_read(struct cell *cell, const struct cell_file *f, uint64_t at, uint64_t n,
			 uint64_t off)
{
	uint64_t size = io_size(f->io);
	void *to;

	if (off >= size)
		return 0;
	n = min_u64(min_u64(n, TRANSFER_MAX), size - off);
	to = guest_write(&cell->mem, at, n);
	if (!to)
		return -EFAULT;
	int r = io_pread(f->io, to, n, off, NULL);
	return r < 0 ? r : (int64_t)n;
}

static int64_t disk_write(struct cell *cell, const struct cell_file *f, uint64_t at, uint64_t n,
			  uint64_t off)
{
	uint64_t size = io_size(f->io);
	const void *from;

	if (off >= size)
		return n ? -ENOSPC : 0;
	n = min_u64(min_u64(n, TRANSFER_MAX), size - off);
	from = guest_read(&cell->mem, at, n);
	if (!from)
		return -EFAULT;
	int r = io_pwrite(f->io, from, n, off, NULL);
	return r < 0 ? r : (int64_t)n;
}

static int64_t stream_read(struct cell *cell, const struct cell_file *f, uint64_t at, uint64_t n)
{
	void *to;
	ssize_t r;

	n = min_u64(n, TRANSFER_MAX);
	to = guest_write(&cell->mem, at, n);
	if (!to)
		return -EFAULT;
	do
		r = read(f->fd, to, n);
	while (r < 0 && errno == EINTR && !atomic_load(&cell->stop));
	return r < 0 ? -errno : r;
}

static int64_t stream_write(struct cell *cell, const struct cell_file *f, uint64_t at, uint64_t n)
{
	const void *from;
	ssize_t r;

	n = min_u64(n, TRANSFER_MAX);
	from = guest_read(&cell->mem, at, n);
	if (!from)
		return -EFAULT;
	if (f->kind == CELL_LOG) {
		uint64_t len = min_u64(n, cell->log_left);

		cell->log_left -= len;
		if (cell->log && len)
			cell->log(cell->log_arg, from, len);
		return (int64_t)n;
	}
	do
		r = write(f->fd, from, n);
	while (r < 0 && errno == EINTR && !atomic_load(&cell->stop));
	return r < 0 ? -errno : r;
}

static int64_t call_read(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_STREAM_IN);
	int64_t r;

	if (f)
		return stream_read(cell, f, A(1), A(2));
	if (file_of(cell, A(0), CELL_NULL))
		return 0;
	f = file_of(cell, A(0), CELL_DISK);
	if (!f)
		return -EBADF;
	r = disk_read(cell, f, A(1), A(2), cell->disk_pos[A(0)]);
	cell->disk_pos[A(0)] += r > 0 ? (uint64_t)r : 0;
	return r;
}

static int64_t write_to(struct cell *cell, uint64_t fd, uint64_t at, uint64_t n)
{
	const struct cell_file *f = file_of(cell, fd, CELL_DISK);
	int64_t r;

	if (f) {
		r = disk_write(cell, f, at, n, cell->disk_pos[fd]);
		cell->disk_pos[fd] += r > 0 ? (uint64_t)r : 0;
		return r;
	}
	if (file_of(cell, fd, CELL_NULL))
		return (int64_t)min_u64(n, TRANSFER_MAX);
	f = file_of(cell, fd, CELL_STREAM_OUT);
	if (!f)
		f = file_of(cell, fd, CELL_LOG);
	return f ? stream_write(cell, f, at, n) : -EBADF;
}

static int64_t call_write(struct cell *cell, const struct call_regs *regs)
{
	return write_to(cell, A(0), A(1), A(2));
}

static int64_t call_writev(struct cell *cell, const struct call_regs *regs)
{
	struct iovec iov[IOV_LIMIT];
	int64_t total = 0;
	const void *p;

	if (A(2) > IOV_LIMIT)
		return -EINVAL;
	p = guest_read(&cell->mem, A(1), A(2) * sizeof(*iov));
	if (!p)
		return -EFAULT;
	memcpy(iov, p, A(2) * sizeof(*iov));
	for (uint64_t i = 0; i < A(2); i++) {
		int64_t r;

		if (!iov[i].iov_len)
			continue;
		r = write_to(cell, A(0), (uintptr_t)iov[i].iov_base, iov[i].iov_len);
		if (r < 0)
			return total ? total : r;
		total += r;
		if ((uint64_t)r < iov[i].iov_len)
			break;
	}
	return total;
}

static int64_t call_pread64(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_DISK);

	if (!f)
		return file_of(cell, A(0), CELL_STREAM_IN) ? -ESPIPE : -EBADF;
	return disk_read(cell, f, A(1), A(2), A(3));
}

static int64_t call_pwrite64(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_DISK);

	if (!f)
		return -EBADF;
	return disk_write(cell, f, A(1), A(2), A(3));
}

static int64_t call_fsync(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_DISK);

	if (!f)
		return -EBADF;
	return f->io->caps & IO_RDONLY ? 0 : io_flush(f->io, NULL);
}

/* In steps, between which the cell can be stopped: a disk can be larger than anybody's patience. */
static int zero_disk(struct cell *cell, struct io *io, uint64_t off, uint64_t len, unsigned flags)
{
	int r = 0;

	while (len && !r) {
		uint64_t n = min_u64(len, ZERO_STEP);

		if (atomic_load(&cell->stop) || atomic_load(&cell->timeout))
			return -EINTR;
		r = io_zero(io, off, n, flags, NULL);
		off += n;
		len -= n;
	}
	return r;
}

static int64_t call_fallocate(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_DISK);
	uint64_t off = A(2), len = A(3), end;

	if (!f)
		return -EBADF;
	if (!len || !add_ok(off, len, &end) || end > io_size(f->io))
		return -EINVAL;
	if (A(1) == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return zero_disk(cell, f->io, off, len, IO_ZERO_UNMAP);
	if ((A(1) & ~(uint64_t)FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE)
		return zero_disk(cell, f->io, off, len, 0);
	return -EOPNOTSUPP;
}

static int64_t call_lseek(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = file_of(cell, A(0), CELL_DISK);
	uint64_t base, to;

	if (!f)
		return A(0) < CELL_FILES && cell->files[A(0)].kind ? -ESPIPE : -EBADF;
	switch ((int)A(2)) {
	case SEEK_SET:
		base = 0;
		break;
	case SEEK_CUR:
		base = cell->disk_pos[A(0)];
		break;
	case SEEK_END:
		base = io_size(f->io);
		break;
	default:
		return -EINVAL;
	}
	to = base + A(1);
	if ((int64_t)to < 0)
		return -EINVAL;
	cell->disk_pos[A(0)] = to;
	return (int64_t)to;
}

static int64_t call_poll(struct cell *cell, const struct call_regs *regs)
{
	struct pollfd guest, host;
	const void *p = A(1) == 1 ? guest_read(&cell->mem, A(0), sizeof(guest)) : NULL;
	const struct cell_file *f;
	int r;

	if (!p)
		return A(1) == 1 ? -EFAULT : -EINVAL;
	memcpy(&guest, p, sizeof(guest));
	f = file_of(cell, (uint64_t)guest.fd, CELL_STREAM_IN);
	if (!f)
		return -EINVAL;
	host = (struct pollfd){.fd = f->fd, .events = guest.events};
	do
		r = poll(&host, 1, (int)A(2));
	while (r < 0 && errno == EINTR && !atomic_load(&cell->stop));
	if (r < 0)
		return -errno;
	guest.revents = host.revents;
	return copy_out(cell, A(0), &guest, sizeof(guest)) < 0 ? -EFAULT : r;
}

/* ---- what a file is ---- */

static int64_t stat_file(struct cell *cell, uint64_t fd, uint64_t to)
{
	const struct cell_file *f = fd < CELL_FILES ? &cell->files[fd] : NULL;
	struct stat st = {.st_blksize = 4096, .st_nlink = 1};

	if (!f || f->kind == CELL_NONE)
		return -EBADF;
	st.st_ino = fd + 1;
	if (f->kind == CELL_DISK) {
		st.st_mode = S_IFREG | 0600;
		st.st_size = (off_t)io_size(f->io);
		st.st_blocks = st.st_size / 512;
	} else {
		st.st_mode = S_IFIFO | 0600;
	}
	return copy_out(cell, to, &st, sizeof(st));
}

static int64_t call_fstat(struct cell *cell, const struct call_regs *regs)
{
	return stat_file(cell, A(0), A(1));
}

/* The file descriptor of the file that has this path, or -ENOENT. */
static int64_t find_path(struct cell *cell, uint64_t at)
{
	const char *path = guest_string(&cell->mem, at, 4096);

	if (!path)
		return -EFAULT;
	for (unsigned fd = 0; fd < CELL_FILES; fd++) {
		const struct cell_file *f = &cell->files[fd];

		if (f->kind != CELL_NONE && f->path && !strcmp(f->path, path))
			return fd;
	}
	return -ENOENT;
}

static int64_t call_newfstatat(struct cell *cell, const struct call_regs *regs)
{
	const char *path = guest_string(&cell->mem, A(1), 4096);
	int64_t fd;

	if (!path)
		return -EFAULT;
	if (!*path && (A(3) & AT_EMPTY_PATH))
		return stat_file(cell, A(0), A(2));
	fd = find_path(cell, A(1));
	return fd < 0 ? fd : stat_file(cell, (uint64_t)fd, A(2));
}

static int64_t call_stat(struct cell *cell, const struct call_regs *regs)
{
	int64_t fd = find_path(cell, A(0));

	return fd < 0 ? fd : stat_file(cell, (uint64_t)fd, A(1));
}

static int64_t open_path(struct cell *cell, uint64_t path, uint64_t flags)
{
	int64_t fd = find_path(cell, path);

	if (fd < 0)
		return fd;
	if ((flags & O_ACCMODE) != O_RDONLY && cell->files[fd].kind == CELL_DISK &&
	    (cell->files[fd].io->caps & IO_RDONLY))
		return -EROFS;
	cell->disk_pos[fd] = 0;
	return fd;
}

static int64_t call_open(struct cell *cell, const struct call_regs *regs)
{
	return open_path(cell, A(0), A(1));
}

static int64_t call_openat(struct cell *cell, const struct call_regs *regs)
{
	return open_path(cell, A(1), A(2));
}

static int64_t call_access(struct cell *cell, const struct call_regs *regs)
{
	int64_t fd = find_path(cell, A(0));

	return fd < 0 ? fd : 0;
}

static int64_t call_fcntl(struct cell *cell, const struct call_regs *regs)
{
	const struct cell_file *f = A(0) < CELL_FILES ? &cell->files[A(0)] : NULL;

	if (!f || f->kind == CELL_NONE)
		return -EBADF;
	if (A(1) == F_GETFL)
		return f->kind == CELL_DISK && (f->io->caps & IO_RDONLY) ? O_RDONLY : O_RDWR;
	return A(1) == F_GETFD || A(1) == F_SETFD ? 0 : -EINVAL;
}

/* ---- memory ---- */

static void note_memory(struct cell *cell)
{
	uint64_t used = cell->mem.brk - cell->mem.arena + cell->mem.arena_end - cell->mem.low;

	cell->result.memory_top = max_u64(cell->result.memory_top, used);
}

static int64_t call_brk(struct cell *cell, const struct call_regs *regs)
{
	int64_t r = guest_brk(&cell->mem, A(0));

	note_memory(cell);
	return r;
}

#define GUEST_MAP_FIXED     0x10u
#define GUEST_MAP_ANONYMOUS 0x20u
#define GUEST_PROT_EXEC     0x4u

static int64_t call_mmap(struct cell *cell, const struct call_regs *regs)
{
	int64_t r;

	if (!(A(3) & GUEST_MAP_ANONYMOUS))
		return -ENODEV;
	if (A(2) & GUEST_PROT_EXEC)
		return -EPERM;
	r = guest_mmap(&cell->mem, A(0), A(1), A(3) & GUEST_MAP_FIXED);
	note_memory(cell);
	return r;
}

static int64_t call_munmap(struct cell *cell, const struct call_regs *regs)
{
	return guest_munmap(&cell->mem, A(0), A(1));
}

static int64_t call_mremap(struct cell *cell, const struct call_regs *regs)
{
	uint64_t old = round_up(A(1), CELL_PAGE);
	const void *from = guest_read(&cell->mem, A(0), old);
	int64_t to;

	if (!from || A(1) > cell->mem.size || A(2) > cell->mem.size)
		return -EFAULT;
	if (A(2) <= A(1)) {
		uint64_t keep = round_up(A(2), CELL_PAGE);

		if (keep < old)
			guest_munmap(&cell->mem, A(0) + keep, old - keep);
		return (int64_t)A(0);
	}
	if (!(A(3) & 1)) /* MREMAP_MAYMOVE */
		return -ENOMEM;
	to = guest_mmap(&cell->mem, 0, A(2), false);
	if (to < 0)
		return to;
	memmove(cell->mem.host + to, from, old); /* what the program calls old may be free */
	guest_munmap(&cell->mem, A(0), old);
	note_memory(cell);
	return to;
}

/* Page tables never change, so this is a promise that nobody keeps: but never more rights. */
static int64_t call_mprotect(struct cell *cell, const struct call_regs *regs)
{
	(void)cell;
	return A(2) & GUEST_PROT_EXEC ? -EPERM : 0;
}

/* ---- the process ---- */

static int64_t finish(struct cell *cell, enum cell_end how, int status)
{
	cell->result.end = how;
	cell->result.status = status;
	cell->ended = true;
	return 0;
}

static int64_t call_exit(struct cell *cell, const struct call_regs *regs)
{
	return finish(cell, CELL_EXITED, (int)(A(0) & 255));
}

static int64_t call_kill(struct cell *cell, const struct call_regs *regs)
{
	uint64_t sig = regs->nr == SYS_tgkill ? A(2) : A(1);

	return sig ? finish(cell, CELL_KILLED, (int)(sig & 127)) : 0;
}

static int64_t call_arch_prctl(struct cell *cell, const struct call_regs *regs)
{
	if (A(0) != ARCH_SET_FS)
		return -EINVAL;
	if (A(1) >= cell->mem.size)
		return -EPERM;
	return cell->engine->ops->set_fs(cell->engine, A(1), NULL);
}

static int64_t call_prlimit64(struct cell *cell, const struct call_regs *regs)
{
	const struct rlimit stack = {CELL_STACK, CELL_STACK};
	const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};

	if (A(2) || !A(3))
		return A(2) ? -EPERM : 0;
	return copy_out(cell, A(3), A(1) == RLIMIT_STACK ? &stack : &none, sizeof(none));
}

static int64_t call_uname(struct cell *cell, const struct call_regs *regs)
{
	/* glibc refuses to start on a kernel that is too old for it. */
	const struct utsname name = {
		.sysname = "Linux", .nodename = "cell", .release = "6.1.0", .machine = "x86_64"};

	return copy_out(cell, A(0), &name, sizeof(name));
}

static int64_t call_sysinfo(struct cell *cell, const struct call_regs *regs)
{
	struct sysinfo info;

	memset(&info, 0, sizeof(info)); /* it has gaps */
	info.totalram = cell->mem.arena_end - cell->mem.arena;
	info.freeram = cell->mem.low - cell->mem.brk;
	info.procs = 1;
	info.mem_unit = 1;
	return copy_out(cell, A(0), &info, sizeof(info));
}

static int64_t call_clock_gettime(struct cell *cell, const struct call_regs *regs)
{
	struct timespec t;

	if (A(0) != CLOCK_REALTIME && A(0) != CLOCK_MONOTONIC && A(0) != CLOCK_PROCESS_CPUTIME_ID &&
	    A(0) != CLOCK_REALTIME_COARSE && A(0) != CLOCK_MONOTONIC_COARSE)
		return -EINVAL;
	if (clock_gettime((clockid_t)A(0), &t) < 0)
		return -errno;
	return copy_out(cell, A(1), &t, sizeof(t));
}

static int64_t call_gettimeofday(struct cell *cell, const struct call_regs *regs)
{
	struct timespec t;
	struct timeval tv;

	clock_gettime(CLOCK_REALTIME, &t);
	tv = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
	return A(0) ? copy_out(cell, A(0), &tv, sizeof(tv)) : 0;
}

static int64_t call_time(struct cell *cell, const struct call_regs *regs)
{
	struct timespec t;
	int64_t sec;

	clock_gettime(CLOCK_REALTIME, &t);
	sec = t.tv_sec;
	return A(0) && copy_out(cell, A(0), &sec, sizeof(sec)) < 0 ? -EFAULT : sec;
}

static int64_t call_getrandom(struct cell *cell, const struct call_regs *regs)
{
	uint64_t n = min_u64(A(1), 256);
	void *to = guest_write(&cell->mem, A(0), n);

	if (!to)
		return -EFAULT;
	return getrandom(to, n, 0) == (ssize_t)n ? (int64_t)n : -EAGAIN;
}

/* One CPU: a program that sees more makes threads, which there are not. */
static int64_t call_sched_getaffinity(struct cell *cell, const struct call_regs *regs)
{
	const uint64_t mask = 1;

	if (A(1) < sizeof(mask))
		return -EINVAL;
	return copy_out(cell, A(2), &mask, sizeof(mask)) < 0 ? -EFAULT : (int64_t)sizeof(mask);
}

static int64_t call_getrusage(struct cell *cell, const struct call_regs *regs)
{
	const struct rusage none = {0};

	return copy_out(cell, A(1), &none, sizeof(none));
}

/* Answers that are always the same. */
#define SAYS(name, answer)                                                   \
	static int64_t name(struct cell *cell, const struct call_regs *regs) \
	{                                                                    \
		(void)cell;                                                  \
		(void)regs;                                                  \
		return answer;                                               \
	}

SAYS(say_zero, 0)
SAYS(say_one, 1)
SAYS(say_noent, -ENOENT)
SAYS(say_notty, -ENOTTY)
SAYS(say_nosys, -ENOSYS)
SAYS(say_perm, -EPERM)

typedef int64_t call_fn(struct cell *, const struct call_regs *);

/* All that is allowed. Anything else ends the cell: it is not what the agent does. */
static call_fn *const calls[] = {
	/* files */
	[SYS_read] = call_read,
	[SYS_write] = call_write,
	[SYS_writev] = call_writev,
	[SYS_pread64] = call_pread64,
	[SYS_pwrite64] = call_pwrite64,
	[SYS_fsync] = call_fsync,
	[SYS_fdatasync] = call_fsync,
	[SYS_fallocate] = call_fallocate,
	[SYS_lseek] = call_lseek,
	[SYS_poll] = call_poll,
	[SYS_fstat] = call_fstat,
	[SYS_newfstatat] = call_newfstatat,
	[SYS_stat] = call_stat,
	[SYS_open] = call_open,
	[SYS_openat] = call_openat,
	[SYS_access] = call_access,
	[SYS_fcntl] = call_fcntl,
	[SYS_close] = say_zero,
	[SYS_ioctl] = say_notty,
	[SYS_readlink] = say_noent,
	[SYS_fadvise64] = say_zero,
	[SYS_ftruncate] = say_perm,
	/* memory */
	[SYS_brk] = call_brk,
	[SYS_mmap] = call_mmap,
	[SYS_munmap] = call_munmap,
	[SYS_mremap] = call_mremap,
	[SYS_mprotect] = call_mprotect,
	[SYS_madvise] = say_zero,
	/* the process */
	[SYS_exit] = call_exit,
	[SYS_exit_group] = call_exit,
	[SYS_tgkill] = call_kill,
	[SYS_kill] = call_kill,
	[SYS_arch_prctl] = call_arch_prctl,
	[SYS_set_tid_address] = say_one,
	[SYS_set_robust_list] = say_zero,
	[SYS_rseq] = say_nosys,
	[SYS_rt_sigaction] = say_zero,
	[SYS_rt_sigprocmask] = say_zero,
	[SYS_prlimit64] = call_prlimit64,
	[SYS_prctl] = say_zero,
	[SYS_getpid] = say_one,
	[SYS_gettid] = say_one,
	[SYS_getuid] = say_zero,
	[SYS_geteuid] = say_zero,
	[SYS_getgid] = say_zero,
	[SYS_getegid] = say_zero,
	[SYS_getrusage] = call_getrusage,
	[SYS_sched_getaffinity] = call_sched_getaffinity,
	[SYS_uname] = call_uname,
	[SYS_sysinfo] = call_sysinfo,
	/* time and chance */
	[SYS_clock_gettime] = call_clock_gettime,
	[SYS_gettimeofday] = call_gettimeofday,
	[SYS_time] = call_time,
	[SYS_getrandom] = call_getrandom,
};

int64_t cell_call(struct cell *cell, const struct call_regs *regs)
{
	call_fn *fn = regs->nr < ARRAY_LEN(calls) ? calls[regs->nr] : NULL;

	if (!fn)
		return finish(cell, CELL_REFUSED, (int)min_u64(regs->nr, INT32_MAX));
	return fn(cell, regs);
}
