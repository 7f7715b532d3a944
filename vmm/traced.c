/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of a cell that is an ordinary process, for hosts without usable KVM.
 *
 * The program runs in a child that has nothing: its address space is the cell's memory at the
 * addresses that it has in a VM, and no file descriptor is open. It is traced with PTRACE_SYSEMU,
 * so none of its system calls ever reaches the kernel: each one stops it, and is answered by the
 * table that serves a VM. A seccomp filter that kills at any call is the second lock, and
 * PTRACE_O_EXITKILL the third: without its tracer the child is dead.
 *
 * Start: the child maps the cell's memory and stops; from then on the tracer lets it make a few
 * calls at a stub in that memory: they unmap all else and set the filter.
 */
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/engine.h"

/* The stub's page, in the part of memory that belongs to no region. */
#define STUB      CELL_SYSTEM
#define USER_TOP  UINT64_C(0x7ffffffff000)
#define VSYSCALL  UINT64_C(0xffffffffff600000) /* of the kernel: it cannot be unmapped */
#define CALL_STOP (SIGTRAP | 0x80)
#define XSAVE_MAX 16384

static const unsigned char stub[] = {0x0f, 0x05, 0xcc}; /* syscall; int3 */

struct traced {
	struct engine engine;
	struct guest_memory *mem;
	pid_t pid;
	int pidfd;
	struct user_regs_struct regs; /* of the stopped child */
	bool changed;                 /* regs are to be written back */
	bool running;                 /* it was not seen to stop yet */
	bool in_call;
};

static struct traced *of(struct engine *engine)
{
	return container_of(engine, struct traced, engine);
}

/* ---- the child ---- */

static bool map_part(const struct guest_memory *mem, uint64_t start, uint64_t len, unsigned prot)
{
	int bits = (prot & PROT_R ? PROT_READ : 0) | (prot & PROT_W ? PROT_WRITE : 0) |
		   (prot & PROT_X ? PROT_EXEC : 0);
	void *at = (void *)(uintptr_t)start; // NOLINT: the guest's address

	return mmap(at, len, bits, MAP_SHARED | MAP_FIXED_NOREPLACE, mem->fd, (off_t)start) == at;
}

/*
 * glibc told the kernel of an area in thread-local storage to be written when the thread is
 * scheduled: it must not be any more when that memory is gone.
 */
