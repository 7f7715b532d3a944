/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of a cell that is a KVM virtual machine with one virtual CPU and no kernel in it.
 *
 * The CPU starts in user mode: the state is set as a kernel would have left it. Interfaces:
 * Documentation/virt/kvm/api.rst of Linux. The same settings work with hardware virtualisation and
 * with software KVM, where `syscall` does not change the privilege level. Which of the two it is, a
 * call of our own tells before the program runs: the program could lie, by writing to the doorbell
 * at level 3 itself, and would be resumed at level 0 later.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/engine.h"
#include "vmm/x86.h"

#define MSR_EFER   0xc0000080u
#define MSR_STAR   0xc0000081u
#define MSR_LSTAR  0xc0000082u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS     0xc0000100u

#define CR0_VALUE     UINT64_C(0x80050033) /* PE MP ET NE WP AM PG */
#define CR4_VALUE     UINT64_C(0x620)      /* PAE OSFXSR OSXMMEXCPT */
#define CR4_FSGSBASE  (UINT64_C(1) << 16)
#define CR4_OSXSAVE   (UINT64_C(1) << 18)
#define CR4_SMAP      (UINT64_C(1) << 21)
#define EFER_VALUE    UINT64_C(0xd01)    /* SCE LME LMA NXE */
#define SFMASK_VALUE  UINT64_C(0x40700)  /* TF IF DF AC */
#define XCR0_KNOWN    UINT64_C(0xe7)     /* x87 SSE AVX AVX-512 */
#define RFLAGS_USER   UINT64_C(0x240dd5) /* what user code may set: not IOPL */
#define CPUID_ENTRIES 256u

struct kvm {
	struct engine engine;
	struct guest_memory *mem;
	int vm, cpu;
	struct kvm_run *run;
	size_t run_size;
	bool user_stub; /* the stub of the doorbell runs at level 3 */
	bool in_call;   /* the last stop was a call, whose result run is to give */
};

static struct kvm *of(struct engine *engine)
{
	return container_of(engine, struct kvm, engine);
}

static int broken(struct err *err, const char *what)
{
	return err_sys(err, errno, "KVM: %s", what);
}

/* ---- setting up ---- */

static int make_vm(struct kvm *k, int kvm, struct err *err)
{
	struct kvm_userspace_memory_region slot = {
		.memory_size = k->mem->size,
		.userspace_addr = (uintptr_t)k->mem->host,
	};
	int size;

	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return err_set(err, ENOTSUP,
			       "/dev/kvm: not the version of the interface that is known");
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) <= 0 ||
	    ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
		return err_set(err, ENOTSUP, "/dev/kvm: Linux 4.17 or later is needed");
	k->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (k->vm < 0)
		return broken(err, "cannot make a virtual machine");
	/* Only processors that cannot virtualise real mode need it; others do not mind. */
	ioctl(k->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return broken(err, "cannot give the virtual machine its memory");
	k->cpu = ioctl(k->vm, KVM_CREATE_VCPU, 0);
	if (k->cpu < 0)
		return broken(err, "cannot make a virtual CPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return broken(err, "cannot reach the virtual CPU");
	k->run_size = (size_t)size;
	k->run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->cpu, 0);
	if (k->run == MAP_FAILED) {
		k->run = NULL;
		return broken(err, "cannot reach the virtual CPU");
	}
	return 0;
}

/* What of the host's processor the guest may use: cr4 and xcr0 follow from it. */
struct features {
	uint64_t cr4, xcr0;
};

static int set_cpuid(struct kvm *k, int kvm, struct features *f, struct err *err)
{
	CLEANUP_FREE struct kvm_cpuid2 *id =
		calloc(1, sizeof(*id) + CPUID_ENTRIES * sizeof(id->entries[0]));
	uint64_t xcr0 = 0;

	if (!id)
		return err_nomem(err, CPUID_ENTRIES * sizeof(id->entries[0]), "CPUID");
	id->nent = CPUID_ENTRIES;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, id) < 0)
		return broken(err, "cannot tell the features of the CPU");
	*f = (struct features){.cr4 = CR4_VALUE};
	for (unsigned i = 0; i < id->nent; i++) {
		struct kvm_cpuid_entry2 *e = &id->entries[i];

		/* VMX and SVM: the parts of KVM that serve them are none of ours. */
		e->ecx &= e->function == 1            ? ~(1u << 5)
			  : e->function == 0x80000001 ? ~(1u << 2)
						      : ~0u;
		if (e->function == 1 && (e->ecx & 1u << 26))
			f->cr4 |= CR4_OSXSAVE;
		if (e->function == 7 && e->index == 0) {
			f->cr4 |= e->ebx & 1u << 0 ? CR4_FSGSBASE : 0;
			f->cr4 |= e->ebx & 1u << 20 ? CR4_SMAP : 0;
		}
		if (e->function == 0xd && e->index == 0)
			xcr0 = (e->eax | (uint64_t)e->edx << 32) & XCR0_KNOWN;
	}
	f->xcr0 = f->cr4 & CR4_OSXSAVE ? xcr0 : 0;
	if (ioctl(k->cpu, KVM_SET_CPUID2, id) < 0)
		return broken(err, "cannot set the features of the virtual CPU");
	return 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = UINT32_MAX,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = 3,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

