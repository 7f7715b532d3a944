/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest without an operating system that changes its disk in a way the test can compute.
 *
 * It drives a virtio disk (legacy interface, virtio 1.1 section 4.1.4.8 and 5.2) with four
 * requests in flight, one for each quarter ("lane") of the disk. What step N does follows from N
 * alone, see plan_request: the model of the same in tests/lib/bare.py must agree with it. On the
 * serial line it asks ("?\n") how many steps were done before the boot, and is told ("0\n"); then
 * it is told how many may be done in all ("120\n"), again and again. It answers with the number of
 * each step that is done ("1\n", "2\n" ...), or says what went wrong ("!...\n"), and stops. So the
 * test knows at any time what was acknowledged, and nothing depends on speed.
 *
 * It remembers which step wrote each sector, and checks what it reads. What was discarded may be as
 * before, or zero.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { COM1 = 0x3f8, LANES = 4, SECTOR = 512, WORDS = SECTOR / 4, FIRST_SECTOR = 128 };
/* Sectors: of a request at most; of a discard, a cluster of many formats. */
enum { MOST = 48, CLUSTER = 128 };
/* Where things are in memory: everything else is below 64 KiB. */
enum { RING = 0x20000, DATA = 0x100000, LANE_DATA = 0x10000, WRITTEN_BY = 0x200000 };
/* Beside the step in WRITTEN_BY. */
#define DISCARDED (1u << 31)