static bool leave_rseq(void)
{
	void *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	return !__rseq_size ||
	       syscall(SYS_rseq, area, sizeof(struct rseq), RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0;
}

/* Only async-signal-safe calls; its tracer takes over at the stop. */
static _Noreturn void child(const struct guest_memory *mem)
{
	const struct rlimit none = {0, 0};
	bool fine = map_part(mem, STUB, CELL_PAGE, PROT_R | PROT_X);

	for (unsigned i = 0; i < mem->n_regions && fine; i++) {
		const struct guest_region *r = &mem->regions[i];

		fine = map_part(mem, r->start, r->end - r->start, r->prot);
	}
	setrlimit(RLIMIT_CORE, &none);
	if (fine && leave_rseq() && close_range(0, ~0u, 0) == 0 &&
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGSTOP);
	_exit(1);
}

/* ---- the tracer ---- */

static int broken(struct err *err, const char *what)
{
	return err_sys(err, errno, "the cell's process: %s", what);
}

/* Waits for the next stop. The signal, or a negative errno; -EINTR is passed on. */
static int wait_stop(struct traced *t, struct err *err)
{
	int status;

	if (waitpid(t->pid, &status, __WALL) < 0)
		return errno == EINTR ? -EINTR : broken(err, "cannot wait for it");
	if (!WIFSTOPPED(status)) {
		t->pid = -1;
		/* The filter's work. The only call that does not stop is one of the vsyscall page. */
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
			return SIGSYS;
		return err_set(err, EIO, "the cell's process ended by itself (signal %d)",
			       WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	t->running = false;
	return WSTOPSIG(status);
}

static int get_regs(struct traced *t, struct err *err)
{
	if (ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs) < 0)
		return broken(err, "cannot read its registers");
	/* Of no use in 64-bit code, and PTRACE_SETREGS does not take all that a processor takes. A
	 * parent that has run a VM may have odd ones, too. */
	t->regs.ds = t->regs.es = t->regs.fs = t->regs.gs = 0;
	return 0;
}

/* Lets the stopped child make one system call at the stub. */
static int64_t remote_call(struct traced *t, uint64_t nr, uint64_t a, uint64_t b, uint64_t c,
			   struct err *err)
{
	struct user_regs_struct r = t->regs;
	int sig;

	r.rip = STUB;
	r.rax = nr;
	r.orig_rax = UINT64_MAX;
	r.rdi = a;
	r.rsi = b;
	r.rdx = c;
	if (ptrace(PTRACE_SETREGS, t->pid, NULL, &r) < 0 ||
	    ptrace(PTRACE_CONT, t->pid, NULL, NULL) < 0)
		return broken(err, "cannot run it");
	do
		sig = wait_stop(t, err);
	while (sig == -EINTR);
	if (sig < 0)
		return sig;
	if (sig != SIGTRAP || ptrace(PTRACE_GETREGS, t->pid, NULL, &r) < 0)
		return err_set(err, EIO, "the cell's process stopped with signal %d", sig);
	if ((int64_t)r.rax < 0)
		return err_sys(err, -(int)r.rax, "the cell's process: system call %u",
			       (unsigned)nr);
	return 0;
}

/* Everything that is not the cell's memory. */
static int64_t unmap_rest(struct traced *t, struct err *err)
{
	uint64_t at = STUB + CELL_PAGE;
	int64_t r = remote_call(t, SYS_munmap, 0, STUB, 0, err);

	/* Regions are few and in no order: the next one up, until none is left. */
	while (!r) {
		const struct guest_region *next = NULL;

		for (unsigned i = 0; i < t->mem->n_regions; i++) {
			const struct guest_region *g = &t->mem->regions[i];

			if (g->start >= at && (!next || g->start < next->start))
				next = g;
		}
		uint64_t end = next ? next->start : USER_TOP;

		if (end > at)
			r = remote_call(t, SYS_munmap, at, end - at, 0, err);
		if (!next)
			break;
		at = next->end;
	}
	return r;
}

/* From here on any system call that is not traced kills the child. */
static int64_t set_filter(struct traced *t, struct err *err)
{
	const struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	/* In the arena for a moment, at addresses that the child understands. */
	uint64_t at = t->mem->arena;
	const struct sock_fprog prog = {.len = 1, .filter = (void *)(uintptr_t)(at + 64)}; // NOLINT
	int64_t r;

	memcpy(t->mem->host + at, &prog, sizeof(prog));
	memcpy(t->mem->host + at + 64, &kill, sizeof(kill));
	r = remote_call(t, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, at, err);
	memset(t->mem->host + at, 0, 64 + sizeof(kill));
	return r;
}

/* The vector registers are as of a new process: what they held is none of the program's business. */
static int clear_vectors(struct traced *t, struct err *err)
{
	static const uint16_t fcw = 0x37f;
	static const uint32_t mxcsr = 0x1f80;
	unsigned char area[XSAVE_MAX];
	struct iovec iov = {area, sizeof(area)};

	if (ptrace(PTRACE_GETREGSET, t->pid, NT_X86_XSTATE, &iov) < 0)
		return broken(err, "cannot read its vector registers");
	/* Intel SDM volume 1, 13.4: no component is in use, and two words are never zero. */
	memset(area, 0, iov.iov_len);
	memcpy(area, &fcw, sizeof(fcw));
	memcpy(area + 24, &mxcsr, sizeof(mxcsr));
	if (ptrace(PTRACE_SETREGSET, t->pid, NT_X86_XSTATE, &iov) < 0)
		return broken(err, "cannot clear its vector registers");
	return 0;
}

static int confine(struct traced *t, struct err *err)
{
	int64_t r;
	int sig;

	do
		sig = wait_stop(t, err);
	while (sig == -EINTR);
	if (sig < 0)
		return sig;
	if (ptrace(PTRACE_SETOPTIONS, t->pid, NULL,
		   (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) < 0) // NOLINT
		return broken(err, "cannot trace it");
	r = get_regs(t, err);
	if (!r)
		r = clear_vectors(t, err);
	if (!r)
		r = unmap_rest(t, err);
	return (int)(r ? r : set_filter(t, err));
}

static void set_start(struct traced *t, const struct elf_start *start)
{
	const struct user_regs_struct old = t->regs;

	t->regs = (struct user_regs_struct){
		.rip = start->rip,
		.rsp = start->rsp,
		.eflags = 0x202,
		.cs = old.cs,
		.ss = old.ss,
		.orig_rax = UINT64_MAX,
	};
	t->changed = true;
}

static void traced_free(struct engine *engine)
{
	struct traced *t = engine ? of(engine) : NULL;
	int status;

	if (!t)
		return;
	if (t->pid > 0 && t->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, t->pidfd, SIGKILL, NULL, 0);
		while (waitpid(t->pid, &status, __WALL) < 0 && errno == EINTR)
			;
	}
	if (t->pidfd >= 0)
		close(t->pidfd);
	free(t);
}

static int traced_start(struct engine **engine, struct guest_memory *mem,
			const struct elf_start *start, struct err *err)
{
	struct traced *t = calloc(1, sizeof(*t));
	int r;

	*engine = NULL;
	if (!t)
		return err_nomem(err, sizeof(*t), "a traced process");
	*t = (struct traced){.engine.ops = &traced_engine, .mem = mem, .pidfd = -1};
	memcpy(mem->host + STUB, stub, sizeof(stub));
	t->pid = fork();
	if (t->pid == 0)
		child(mem);
	if (t->pid > 0)
		t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	r = t->pid < 0 || t->pidfd < 0 ? broken(err, "cannot make it") : confine(t, err);
	if (r < 0) {
		traced_free(&t->engine);
		return r;
	}
	set_start(t, start);
	*engine = &t->engine;
	return 0;
}

/* ---- running ---- */

static int get_fault(struct traced *t, int sig, struct cell_fault *fault, struct err *err)
{
	siginfo_t info;

	if (sig == SIGSYS) {
		*fault = (struct cell_fault){
			.vector = 14, .no_error = true, .rip = VSYSCALL, .address = VSYSCALL};
		return ENGINE_FAULT;
	}
	if (get_regs(t, err) < 0 || ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &info) < 0)
		return broken(err, "cannot tell why it stopped");
	*fault = (struct cell_fault){.rip = t->regs.rip, .rsp = t->regs.rsp, .no_error = true};
	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
		/* What has no address is not a page fault. */
		fault->vector = info.si_code == SI_KERNEL ? 13 : 14;
		fault->address = info.si_code == SI_KERNEL ? 0 : (uintptr_t)info.si_addr;
		break;
	case SIGILL:
		fault->vector = 6;
		break;
	case SIGFPE:
		fault->vector = info.si_code == FPE_INTDIV ? 0 : 16;
		break;
	default:
		fault->vector = info.si_code == TRAP_BRKPT || info.si_code == SI_KERNEL ? 3 : 1;
		break;
	}
	return ENGINE_FAULT;
}