static int set_segments(struct kvm *k, const struct features *f, struct err *err)
{
	struct kvm_sregs s;

	if (ioctl(k->cpu, KVM_GET_SREGS, &s) < 0)
		return broken(err, "cannot read the state of the virtual CPU");
	s.cs = segment(X86_USER_CS, 11, true);
	s.ss = s.ds = s.es = s.fs = s.gs = segment(X86_USER_DS, 3, false);
	s.ldt = (struct kvm_segment){.unusable = 1};
	s.tr = (struct kvm_segment){.base = X86_TSS,
				    .limit = X86_TSS_LIMIT,
				    .selector = X86_TR,
				    .type = 11,
				    .present = 1};
	s.gdt = (struct kvm_dtable){.base = X86_GDT, .limit = X86_GDT_LIMIT};
	s.idt = (struct kvm_dtable){.base = X86_IDT, .limit = X86_IDT_LIMIT};
	s.cr0 = CR0_VALUE;
	s.cr3 = X86_PML4;
	s.cr4 = f->cr4;
	s.efer = EFER_VALUE;
	if (ioctl(k->cpu, KVM_SET_SREGS, &s) < 0)
		return broken(err, "cannot start the virtual CPU in user mode");
	if (f->xcr0) {
		struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0] = {.value = f->xcr0}};

		if (ioctl(k->cpu, KVM_SET_XCRS, &x) < 0)
			return broken(err, "cannot enable the vector registers");
	}
	return 0;
}

static int set_msrs(struct kvm *k, const struct kvm_msr_entry *v, unsigned n, struct err *err)
{
	/* What struct kvm_msrs is, which ends with an array of no given length. */
	struct {
		uint32_t nmsrs, pad;
		struct kvm_msr_entry entries[4];
	} msrs = {.nmsrs = n};

	_Static_assert(offsetof(struct kvm_msrs, entries) == 8, "as the kernel has it");
	memcpy(msrs.entries, v, n * sizeof(*v));
	/* It returns how many it has set. */
	if (ioctl(k->cpu, KVM_SET_MSRS, &msrs) != (int)n)
		return broken(err, "cannot set the registers of system calls");
	return 0;
}

static int set_state(struct kvm *k, int kvm, uint64_t rsp, struct err *err)
{
	const struct kvm_msr_entry msrs[] = {
		{.index = MSR_STAR, .data = X86_STAR},
		{.index = MSR_LSTAR, .data = X86_SYSCALL},
		{.index = MSR_SFMASK, .data = SFMASK_VALUE},
	};
	struct kvm_regs regs = {.rip = X86_FIRST, .rsp = rsp, .rflags = 2};
	struct features f = {0};
	int r = set_cpuid(k, kvm, &f, err);

	if (!r)
		r = set_segments(k, &f, err);
	if (!r)
		r = set_msrs(k, msrs, ARRAY_LEN(msrs), err);
	if (!r && ioctl(k->cpu, KVM_SET_REGS, &regs) < 0)
		r = broken(err, "cannot start the virtual CPU");
	k->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	return r;
}

/* ---- running ---- */

static int get_fault(struct kvm *k, unsigned vector, struct cell_fault *fault, struct err *err)
{
	struct kvm_sregs s;

	if (ioctl(k->cpu, KVM_GET_SREGS, &s) < 0)
		return broken(err, "cannot read the state of the virtual CPU");
	x86_fault(k->mem, vector, k->run->s.regs.regs.rsp, fault);
	fault->address = vector == 14 ? s.cr2 : 0;
	return ENGINE_FAULT;
}

static int get_call(struct kvm *k, struct call_regs *regs)
{
	const struct kvm_regs *g = &k->run->s.regs.regs;

	*regs = (struct call_regs){
		.nr = g->rax,
		.arg = {g->rdi, g->rsi, g->rdx, g->r10, g->r8, g->r9},
		.rip = g->rcx,
	};
	k->in_call = true;
	return ENGINE_CALL;
}

static int strange_exit(const struct kvm_run *run, struct err *err)
{
	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		return err_set(err, EIO, "the virtual CPU was reset (triple fault)");
	case KVM_EXIT_FAIL_ENTRY:
		return err_set(err, EIO, "the virtual CPU did not start: reason 0x%llx",
			       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_INTERNAL_ERROR:
		return err_set(err, EIO, "KVM cannot go on: internal error %u",
			       run->internal.suberror);
	case KVM_EXIT_MMIO:
		return err_set(err, EIO, "access to physical address 0x%llx, where nothing is",
			       (unsigned long long)run->mmio.phys_addr);
	default:
		return err_set(err, EIO, "unexpected exit of the virtual CPU: reason %u",
			       run->exit_reason);
	}
}

