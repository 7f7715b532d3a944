/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first sectors of a disk that boots a guest without an operating system (guest.c).
 *
 * The BIOS loads sector 0 to 0x7c00. It loads the rest of this program behind itself by INT 13h,
 * goes to 32-bit mode with flat segments and calls guest_main. Interrupts only end a `hlt`: their
 * one handler acknowledges them and returns.
 */
	.set	SECTORS, 15		/* of the program behind the boot sector; bare.py knows it too */
	.set	LOAD, 0x7e00

	.text
	.code16
	.globl	_start
_start:
	ljmp	$0, $1f
1:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	movw	$packet, %si
	movb	$0x42, %ah		/* extended read; dl is the drive that was booted */
	int	$0x13
	jc	failed
	cli
	lgdt	gdt_at
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $flat

failed:	movw	$0x3f8, %dx		/* the test waits for a line */
	movb	$'!', %al
	outb	%al, %dx
	movb	$'\n', %al
	outb	%al, %dx
1:	hlt
	jmp	1b

	.balign	4
packet:	.byte	16, 0
	.word	SECTORS, LOAD, 0
	.quad	1

gdt:	.quad	0
	.quad	0x00cf9a000000ffff	/* code, 4 GiB */
	.quad	0x00cf92000000ffff	/* data, 4 GiB */
gdt_at:	.word	. - gdt - 1
	.long	gdt

	.code32
flat:	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$0x7c00, %esp
	movl	$__bss_start, %edi
	movl	$_end, %ecx
	subl	%edi, %ecx
	xorl	%eax, %eax
	cld
	rep stosb
	call	guest_main

	/* Reading the ISR register takes the virtio device's interrupt line down. */
	.globl	on_interrupt
on_interrupt:
	pushl	%eax
	pushl	%edx
	movl	disk_port, %edx
	addl	$19, %edx
	inb	%dx, %al
	movb	$0x20, %al
	outb	%al, $0xa0
	outb	%al, $0x20
	popl	%edx
	popl	%eax
	iret

	.org	510
	.word	0xaa55
