/*
 * This Source Code Form is subject to the terms of the Mozilla Public
 * License, v. 2.0. If a copy of the MPL was not distributed with this
 * file, You can obtain one at https://mozilla.org/MPL/2.0/.
 */

/*
 * Loaded into QEMU (LD_PRELOAD) to mend one fault of its processor emulation.
 *
 * When a guest of the emulated SVM writes CR8 while a virtual interrupt waits,
 * cpu_interrupt() is called without the big lock and QEMU stops:
 *   tcg_handle_interrupt: assertion failed: (bql_locked())
 * UEFI firmware and illumos write CR8 on every interrupt. So cpu_interrupt() is
 * made to take the lock where its caller does not hold it: its first instruction
 * becomes a jump to locked_interrupt(), and a copy of that instruction leads back
 * behind it. Works with Debian's QEMU 7.2 and 10.0, which export the names needed
 * and start the function alike; any other build is left as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static void (*lock)(const char *, int), (*unlock)(void), (*original)(void *, int);
static bool (*locked)(void);

static void locked_interrupt(void *cpu, int mask)
{
	bool had = locked();

	if (!had)
		lock(__FILE__, __LINE__);
	original(cpu, mask);
	if (!had)
		unlock();
}

static void *find(const char *name, const char *old_name)
{
	void *p = dlsym(RTLD_DEFAULT, name);
	return p ? p : dlsym(RTLD_DEFAULT, old_name);
}

/* Writes at `at` an instruction ending in the distance from its end to `to`. */
static void relative(uint8_t *at, const char *opcode, int n, const uint8_t *to)
{
	int32_t d = to - (at + n + 4);

	memcpy(at, opcode, n);
	memcpy(at + n, &d, 4);
}

__attribute__((constructor)) static void mend(void)
{
	uint8_t *fn = dlsym(RTLD_DEFAULT, "cpu_interrupt"), *code, *page = MAP_FAILED;
	void *target = locked_interrupt;
	int32_t d;

	lock = find("bql_lock_impl", "qemu_mutex_lock_iothread_impl");
	unlock = find("bql_unlock", "qemu_mutex_unlock_iothread");
	locked = find("bql_locked", "qemu_mutex_iothread_locked");
	if (!fn || !lock || !unlock || !locked || memcmp(fn, "\x48\x8b\x05", 3)) {	/* mov d(%rip),%rax */
		if (fn)
			fprintf(stderr, "lab: unknown QEMU build; it may stop on a guest's CR8 write\n");
		return;
	}
	code = (uint8_t *)((uintptr_t)fn & ~4095ul);
	for (long off = 64l << 20; page == MAP_FAILED && off < 1l << 30; off += 1 << 20)
		page = mmap(code - off, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (page == MAP_FAILED || mprotect(code, 8192, PROT_READ | PROT_WRITE | PROT_EXEC))
		return;
	memcpy(&d, fn + 3, 4);
	original = (void *)page;
	relative(page, "\x48\x8b\x05", 3, fn + 7 + d);	/* the instruction displaced ... */
	relative(page + 7, "\xe9", 1, fn + 7);		/* ... and jmp behind it */
	memcpy(page + 16, "\xff\x25\0\0\0\0", 6);	/* jmp *0(%rip) */
	memcpy(page + 22, &target, 8);
	mprotect(page, 4096, PROT_READ | PROT_EXEC);
	relative(fn, "\xe9", 1, page + 16);
	mprotect(code, 8192, PROT_READ | PROT_EXEC);
}