/* The result of the last call, and the way back if the stub has none. */
static void end_call(struct kvm *k, uint64_t result)
{
	struct kvm_regs *g = &k->run->s.regs.regs;

	g->rax = result;
	if (k->user_stub) {
		g->rip = g->rcx;
		g->rflags = (g->r11 & RFLAGS_USER) | 2;
	}
	k->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	k->in_call = false;
}

static bool rang(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT &&
	       run->io.port == PORT_DOORBELL;
}

/* From X86_FIRST to the program. Does the stub run at level 0, and leave by sysretq? */
static int first_call(struct kvm *k, uint64_t program, struct err *err)
{
	struct kvm_sregs s;
	int r;

	do
		r = ioctl(k->cpu, KVM_RUN, 0);
	while (r < 0 && (errno == EINTR || errno == EAGAIN));
	if (r < 0)
		return broken(err, "cannot run the virtual CPU");
	if (!rang(k->run))
		return strange_exit(k->run, err);
	if (ioctl(k->cpu, KVM_GET_SREGS, &s) < 0)
		return broken(err, "cannot read the state of the virtual CPU");
	k->user_stub = s.ss.dpl == 3;
	if (!k->user_stub)
		x86_close_doorbell(k->mem);
	end_call(k, program);
	return 0;
}

static int kvm_step(struct engine *engine, uint64_t result, struct call_regs *regs,
		    struct cell_fault *fault, struct err *err)
{
	struct kvm *k = of(engine);
	struct kvm_run *run = k->run;

	if (k->in_call)
		end_call(k, result);
	if (ioctl(k->cpu, KVM_RUN, 0) < 0) {
		if (errno != EINTR && errno != EAGAIN)
			return broken(err, "cannot run the virtual CPU");
		run->immediate_exit = 0;
		return ENGINE_INTERRUPTED;
	}
	if (rang(run))
		return get_call(k, regs);
	if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DOORBELL) {
		/* Where the user rings there, it can read there, too. */
		*fault = (struct cell_fault){.vector = 13,
					     .rip = run->s.regs.regs.rip,
					     .rsp = run->s.regs.regs.rsp};
		return ENGINE_FAULT;
	}
	if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT)
		return strange_exit(run, err);
	if (run->io.port >= PORT_VECTOR && run->io.port < PORT_VECTOR + PORT_VECTORS)
		return get_fault(k, run->io.port - PORT_VECTOR, fault, err);
	return strange_exit(run, err);
}

static int kvm_set_fs(struct engine *engine, uint64_t base, struct err *err)
{
	const struct kvm_msr_entry fs = {.index = MSR_FS, .data = base};

	return set_msrs(of(engine), &fs, 1, err);
}

static int kvm_clock(struct engine *engine, clockid_t *clock)
{
	(void)engine;
	*clock = CLOCK_THREAD_CPUTIME_ID;
	return 0;
}

static void kvm_interrupt(struct engine *engine)
{
	struct kvm *k = of(engine);

	__atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_RELAXED);
}

/* ---- beginning and end ---- */

static void kvm_free(struct engine *engine)
{
	struct kvm *k = engine ? of(engine) : NULL;

	if (!k)
		return;
	if (k->run)
		munmap(k->run, k->run_size);
	if (k->cpu >= 0)
		close(k->cpu);
	if (k->vm >= 0)
		close(k->vm);
	free(k);
}

static int kvm_start(struct engine **engine, struct guest_memory *mem,
		     const struct elf_start *start, struct err *err)
{
	CLEANUP_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct kvm *k;
	int r;

	*engine = NULL;
	if (kvm < 0)
		return err_sys(err, errno, "/dev/kvm");
	k = calloc(1, sizeof(*k));
	if (!k)
		return err_nomem(err, sizeof(*k), "a virtual machine");
	*k = (struct kvm){.engine.ops = &kvm_engine, .mem = mem, .vm = -1, .cpu = -1};
	r = x86_build(mem, err);
	if (!r)
		r = make_vm(k, kvm, err);
	if (!r)
		r = set_state(k, kvm, start->rsp, err);
	if (!r)
		r = first_call(k, start->rip, err);
	if (r < 0)
		kvm_free(&k->engine);
	else
		*engine = &k->engine;
	return r;
}

const struct engine_ops kvm_engine = {
	.name = "vm",
	.start = kvm_start,
	.run = kvm_step,
	.set_fs = kvm_set_fs,
	.clock = kvm_clock,
	.interrupt = kvm_interrupt,
	.free = kvm_free,
};
