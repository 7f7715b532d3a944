/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that a cell must survive: argv[1] names what it tries. What ends by itself exits with 0
 * when the cage behaved, and with 1 when the attack worked. It starts at `entry`, before the C
 * library has made its first system call.
 *
 * link: -Wl,-e,entry
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SYSTEM_AREA UINT64_C(0x10000)
#define PAGE_TABLES UINT64_C(0x20000)

static volatile uint64_t sink;

static void poke(uint64_t at)
{
	*(volatile uint64_t *)(uintptr_t)at = 1;
}

static void peek(uint64_t at)
{
	sink = *(volatile uint64_t *)(uintptr_t)at;
}

static void jump(uint64_t to)
{
	__asm__ volatile("call *%0" : : "r"(to) : "memory");
}

/* ---- the first instructions ---- */

/* What the vector registers held: other people's data? */
static unsigned char first_vectors[256] __attribute__((used));

/*
 * With "~level" for an argument: the doorbell's port from level 3 before any system call, so that
 * the VMM takes this for a CPU on which the stub runs there. Should it, then the next call returns
 * with the rights of the stub, and the control register can be read.
 */
__asm__(".globl entry\n.type entry, @function\nentry:\n"
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	movups %xmm\\n, first_vectors + 16 * \\n\n"
	".endr\n"
	"	cmpq $2, (%rsp)\n"
	"	jb _start\n"
	"	mov 16(%rsp), %rdi\n"
	"	cmpb $'~', (%rdi)\n"
	"	jne _start\n"
	"	lea 1f(%rip), %rcx\n"
	"	mov $39, %eax\n"
	"	xor %r11d, %r11d\n"
	"	out %al, $0xf0\n"
	"1:	mov $39, %eax\n"
	"	syscall\n"
	"	mov %cr3, %rax\n"
	"	mov $1, %edi\n"
	"	mov $231, %eax\n"
	"	syscall\n"
	".size entry, . - entry\n");

static void expect(int good)
{
	if (!good)
		_exit(1);
}

static void first_registers(void)
{
	for (size_t i = 0; i < sizeof(first_vectors); i++)
		expect(!first_vectors[i]);
}

/* ---- memory ---- */

static void null_write(void)
{
	poke(8);
}

static void wild_read(void)
{
	peek(UINT64_C(0x7f0000000000));
}

static void high_half(void)
{
	peek(UINT64_C(0xffff800000000000));
}

static void non_canonical(void)
{
	peek(UINT64_C(0x8000000000000000));
}

static void jump_non_canonical(void)
{
	jump(UINT64_C(0x8000000000000000));
}

static void write_text(void)
{
	poke((uintptr_t)write_text);
}

static void execute_data(void)
{
	unsigned char *p = malloc(4096);

	p[0] = 0xc3;
	jump((uintptr_t)p);
}

static void execute_stack(void)
{
	volatile unsigned char code[16] = {0xc3};

	jump((uintptr_t)code);
}

static int deep(volatile int n) // NOLINT: the point
{
	volatile char frame[4096];

	frame[n % 4096] = (char)n;
	return n < 0 ? 0 : deep(n + 1) + frame[0];
}

static void stack_overflow(void)
{
	sink = (uint64_t)deep(1);
}

static void write_descriptors(void)
{
	poke(SYSTEM_AREA);
}

static void write_tables(void)
{
	poke(PAGE_TABLES);
}

static void beyond_memory(void)
{
	peek(UINT64_C(1) << 31);
}

/* A page of the kernel's that is in every process, and answers calls. */
static void old_page(void)
{
	jump(UINT64_C(0xffffffffff600000));
}

/* ---- instructions ---- */

#define INSTRUCTION(name, ...)                 \
	static void name(void)                 \
	{                                      \
		__asm__ volatile(__VA_ARGS__); \
	}

