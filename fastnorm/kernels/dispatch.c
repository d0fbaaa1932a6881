/* The list of instruction sets, best first, and the choice among them.
 *
 * A row says what its table needs as bits of CPUID and of XCR0, so a new ISA is a new row and no new code. CPUID alone
 * is not enough: the operating system must also save the wide registers, which XCR0 tells.
 */
#include "runtime.h"

typedef struct {
  unsigned leaf1_ecx, leaf7_ebx, xcr0;
} cpu_bits;

#if defined(__x86_64__)
#include <cpuid.h>

#define STATE_YMM 0x06u /* xmm and the upper halves of ymm */
#define STATE_ZMM 0xe6u /* and the masks, the upper halves of zmm, zmm16 to zmm31 */
#define LEAF1 (bit_OSXSAVE | bit_FMA | bit_F16C)

static cpu_bits read_cpu(void) {
  cpu_bits cpu = {0, 0, 0};
  unsigned eax, ebx, ecx, edx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) cpu.leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) cpu.leaf7_ebx = ebx;
  if (cpu.leaf1_ecx & bit_OSXSAVE) {
    __asm__ __volatile__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    cpu.xcr0 = eax;
  }
  return cpu;
}
#else
static cpu_bits read_cpu(void) { return (cpu_bits){0, 0, 0}; }
#endif

static const struct {
  const fn_table *table;
  cpu_bits needs;
} isas[] = {
#if defined(__x86_64__)
    {&fn_table_avx512, {LEAF1, bit_AVX2 | bit_AVX512F | bit_AVX512VL | bit_AVX512DQ | bit_AVX512BW, STATE_ZMM}},
    {&fn_table_avx2, {LEAF1, bit_AVX2, STATE_YMM}},
#endif
    {&fn_table_baseline, {0, 0, 0}},
};

enum { ISAS = sizeof isas / sizeof isas[0], BASELINE = ISAS - 1 };

static cpu_bits cpu;
static int default_isa = BASELINE;
static _Thread_local int forced_isa = -1;

int fn_isa_count(void) { return ISAS; }

const char *fn_isa_name(int isa) { return isas[isa].table->isa; }

int fn_isa_supported(int isa) {
  const cpu_bits *needs = &isas[isa].needs;
  return !((needs->leaf1_ecx & ~cpu.leaf1_ecx) | (needs->leaf7_ebx & ~cpu.leaf7_ebx) | (needs->xcr0 & ~cpu.xcr0));
}

void fn_isa_set_default(int isa) { default_isa = isa; }

void fn_isa_init(void) {
  int isa = 0;
  cpu = read_cpu();
  while (!fn_isa_supported(isa)) isa++;
  fn_isa_set_default(isa);
}

int fn_isa_force(int isa) {
  int previous = forced_isa;
  forced_isa = isa;
  return previous;
}

int fn_isa_active(void) {
  int isa = forced_isa;
  return isa < 0 ? default_isa : isa;
}

const fn_table *fn_active_table(void) { return isas[fn_isa_active()].table; }
