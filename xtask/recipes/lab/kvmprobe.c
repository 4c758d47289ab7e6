/*
 * This Source Code Form is subject to the terms of the Mozilla Public
 * License, v. 2.0. If a copy of the MPL was not distributed with this
 * file, You can obtain one at https://mozilla.org/MPL/2.0/.
 */

/*
 * kvmprobe [CHECK]: say what a /dev/kvm can really do.
 *
 * Each check runs in its own process under a time limit, so a hypervisor that
 * hangs or kills a guest costs one line of the report and nothing more.
 * Build: cc -O1 -static -pthread -o kvmprobe kvmprobe.c
 * Exit status: 0 when every check passed, 1 otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEM   (4u << 20)
#define ROM   0xffff0000u
#define CODE  0x8000u   /* guest code is copied here (a valid SIPI page) */
#define GDT   0x5000u
#define IDT   0x6000u
#define CNT   0x7000u   /* interrupt counters, 8 bytes per vector */
#define PML4  0x10000u
#define STACK 0x80000u
#define MMIO  0xd0000000u

static int kvm, vm, cpu[2];
static struct kvm_run *run[2];
static uint8_t *mem, *rom;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
static void die(const char *what)
{
	printf("FAIL %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}
#define CHECK(x, what) do { if ((x) < 0) die(what); } while (0)

static void slot(int n, uint64_t gpa, uint64_t size, void *p)
{
	struct kvm_userspace_memory_region r = { n, 0, gpa, size, (uintptr_t)p };
	CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r), "SET_USER_MEMORY_REGION");
}
static void mkcpu(int i)
{
	struct { struct kvm_cpuid2 h; struct kvm_cpuid_entry2 e[200]; } c = { .h.nent = 200 };
	CHECK(cpu[i] = ioctl(vm, KVM_CREATE_VCPU, i), "CREATE_VCPU");
	run[i] = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), 3, MAP_SHARED, cpu[i], 0);
	CHECK(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &c), "GET_SUPPORTED_CPUID");
	CHECK(ioctl(cpu[i], KVM_SET_CPUID2, &c), "SET_CPUID2");
}
static void mkvm(int irqchip, int cpus)
{
	CHECK(kvm = open("/dev/kvm", O_RDWR), "open /dev/kvm");
	CHECK(vm = ioctl(kvm, KVM_CREATE_VM, 0), "CREATE_VM");
	CHECK(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "SET_TSS_ADDR");
	if (irqchip) {
		struct kvm_pit_config p = { 0 };
		CHECK(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "CREATE_IRQCHIP");
		CHECK(ioctl(vm, KVM_CREATE_PIT2, &p), "CREATE_PIT2");
	}
	mem = mmap(0, MEM, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	rom = mmap(0, 0x10000, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	slot(0, 0, MEM, mem);
	slot(1, ROM, 0x10000, rom);
	for (int i = 0; i < cpus; i++)
		mkcpu(i);
	uint64_t g[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff };
	memcpy(mem + GDT, g, sizeof g);
	uint64_t *l4 = (void *)(mem + PML4), *l3 = l4 + 512, *l2 = l3 + 512;
	l4[0] = (PML4 + 0x1000) | 7;
	for (int i = 0; i < 4; i++)
		l3[i] = (PML4 + 0x2000 + 0x1000 * i) | 7;
	for (uint64_t i = 0; i < 2048; i++)
		l2[i] = i << 21 | 0x87;
}
static void idt(int vec, unsigned handler)
{
	struct { uint16_t lo, sel, typ, mid; uint32_t hi, z; } g =
		{ handler, 8, 0x8e00, handler >> 16, 0, 0 };
	memcpy(mem + IDT + 16 * vec, &g, 16);
}
/* bits: 16, 32 or 64 */
static void mode(int bits, unsigned rip)
{
	struct kvm_sregs s;
	struct kvm_regs r = { .rip = rip, .rsp = STACK, .rflags = 2, .rax = 2, .rbx = 2 };
	CHECK(ioctl(cpu[0], KVM_GET_SREGS, &s), "GET_SREGS");
	if (bits == 16) {
		s.cs.selector = 0;
		s.cs.base = 0;
	} else {
		struct kvm_segment c = { .limit = ~0u, .selector = bits == 64 ? 8 : 24, .type = 11,
			.present = 1, .s = 1, .g = 1, .l = bits == 64, .db = bits == 32 };
		struct kvm_segment d = c;
		d.type = 3, d.selector = 16, d.l = 0, d.db = 1;
		s.cs = c;
		s.ds = s.es = s.ss = s.fs = s.gs = d;
		s.gdt.base = GDT, s.gdt.limit = 31;
		s.cr0 |= 1;
		if (bits == 64) {
			s.idt.base = IDT, s.idt.limit = 0xfff;
			s.cr3 = PML4, s.cr4 |= 0x20, s.cr0 |= 0x80000000, s.efer |= 0x500;
		}
	}
	CHECK(ioctl(cpu[0], KVM_SET_SREGS, &s), "SET_SREGS");
	CHECK(ioctl(cpu[0], KVM_SET_REGS, &r), "SET_REGS");
}

#define BLOB(name) extern uint8_t name[], name##_end[]
#define PUT(name) memcpy(mem + CODE, name, name##_end - name)

/* Port write, MMIO write and read, then HLT; the same source in three widths. */
asm(".section .rodata\n"
".macro PIOMMIO reg\n mov $0x3f8,%dx\n add %bl,%al\n add $'0',%al\n out %al,(%dx)\n"
" mov $0xd0000000,\\reg\n movl $0x1234,(\\reg)\n mov 4(\\reg),%eax\n out %al,(%dx)\n hlt\n.endm\n"
".globl t16,t16_end,t32,t32_end,t64,t64_end\n"
".code16\nt16: mov $0x3f8,%dx\n add %bl,%al\n add $'0',%al\n out %al,(%dx)\n"
" mov $0xd000,%bx\n mov %bx,%ds\n movl $0x1234,(0)\n mov 4,%eax\n out %al,(%dx)\n hlt\nt16_end:\n"
".code32\nt32: PIOMMIO %ecx\nt32_end:\n"
".code64\nt64: PIOMMIO %rcx\nt64_end:\n");
BLOB(t16); BLOB(t32); BLOB(t64);

/* Reset vector, then real -> protected -> long mode by the guest's own hand. */
asm(".globl rst,rst_end,up,up_end\n.code16\nrst: ljmp $0,$0x8000\nrst_end:\n"
"up: cli\n lgdtl %cs:(0x8000+upg-up)\n mov %cr0,%eax\n or $1,%al\n mov %eax,%cr0\n ljmpl $24,$(0x8000+up32-up)\n"
"upg: .word 31\n .long 0x5000\n"
".code32\nup32: mov $16,%ax\n mov %ax,%ds\n mov %ax,%ss\n mov %cr4,%eax\n or $0x20,%al\n mov %eax,%cr4\n"
" mov $0x10000,%eax\n mov %eax,%cr3\n mov $0xc0000080,%ecx\n rdmsr\n or $0x100,%ax\n wrmsr\n"
" mov %cr0,%eax\n or $0x80000000,%eax\n mov %eax,%cr0\n ljmp $8,$(0x8000+up64-up)\n"
".code64\nup64: mov $0x3f8,%dx\n mov $'L',%al\n out %al,(%dx)\n hlt\nup_end:\n");
BLOB(rst); BLOB(up);

/* Interrupts: 8259 + PIT on vector 0x20, MSI on 0x40 and 0x41, two ioeventfds. */
asm(".globl irq,irq_end,h20,h40,h41\nirq:\n"
" mov $0x11,%al\n out %al,$0x20\n out %al,$0xa0\n mov $0x20,%al\n out %al,$0x21\n mov $0x28,%al\n out %al,$0xa1\n"
" mov $4,%al\n out %al,$0x21\n mov $2,%al\n out %al,$0xa1\n mov $1,%al\n out %al,$0x21\n out %al,$0xa1\n"
" mov $0xfe,%al\n out %al,$0x21\n mov $0xff,%al\n out %al,$0xa1\n"
" mov $0xfee00000,%ebx\n movl $0x1ff,0xf0(%rbx)\n movl $0x700,0x350(%rbx)\n"
" mov $0x34,%al\n out %al,$0x43\n mov $0x9c,%al\n out %al,$0x40\n mov $0x2e,%al\n out %al,$0x40\n"
" sti\n out %al,$0x80\n"
" xor %eax,%eax\n out %eax,$0x90\n mov $0xd0001000,%ecx\n movl $0,(%rcx)\n"
"1: hlt\n cmpq $5,0x7100\n jb 1b\n cmpq $1,0x7200\n jb 1b\n cmpq $1,0x7208\n jb 1b\n out %al,$0x81\n hlt\n"
"h20: push %rax\n incq 0x7100\n mov $0x20,%al\n out %al,$0x20\n pop %rax\n iretq\n"
"h40: incq 0x7200\n jmp 2f\nh41: incq 0x7208\n2: push %rax\n mov $0xfee000b0,%eax\n movl $0,(%rax)\n pop %rax\n iretq\nirq_end:\n");
BLOB(irq); extern uint8_t h20[], h40[], h41[];

/* Userspace irqchip: one KVM_INTERRUPT on vector 0x30. */
asm(".globl ui,ui_end,h30\nui: sti\n1: hlt\n jmp 1b\nh30: mov $'I',%al\n out %al,$0x81\n iretq\nui_end:\n");
BLOB(ui); extern uint8_t h30[];

/* Two processors: INIT + SIPI to page 0x9000, where the second one counts. */
asm(".globl smp,smp_end,ap,ap_end\nsmp: mov $0xfee00000,%ebx\n movl $0x1ff,0xf0(%rbx)\n"
" movl $0x1000000,0x310(%rbx)\n movl $0x4500,0x300(%rbx)\n movl $0x1000000,0x310(%rbx)\n movl $0x4609,0x300(%rbx)\n"
"1: pause\n cmpl $1000000,0x7000\n jb 1b\n out %al,$0x81\n hlt\nsmp_end:\n"
".code16\nap: xor %ax,%ax\n mov %ax,%ds\n1: incl 0x7000\n jmp 1b\nap_end:\n.code64\n");
BLOB(smp); BLOB(ap);

/* Loops to time: %ecx rounds of one thing each. */
asm(".globl bpio,bpio_end,bmmio,bmmio_end,bcpuid,bcpuid_end,bspin,bspin_end,biev,biev_end,btouch,btouch_end\n"
"bpio: mov $20000,%ecx\n1: out %al,$0x80\n dec %ecx\n jnz 1b\n out %al,$0x81\nbpio_end:\n"
"bmmio: mov $20000,%ecx\n mov $0xd0000000,%ebx\n1: movl $1,(%rbx)\n dec %ecx\n jnz 1b\n out %al,$0x81\nbmmio_end:\n"
"bcpuid: mov $20000,%esi\n1: xor %eax,%eax\n cpuid\n dec %esi\n jnz 1b\n out %al,$0x81\nbcpuid_end:\n"
"bspin: mov $20000000,%ecx\n1: dec %ecx\n jnz 1b\n out %al,$0x81\nbspin_end:\n"
"biev: mov $20000,%ecx\n1: out %eax,$0x90\n dec %ecx\n jnz 1b\n out %al,$0x81\nbiev_end:\n"
"btouch: mov $20,%edx\n2: mov $0x100000,%ebx\n1: incl (%rbx)\n add $64,%ebx\n cmp $0x300000,%ebx\n jb 1b\n dec %edx\n jnz 2b\n out %al,$0x81\nbtouch_end:\n"
".text\n");
BLOB(bpio); BLOB(bmmio); BLOB(bcpuid); BLOB(bspin); BLOB(biev); BLOB(btouch);

static void show(int i)
{
	struct kvm_run *r = run[i];
	struct kvm_regs g;
	ioctl(cpu[i], KVM_GET_REGS, &g);
	printf("FAIL exit_reason=%u rip=%llx", r->exit_reason, g.rip);
	if (r->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		printf(" suberror=%u", r->internal.suberror);
	if (r->exit_reason == KVM_EXIT_FAIL_ENTRY)
		printf(" hw=%llx", r->fail_entry.hardware_entry_failure_reason);
	puts("");
	fflush(stdout);
	_exit(1);
}
static void enter(int i)
{
	while (ioctl(cpu[i], KVM_RUN, 0) < 0)
		if (errno != EINTR && errno != EAGAIN)
			die("KVM_RUN");
}
/* expect an OUT of `want` (-1: anything) to `port` */
static void out_is(int port, int want)
{
	enter(0);
	struct kvm_run *r = run[0];
	int v = r->exit_reason == KVM_EXIT_IO ? *((uint8_t *)r + r->io.data_offset) : -1;
	if (r->exit_reason != KVM_EXIT_IO || r->io.port != port || (want >= 0 && v != want))
		show(0);
}
static void hlt_is(void) { enter(0); if (run[0]->exit_reason != KVM_EXIT_HLT) show(0); }
static void mmio_is(uint64_t gpa, int write)
{
	enter(0);
	struct kvm_run *r = run[0];
	if (r->exit_reason != KVM_EXIT_MMIO || r->mmio.phys_addr != gpa || r->mmio.is_write != write)
		show(0);
}

static void flat(int bits)
{
	mkvm(0, 1);
	if (bits == 16) PUT(t16); else if (bits == 32) PUT(t32); else PUT(t64);
	mode(bits, CODE);
	uint64_t a = bits == 16 ? 0xd0000 : MMIO;	/* beyond what the slots hold */
	if (bits == 16) {	/* leave a hole at 0xd0000 */
		slot(0, 0, 0, mem);
		slot(0, 0, 0xa0000, mem);
	}
	out_is(0x3f8, '4');
	mmio_is(a, 1);
	mmio_is(a + 4, 0);
	memcpy(run[0]->mmio.data, "M\0\0\0", 4);
	out_is(0x3f8, 'M');
	hlt_is();
}
static void real16(void) { flat(16); }
static void prot32(void) { flat(32); }
static void long64(void) { flat(64); }
static void reset(void)
{
	mkvm(0, 1);
	memcpy(rom + 0xfff0, rst, rst_end - rst);
	memcpy(mem + CODE, up, up_end - up);
	out_is(0x3f8, 'L');
	hlt_is();
}
static void route(int gsi, unsigned vec)
{
	struct { struct kvm_irq_routing h; struct kvm_irq_routing_entry e[2]; } t = { .h.nr = 2 };
	t.e[0] = (struct kvm_irq_routing_entry){ .gsi = 0, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_PIC_MASTER, 0 } };
	t.e[1] = (struct kvm_irq_routing_entry){ .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = vec } };
	CHECK(ioctl(vm, KVM_SET_GSI_ROUTING, &t), "SET_GSI_ROUTING");
}
static int ioev(uint64_t addr, int pio)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct kvm_ioeventfd e = { .addr = addr, .len = 4, .fd = fd,
		.flags = pio ? KVM_IOEVENTFD_FLAG_PIO : 0 };
	CHECK(ioctl(vm, KVM_IOEVENTFD, &e), "IOEVENTFD");
	return fd;
}
static void irqs(void)
{
	mkvm(1, 1);
	PUT(irq);
	idt(0x20, CODE + (h20 - irq));
	idt(0x40, CODE + (h40 - irq));
	idt(0x41, CODE + (h41 - irq));
	mode(64, CODE);
	route(24, 0x41);
	int ef = eventfd(0, 0);
	struct kvm_irqfd f = { .fd = ef, .gsi = 24 };
	CHECK(ioctl(vm, KVM_IRQFD, &f), "IRQFD");
	int a = ioev(0x90, 1), b = ioev(MMIO + 0x1000, 0);
	out_is(0x80, -1);
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = 0x40 };
	CHECK(ioctl(vm, KVM_SIGNAL_MSI, &m), "SIGNAL_MSI");
	uint64_t one = 1;
	CHECK(write(ef, &one, 8), "irqfd write");
	out_is(0x81, -1);
	CHECK(read(a, &one, 8), "pio ioeventfd");
	CHECK(read(b, &one, 8), "mmio ioeventfd");
	printf("(PIT ticks %lu, MSI %lu, irqfd %lu, both ioeventfds) ", *(uint64_t *)(mem + 0x7100),
	       *(uint64_t *)(mem + 0x7200), *(uint64_t *)(mem + 0x7208));
}
static void split(void)
{
	CHECK(kvm = open("/dev/kvm", O_RDWR), "open");
	CHECK(vm = ioctl(kvm, KVM_CREATE_VM, 0), "CREATE_VM");
	struct kvm_enable_cap c = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	CHECK(ioctl(vm, KVM_ENABLE_CAP, &c), "ENABLE_CAP SPLIT_IRQCHIP");
	mkcpu(0);
}
static void userirq(void)
{
	mkvm(0, 1);
	PUT(ui);
	idt(0x30, CODE + (h30 - ui));
	mode(64, CODE);
	hlt_is();
	struct kvm_interrupt i = { 0x30 };
	CHECK(ioctl(cpu[0], KVM_INTERRUPT, &i), "KVM_INTERRUPT");
	out_is(0x81, 'I');
}
static void *ap_thread(void *x) { enter(1); return x; }
static void twocpu(void)
{
	mkvm(1, 2);
	PUT(smp);
	memcpy(mem + 0x9000, ap, ap_end - ap);
	mode(64, CODE);
	pthread_t t;
	pthread_create(&t, 0, ap_thread, 0);
	out_is(0x81, -1);
}
static void dirty(void)
{
	mkvm(0, 1);
	PUT(btouch);
	mode(64, CODE);
	struct kvm_userspace_memory_region r = { 0, KVM_MEM_LOG_DIRTY_PAGES, 0, MEM, (uintptr_t)mem };
	CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r), "LOG_DIRTY_PAGES");
	out_is(0x81, -1);
	uint64_t bits[MEM / 4096 / 64] = { 0 };
	struct kvm_dirty_log d = { .slot = 0, .dirty_bitmap = bits };
	CHECK(ioctl(vm, KVM_GET_DIRTY_LOG, &d), "GET_DIRTY_LOG");
	int n = 0;
	for (unsigned i = 0; i < MEM / 4096; i++)
		n += bits[i / 64] >> (i % 64) & 1;
	if (n < 512) { printf("FAIL dirty pages %d\n", n); _exit(1); }
	printf("(%d pages) ", n);
}
static void bench(const char *what, uint8_t *code, uint8_t *end, double rounds, int irqchip)
{
	mkvm(irqchip, 1);
	memcpy(mem + CODE, code, end - code);
	mode(64, CODE);
	if (code == biev)
		ioev(0x90, 1);
	double t = now();
	for (;;) {
		enter(0);
		struct kvm_run *r = run[0];
		if (r->exit_reason == KVM_EXIT_IO && r->io.port == 0x81)
			break;
		if (r->exit_reason != KVM_EXIT_IO && r->exit_reason != KVM_EXIT_MMIO)
			show(0);
	}
	t = now() - t;
	printf("(%.2f us per %s) ", t / rounds * 1e6, what);
}
static void b1(void) { bench("port-write exit to userspace", bpio, bpio_end, 20000, 0); }
static void b2(void) { bench("MMIO-write exit to userspace", bmmio, bmmio_end, 20000, 0); }
static void b3(void) { bench("CPUID exit handled in kernel", bcpuid, bcpuid_end, 20000, 0); }
static void b4(void) { bench("ioeventfd kick", biev, biev_end, 20000, 1); }
static void b5(void) { bench("million loop rounds in the guest", bspin, bspin_end, 20, 0); }
static void b6(void)
{
	uint32_t c = 20000000;
	double t = now();
	asm volatile("1: dec %0\n jnz 1b" : "+r"(c));
	printf("(%.2f us per million loop rounds outside the guest) ", (now() - t) / 20 * 1e6);
}
static void create(void)
{
	CHECK(kvm = open("/dev/kvm", O_RDWR), "open /dev/kvm");
	CHECK(vm = ioctl(kvm, KVM_CREATE_VM, 0), "CREATE_VM");
	printf("(API %d) ", ioctl(kvm, KVM_GET_API_VERSION, 0));
}
static void caps(void)
{
	static const struct { int n; const char *s; } c[] = {
#define C(x) { KVM_CAP_##x, #x }
		C(IRQCHIP), C(USER_MEMORY), C(SET_TSS_ADDR), C(EXT_CPUID), C(MP_STATE), C(PIT2), C(PIT_STATE2),
		C(IRQ_ROUTING), C(IRQFD), C(IRQFD_RESAMPLE), C(IOEVENTFD), C(IOEVENTFD_ANY_LENGTH), C(SIGNAL_MSI),
		C(ADJUST_CLOCK), C(VCPU_EVENTS), C(DEBUGREGS), C(XSAVE), C(XCRS), C(TSC_CONTROL), C(GET_TSC_KHZ),
		C(TSC_DEADLINE_TIMER), C(READONLY_MEM), C(SPLIT_IRQCHIP), C(X2APIC_API), C(X86_SMM), C(IMMEDIATE_EXIT),
		C(NR_VCPUS), C(MAX_VCPUS), C(NR_MEMSLOTS), C(DIRTY_LOG_RING), C(MANUAL_DIRTY_LOG_PROTECT2),
		C(EXCEPTION_PAYLOAD), C(HYPERV), C(HYPERV_CPUID), C(X86_DISABLE_EXITS), C(SYNC_REGS), C(KVMCLOCK_CTRL),
		C(NESTED_STATE), C(SET_GUEST_DEBUG), C(SREGS2), C(XSAVE2), C(X86_USER_SPACE_MSR), C(X86_MSR_FILTER),
	};
	CHECK(kvm = open("/dev/kvm", O_RDWR), "open /dev/kvm");
	CHECK(vm = ioctl(kvm, KVM_CREATE_VM, 0), "CREATE_VM");
	printf("\n   ");
	for (unsigned i = 0; i < sizeof c / sizeof *c; i++)
		printf(" %s=%d", c[i].s, ioctl(vm, KVM_CHECK_EXTENSION, c[i].n));
	printf("\n    ");
}
static int check(const char *name, void (*f)(void))
{
	int st;
	printf("%-10s ", name);
	fflush(stdout);
	pid_t p = fork();
	if (!p) {
		alarm(30);
		f();
		printf("ok\n");
		fflush(stdout);
		_exit(0);
	}
	waitpid(p, &st, 0);
	if (WIFSIGNALED(st))
		printf("FAIL killed by signal %d%s\n", WTERMSIG(st), WTERMSIG(st) == SIGALRM ? " (hung for 30 s)" : "");
	return st != 0;
}
int main(int argc, char **argv)
{
	static const struct { const char *n; void (*f)(void); } t[] = {
		{ "create", create }, { "caps", caps }, { "real16", real16 }, { "prot32", prot32 }, { "long64", long64 },
		{ "reset", reset }, { "userirq", userirq }, { "irqchip", irqs }, { "split", split }, { "twocpu", twocpu },
		{ "dirtylog", dirty }, { "pio", b1 }, { "mmio", b2 }, { "cpuid", b3 }, { "ioeventfd", b4 },
		{ "spin", b5 }, { "spinhost", b6 },
	};
	int bad = 0;
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++)
		if (argc < 2 || !strcmp(argv[1], t[i].n))
			bad |= check(t[i].n, t[i].f);
	return bad;
}