INSTRUCTION(invalid, "ud2")
INSTRUCTION(breakpoint, "int3")
INSTRUCTION(old_call, "int $0x80" : : "a"(20))
INSTRUCTION(halt, "hlt")
INSTRUCTION(no_interrupts, "cli")
INSTRUCTION(port_out, "outb %%al, %%dx" : : "a"(0xfe), "d"(0x64))
INSTRUCTION(port_in, "inb %%dx, %%al" : : "d"(0x60) : "rax")
INSTRUCTION(doorbell_in, "inb $0xf0, %%al" : : : "rax")
INSTRUCTION(forged_vector, "outb %%al, $0xce" : : "a"(0))
INSTRUCTION(read_msr, "rdmsr" : : "c"(0xc0000080u) : "rax", "rdx")
INSTRUCTION(write_msr, "wrmsr" : : "c"(0xc0000082u), "a"(0), "d"(0))
INSTRUCTION(write_cr3, "mov %0, %%cr3" : : "r"(0ul))
INSTRUCTION(load_idt, "lidt (%%rsp)" : :)
INSTRUCTION(system_enter, "sysenter" : :)
INSTRUCTION(far_kernel, "pushq $0x10; pushq $0x12000; lretq" : :)
INSTRUCTION(iret_kernel, "pushq $0; pushq $0x13ff0; pushq $2; pushq $0x10; pushq $0x12000; iretq"
	    :
	    :)
INSTRUCTION(divide, "divl %%ecx" : : "a"(1), "d"(0), "c"(0))
INSTRUCTION(single_step, "pushfq; orl $0x100, (%%rsp); popfq; nop; nop" : :)
INSTRUCTION(io_level, "pushfq; orl $0x3000, (%%rsp); popfq; outb %%al, %%dx" : : "a"(0), "d"(0x64))
INSTRUCTION(sysret, "sysretq" : : "c"(0x12000))
INSTRUCTION(swap_gs, "swapgs" : :)

/* Segment registers that the processor accepts, and a kernel would not. */
static void odd_segments(void)
{
	__asm__ volatile("mov %0, %%ds" : : "r"(1));
	__asm__ volatile("mov %0, %%es" : : "r"(0x2a));
	syscall(SYS_getpid);
}

static void odd_base(void)
{
	__asm__ volatile("wrfsbase %0" : : "r"(UINT64_C(0xffff800000000000)));
	__asm__ volatile("syscall\n\tmov %%fs:0, %%rax" : : "a"(SYS_getpid) : "rcx", "r11");
}

/* 32 bits, where `syscall` has another entry. */
static void narrow_call(void)
{
	__asm__ volatile("pushq $0x23\n\tpushq $1f\n\tlretq\n"
			 ".code32\n1:	mov $20, %%eax\n\tsyscall\n\tud2\n.code64"
			 :
			 :);
}

/* A call by hand whose return address is not one. */
static void bad_return(void)
{
	__asm__ volatile("mov $0x8000000000000000, %%rcx\n\tout %%al, $0xf0" : : "a"(SYS_getpid));
}

/* ---- system calls ---- */

static void forbidden(long nr)
{
	syscall(nr, 0, 0, 0);
	_exit(1);
}

static void call_execve(void)
{
	forbidden(SYS_execve);
}

static void call_socket(void)
{
	forbidden(SYS_socket);
}

static void call_ptrace(void)
{
	forbidden(SYS_ptrace);
}

static void call_clone(void)
{
	forbidden(SYS_clone);
}

static void call_huge(void)
{
	forbidden(1L << 40);
}

static void open_host(void)
{
	expect(open("/etc/passwd", 0) < 0 && errno == ENOENT);
	expect(open("/proc/self/mem", 2) < 0 && errno == ENOENT);
}

/* The kernel side must refuse what the program could not touch itself. */
static void bad_pointers(void)
{
	const uint64_t bad[] = {0,
				8,
				SYSTEM_AREA,
				PAGE_TABLES,
				(uintptr_t)bad_pointers,
				UINT64_C(1) << 40,
				UINT64_MAX - 7,
				UINT64_MAX};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		expect(syscall(SYS_clock_gettime, 0, bad[i]) == -1 && errno == EFAULT);
		expect(syscall(SYS_getrandom, bad[i], 64, 0) == -1 && errno == EFAULT);
		expect(syscall(SYS_uname, bad[i]) == -1 && errno == EFAULT);
		expect(syscall(SYS_pread64, 3, bad[i], 16, 0) == -1 && errno == EFAULT);
		expect(syscall(SYS_read, 0, bad[i], 16) == -1 && errno == EFAULT);
		expect(syscall(SYS_fstat, 3, bad[i]) == -1 && errno == EFAULT);
		if (bad[i] != (uintptr_t)bad_pointers)
			expect(syscall(SYS_write, 1, bad[i], 16) == -1 && errno == EFAULT);
	}
}