/* The PCI slot that the test gives the disk. */
enum { DISK_SLOT = 4 };
enum { PCI_COMMAND = 4, PCI_BAR0 = 0x10, PCI_IRQ = 0x3c };
enum {
	REG_OFFERED = 0,
	REG_FEATURES = 4,
	REG_QUEUE = 8,
	REG_QUEUE_SIZE = 12,
	REG_NOTIFY = 16,
	REG_STATUS = 18,
	REG_CAPACITY = 20,
};
enum { F_FLUSH = 1 << 9, F_DISCARD = 1 << 13, F_ZEROES = 1 << 14 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_DISCARD = 11, T_ZEROES = 13 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

struct desc {
	u64 at;
	u32 len;
	u16 flags, next;
};
struct range {
	u64 sector;
	u32 count, flags;
};
struct request {
	u32 type, ioprio;
	u64 sector;
	struct range range;
	u32 at, count, unmap;
	volatile u8 status;
};

void guest_main(void) __attribute__((noreturn));
void on_interrupt(void);

u32 disk_port;
static u32 queue_size, lane_sectors;
static u16 submitted;
static struct request requests[LANES];
static u64 idt[48];

static u8 inb(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static u32 inl(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void outl(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}

static void outw(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}

/* Interrupts are off except in here, so one that comes after the caller's check is not lost. */
static void sleep_until_interrupt(void)
{
	__asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* ---- the serial line ---- */

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (u8)c);
}

static void put_number(u32 n)
{
	if (n >= 10)
		put_number(n / 10);
	put((char)('0' + n % 10));
}

static u8 get(void)
{
	while (!(inb(COM1 + 5) & 1))
		sleep_until_interrupt();
	return inb(COM1);
}

static u32 get_number(void)
{
	u32 n = 0;
	u8 c;

	while ((c = get()) != '\n')
		n = n * 10 + (c - '0');
	return n;
}

/* Says what is wrong, and does nothing any more. */
static void __attribute__((noreturn)) give_up(const char *what, u32 a, u32 b)
{
	put('!');
	while (*what)
		put(*what++);
	put(' ');
	put_number(a);
	put(' ');
	put_number(b);
	put('\n');
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* ---- interrupts ---- */

static void set_up_interrupts(u32 disk_irq)
{
	static struct __attribute__((packed)) {
		u16 limit;
		u32 at;
	} idtr;
	u32 handler = (u32)on_interrupt, wanted = 1u << 2 | 1u << 4 | 1u << disk_irq, i;

	for (i = 0; i < 48; i++)
		idt[i] = (u64)(handler >> 16) << 48 | 0x8e00ull << 32 | 8u << 16 |
			 (handler & 0xffff);
	idtr.limit = sizeof(idt) - 1;
	idtr.at = (u32)idt;
	__asm__ volatile("lidt %0" ::"m"(idtr));
	/* The two 8259: vectors from 0x20 and 0x28. */
	outb(0x20, 0x11), outb(0xa0, 0x11);
	outb(0x21, 0x20), outb(0xa1, 0x28);
	outb(0x21, 4), outb(0xa1, 2);
	outb(0x21, 1), outb(0xa1, 1);
	outb(0x21, (u8)~wanted), outb(0xa1, (u8)(~wanted >> 8));
	outb(COM1 + 4, 0x0b);
	outb(COM1 + 1, 1);
}

/* ---- the disk ---- */

static u32 pci_read(u32 reg)
{
	outl(0xcf8, 0x80000000u | DISK_SLOT << 11 | reg);
	return inl(0xcfc);
}

static void pci_write(u32 reg, u32 v)
{
	outl(0xcf8, 0x80000000u | DISK_SLOT << 11 | reg);
	outl(0xcfc, v);
}

static struct desc *descs(void)
{
	return (struct desc *)RING;
}

static volatile u16 *avail(void)
{
	return (volatile u16 *)(RING + queue_size * 16);
}

static volatile u16 *used_idx(void)
{
	u32 end = RING + queue_size * 16 + 6 + queue_size * 2;

	return (volatile u16 *)(((end + 4095) & ~4095u) + 2);
}

static void open_disk(void)
{
	const u32 wanted = F_FLUSH | F_DISCARD | F_ZEROES;

	if ((pci_read(0) & 0xffff) != 0x1af4)
		give_up("no virtio disk", pci_read(0), 0);
	pci_write(PCI_COMMAND, pci_read(PCI_COMMAND) | 5);
	disk_port = pci_read(PCI_BAR0) & ~3u;
	set_up_interrupts(pci_read(PCI_IRQ) & 15);
	outb((u16)(disk_port + REG_STATUS), 0);
	outb((u16)(disk_port + REG_STATUS), 3);
	if ((inl((u16)(disk_port + REG_OFFERED)) & wanted) != wanted)
		give_up("features", inl((u16)(disk_port + REG_OFFERED)), wanted);
	outl((u16)(disk_port + REG_FEATURES), wanted);
	/* The queue size is in the low half, 0 is what the selector has after the reset. */
	queue_size = inl((u16)(disk_port + REG_QUEUE_SIZE)) & 0xffff;
	outl((u16)(disk_port + REG_QUEUE), RING / 4096);
	outb((u16)(disk_port + REG_STATUS), 7);
	lane_sectors = (inl((u16)(disk_port + REG_CAPACITY)) - FIRST_SECTOR) / LANES;
}

static void submit(u32 lane)
{
	struct request *r = &requests[lane];
	struct desc *d = descs() + lane * 3;
	int ranged = r->type == T_DISCARD || r->type == T_ZEROES;
	u32 i = 1;

	d[0] = (struct desc){
		.at = (u32)r, .len = 16, .flags = DESC_NEXT, .next = (u16)(lane * 3 + 1)};
	r->ioprio = 0;
	r->sector = ranged || r->type == T_FLUSH ? 0 : r->at;
	if (ranged) {
		r->range = (struct range){r->at, r->count, r->unmap};
		d[i].at = (u32)&r->range;
		d[i].len = 16;
	} else {
		d[i].at = DATA + lane * LANE_DATA;
		d[i].len = r->count * SECTOR;
	}
	if (r->type != T_FLUSH) {
		d[i].flags = (u16)(DESC_NEXT | (r->type == T_IN ? DESC_WRITE : 0));
		d[i].next = (u16)(lane * 3 + 2);
		i = 2;
	}
	d[i] = (struct desc){.at = (u32)&r->status, .len = 1, .flags = DESC_WRITE};
	r->status = 0xff;
	avail()[2 + submitted % queue_size] = (u16)(lane * 3);
	submitted++;
}

static void run_requests(void)
{
	u32 lane;

	for (lane = 0; lane < LANES; lane++)
		submit(lane);
	__asm__ volatile("" ::: "memory");
	avail()[1] = submitted;
	outw((u16)(disk_port + REG_NOTIFY), 0);
	while (*used_idx() != submitted)
		sleep_until_interrupt();
}

/* ---- steps ---- */

static u32 mix(u32 x)
{
	x ^= x >> 16;
	x *= 0x85ebca6b;
	x ^= x >> 13;
	x *= 0xc2b2ae35;
	return x ^ x >> 16;
}

/* What a step does in a lane. The same is in tests/lib/bare.py. */
static void plan_request(struct request *r, u32 step, u32 lane)
{
	u32 h = mix(step * LANES + lane), kind = h & 15, place = mix(h), room;

	r->count = 1 + (h >> 4) % MOST;
	r->type = kind == 0   ? T_FLUSH
		  : kind == 1 ? T_DISCARD
		  : kind < 4  ? T_ZEROES
		  : kind < 7  ? T_IN
			      : T_OUT;
	r->unmap = kind == 3;
	room = lane_sectors - 2 * CLUSTER;
	r->at = FIRST_SECTOR + lane * lane_sectors + place % room;
	/* Whole clusters, so that their space can be given back. */
	if (r->type == T_DISCARD) {
		r->count = CLUSTER;
		r->at = (r->at + CLUSTER - 1) / CLUSTER * CLUSTER;
	}
}

/* The first two words of a sector say who wrote it, the rest follows from them. */
static u32 first_word(u32 step, u32 sector)
{
	return mix(step ^ mix(sector)) & 0x7fffffff;
}

/* Notes what the disk holds once the request is done. */
static void remember(const struct request *r, u32 step)
{
	u32 *by = (u32 *)WRITTEN_BY, sector;

	if (r->type == T_IN || r->type == T_FLUSH)
		return;
	for (sector = r->at; sector < r->at + r->count; sector++) {
		if (r->type == T_DISCARD)
			by[sector] |= DISCARDED;
		else
			by[sector] = r->type == T_OUT ? step : 0;
	}
}

static void fill(u32 lane, u32 step)
{
	struct request *r = &requests[lane];
	u32 *data = (u32 *)(DATA + lane * LANE_DATA), sector, first, k;

	for (sector = r->at; sector < r->at + r->count; sector++, data += WORDS) {
		first = first_word(step, sector);
		data[0] = step;
		data[1] = sector;
		for (k = 2; k < WORDS; k++)
			data[k] = first + k;
	}
}

/* The sector holds what the step wrote, or zeros if there was none. */
static int holds(const u32 *data, u32 step, u32 sector)
{
	u32 first = step ? first_word(step, sector) : 0, k;

	for (k = 2; k < WORDS; k++)
		if (data[k] != (step ? first + k : 0))
			return 0;
	return data[0] == step && data[1] == (step ? sector : 0);
}

static void check_read(u32 lane)
{
	struct request *r = &requests[lane];
	u32 *data = (u32 *)(DATA + lane * LANE_DATA), *by = (u32 *)WRITTEN_BY, sector, step;

	for (sector = r->at; sector < r->at + r->count; sector++, data += WORDS) {
		step = by[sector] & ~DISCARDED;
		if (!holds(data, step, sector) && !(by[sector] != step && holds(data, 0, sector)))
			give_up("wrong data read, sector and step", sector, step);
	}
}

static void run_step(u32 step)
{
	u32 lane;

	for (lane = 0; lane < LANES; lane++) {
		plan_request(&requests[lane], step, lane);
		remember(&requests[lane], step);
		if (requests[lane].type == T_OUT)
			fill(lane, step);
	}
	run_requests();
	for (lane = 0; lane < LANES; lane++) {
		if (requests[lane].status)
			give_up("request failed, type and status", requests[lane].type,
				requests[lane].status);
		if (requests[lane].type == T_IN)
			check_read(lane);
	}
}

/* What was done before it was booted. */
static void recall(u32 steps)
{
	u32 step, lane;

	for (step = 1; step <= steps; step++) {
		for (lane = 0; lane < LANES; lane++) {
			plan_request(&requests[lane], step, lane);
			remember(&requests[lane], step);
		}
	}
}

void guest_main(void)
{
	u32 done, granted;

	open_disk();
	put('?');
	put('\n');
	done = get_number();
	recall(done);
	put_number(done);
	put('\n');
	for (;;) {
		granted = get_number();
		while (done < granted) {
			run_step(++done);
			put_number(done);
			put('\n');
		}
	}
}