static struct cell_fault protection_fault(const struct traced *t)
{
	return (struct cell_fault){
		.vector = 13, .rip = t->regs.rip, .rsp = t->regs.rsp, .no_error = true};
}

/* A call by `syscall`; by another instruction it is what it is in a VM, a protection fault. */
static int get_call(struct traced *t, struct call_regs *regs, struct cell_fault *fault,
		    struct err *err)
{
	const unsigned char *code;

	if (get_regs(t, err) < 0)
		return -EIO;
	code = guest_read(t->mem, t->regs.rip - 2, 2);
	if (!code || memcmp(code, stub, 2) != 0) {
		*fault = protection_fault(t);
		return ENGINE_FAULT;
	}
	*regs = (struct call_regs){
		.nr = t->regs.orig_rax,
		.arg = {t->regs.rdi, t->regs.rsi, t->regs.rdx, t->regs.r10, t->regs.r8, t->regs.r9},
		.rip = t->regs.rip,
	};
	t->in_call = true;
	return ENGINE_CALL;
}

/* 0, or ENGINE_FAULT: a segment's base is an address of the kernel's. */
static int resume(struct traced *t, struct cell_fault *fault, struct err *err)
{
	if (t->changed && ptrace(PTRACE_SETREGS, t->pid, NULL, &t->regs) < 0) {
		if (errno != EIO)
			return broken(err, "cannot set its registers");
		*fault = protection_fault(t);
		return ENGINE_FAULT;
	}
	if (ptrace(PTRACE_SYSEMU, t->pid, NULL, NULL) < 0)
		return broken(err, "cannot run it");
	t->changed = false;
	t->running = true;
	return 0;
}

static int traced_run(struct engine *engine, uint64_t result, struct call_regs *regs,
		      struct cell_fault *fault, struct err *err)
{
	struct traced *t = of(engine);
	int sig, r;

	if (t->in_call) {
		t->regs.rax = result;
		t->regs.orig_rax = UINT64_MAX; /* nothing is to be restarted */
		t->changed = true;
		t->in_call = false;
	}
	r = t->running ? 0 : resume(t, fault, err);
	if (r)
		return r;
	sig = wait_stop(t, err);
	switch (sig) {
	case CALL_STOP:
		return get_call(t, regs, fault, err);
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGTRAP:
	case SIGSYS:
		return get_fault(t, sig, fault, err);
	case -EINTR:
		return ENGINE_INTERRUPTED;
	default:
		/* A signal from outside is not the program's to see: it goes on without. */
		return sig < 0 ? sig : ENGINE_INTERRUPTED;
	}
}

static int traced_set_fs(struct engine *engine, uint64_t base, struct err *err)
{
	(void)err;
	of(engine)->regs.fs_base = base;
	return 0;
}

static int traced_clock(struct engine *engine, clockid_t *clock)
{
	return -clock_getcpuclockid(of(engine)->pid, clock);
}

/* A signal that comes before the wait does not end it: a child that stops does. */
static void traced_interrupt(struct engine *engine)
{
	int e = errno;

	syscall(SYS_pidfd_send_signal, of(engine)->pidfd, SIGSTOP, NULL, 0);
	errno = e;
}

const struct engine_ops traced_engine = {
	.name = "process",
	.shared = true,
	.start = traced_start,
	.run = traced_run,
	.set_fs = traced_set_fs,
	.clock = traced_clock,
	.interrupt = traced_interrupt,
	.free = traced_free,
};