static void bad_lengths(void)
{
	char small[64];
	struct iovec iov[2] = {{small, SIZE_MAX}, {small, SIZE_MAX}};
	void *p;

	expect(syscall(SYS_pread64, 3, small, SIZE_MAX, 0) == -1 && errno == EFAULT);
	expect(syscall(SYS_pread64, 3, small, 16, UINT64_MAX - 3) == 0);
	expect(syscall(SYS_pwrite64, 3, small, 16, UINT64_MAX - 3) == -1);
	expect(syscall(SYS_write, 1, small, SIZE_MAX) == -1 && errno == EFAULT);
	expect(syscall(SYS_writev, 1, iov, 2) == -1 && errno == EFAULT);
	expect(syscall(SYS_writev, 1, iov, UINT64_C(1) << 60) == -1);
	expect(syscall(SYS_fallocate, 3, 3, UINT64_MAX - 100, 200) == -1);
	expect(syscall(SYS_mmap, 0, UINT64_C(10) << 30, 3, 0x22, -1, 0) == -1 && errno == ENOMEM);
	expect(syscall(SYS_mmap, 0, UINT64_MAX, 3, 0x22, -1, 0) == -1 && errno == ENOMEM);
	expect(syscall(SYS_mmap, 0, 4096, 7, 0x22, -1, 0) == -1 && errno == EPERM);
	expect(syscall(SYS_mmap, SYSTEM_AREA, 4096, 3, 0x32, -1, 0) == -1);
	expect(syscall(SYS_munmap, SYSTEM_AREA, 4096) == -1);
	expect(syscall(SYS_munmap, 0, UINT64_MAX) == -1);
	expect(syscall(SYS_mprotect, bad_lengths, 4096, 7) == -1);
	expect((uint64_t)syscall(SYS_brk, UINT64_C(1) << 40) < UINT64_C(1) << 30);
	p = malloc(UINT64_C(1) << 34);
	expect(!p);
}

static void bad_files(void)
{
	char small[16];

	for (int fd = -2; fd < 70; fd++)
		if (fd < 0 || fd > 3) {
			expect(read(fd, small, 1) == -1 && errno == EBADF);
			expect(write(fd, small, 1) == -1 && errno == EBADF);
			expect(pread(fd, small, 1, 0) == -1 && errno == EBADF);
			expect(lseek(fd, 0, 0) == -1 && errno == EBADF);
		}
	expect(read(1, small, 1) == -1 && errno == EBADF);
	expect(write(0, small, 1) == -1 && errno == EBADF);
}

static void all_memory(void)
{
	for (;;) {
		char *p = malloc(1 << 20);

		if (!p)
			return;
		memset(p, 1, 1 << 20);
	}
}

/* Memory that was given back comes again as zeros. */
static void clean_memory(void)
{
	for (int round = 0; round < 8; round++) {
		char *p = mmap(NULL, 1 << 20, 3, 0x22, -1, 0);

		expect(p != MAP_FAILED);
		for (int i = 0; i < 1 << 20; i += 512)
			expect(!p[i]);
		memset(p, 0xff, 1 << 20);
		expect(!munmap(p, 1 << 20));
	}
}

/* Many small holes, mappings over others and over the edge: the books stay right. */
static void fragments(void)
{
	const size_t page = 4096, n = 2048;
	char *p = mmap(NULL, n * page, 3, 0x22, -1, 0), *q;

	expect(p != MAP_FAILED);
	for (size_t i = 2; i < n; i += 2)
		expect(!munmap(p + i * page, page) && !munmap(p + i * page, page));
	for (size_t i = 0; i < n; i += 2)
		p[(i + 1) * page] = 1;
	for (size_t i = 2; i < n; i += 2) {
		q = mmap(NULL, page, 3, 0x22, -1, 0);
		expect(q >= p && q < p + n * page && (size_t)(q - p) / page % 2 == 0 && !*q);
		*q = 1;
	}
	expect(mmap(p - page, 2 * page, 3, 0x32, -1, 0) == p - page && !*p && p[page] == 1);
	expect(!munmap(p, n * page));
	expect(mmap(NULL, n * page, 3, 0x22, -1, 0) == p && !p[page]);
}

/* From where nothing is mapped to where it will be: one over the other. */
static void overlapping_move(void)
{
	char *p = mmap(NULL, 64 << 12, 3, 0x22, -1, 0), *q;

	expect(p != MAP_FAILED && !munmap(p, 63 << 12));
	q = mremap(p + (2 << 12), 32 << 12, 62 << 12, MREMAP_MAYMOVE);
	expect(q != MAP_FAILED);
	expect(mremap(p, SIZE_MAX, 1, MREMAP_MAYMOVE) == MAP_FAILED);
	expect(mremap(p, 1, SIZE_MAX, MREMAP_MAYMOVE) == MAP_FAILED);
}

/* What is filled in for the program has nothing of the VMM's in its gaps. */
static void gaps(void)
{
	unsigned char info[112];

	memset(info, 0xee, sizeof(info));
	expect(!syscall(SYS_sysinfo, info));
	for (int i = 84; i < 88; i++)
		expect(!info[i]);
	for (int i = 108; i < 112; i++)
		expect(!info[i]);
}

static void give_up(void)
{
	abort();
}

/* ---- time ---- */

static void loop(void)
{
	for (;;)
		__asm__ volatile("");
}

static void storm(void)
{
	for (;;)
		syscall(SYS_getpid);
}

/* Little work here, and much for who serves it: both are in the limit. */
static void errands(void)
{
	static char buf[1 << 20];

	for (int i = 0; i < 8000; i++)
		expect(pread(3, buf, sizeof(buf), 0) == sizeof(buf));
	_exit(1);
}

/* One call that takes longer than anybody waits. */
static void zero_vast_disk(void)
{
	syscall(SYS_fallocate, 4, FALLOC_FL_ZERO_RANGE, 0, UINT64_C(1) << 60);
	_exit(1);
}

static void chatter(void)
{
	for (;;)
		expect(write(2, "again and again\n", 16) == 16);
}

static const struct {
	const char *name;
	void (*run)(void);
} attacks[] = {
#define A(name)             \
	{                   \
#name, name \
	}
	A(first_registers),
	A(null_write),
	A(wild_read),
	A(high_half),
	A(non_canonical),
	A(jump_non_canonical),
	A(write_text),
	A(execute_data),
	A(execute_stack),
	A(stack_overflow),
	A(write_descriptors),
	A(write_tables),
	A(beyond_memory),
	A(old_page),
	A(invalid),
	A(breakpoint),
	A(old_call),
	A(halt),
	A(no_interrupts),
	A(port_out),
	A(port_in),
	A(doorbell_in),
	A(forged_vector),
	A(read_msr),
	A(write_msr),
	A(write_cr3),
	A(load_idt),
	A(system_enter),
	A(far_kernel),
	A(iret_kernel),
	A(divide),
	A(single_step),
	A(io_level),
	A(sysret),
	A(swap_gs),
	A(odd_segments),
	A(odd_base),
	A(narrow_call),
	A(bad_return),
	A(call_execve),
	A(call_socket),
	A(call_ptrace),
	A(call_clone),
	A(call_huge),
	A(open_host),
	A(bad_pointers),
	A(bad_lengths),
	A(bad_files),
	A(all_memory),
	A(clean_memory),
	A(fragments),
	A(overlapping_move),
	A(gaps),
	A(give_up),
	A(loop),
	A(storm),
	A(errands),
	A(zero_vast_disk),
	A(chatter),
#undef A
};

int main(int argc, char **argv)
{
	for (unsigned i = 0; argc > 1 && i < sizeof(attacks) / sizeof(attacks[0]); i++)
		if (!strcmp(argv[1], attacks[i].name)) {
			attacks[i].run();
			return 0;
		}
	/* Nothing to attack with: what an honest program does. */
	if (argc == 1) {
		char line[64];

		printf("hello %.2f\n", strtod("1.5", NULL));
		fflush(stdout);
		return read(0, line, sizeof(line)) == 5 && !memcmp(line, "world", 5) ? 7 : 1;
	}
	return 2;
}
