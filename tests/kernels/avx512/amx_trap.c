/* Does what AMX instructions say, on an x86-64 Linux processor that has none.

   The processor raises an illegal instruction; the handler decodes it, does the work on tiles in memory, one set a thread, and steps
   over it. So what the compiler really emitted is tested: encodings, strides, packing, arithmetic. Any instruction that is not known
   here ends the process as it would without this file.

     cc -O2 -march=native -ffp-contract=off -shared -fPIC -o amx_trap.so amx_trap.c;  LD_PRELOAD=./amx_trap.so python ...

   Source: "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2, 2023: VEX encoding, TDPBF16PS, TDPBSUD. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <xmmintrin.h>

enum { ROWS = 16, BYTES = 64, LANES = BYTES / 4 };

/* Memory of a thread that is there before the thread's first instruction: a handler must not allocate. */
#define OF_THREAD static __thread __attribute__((tls_model("initial-exec")))

OF_THREAD uint8_t tiles[8][ROWS][BYTES];
OF_THREAD uint8_t layout[64];

static int n_rows(int tile) { return layout[48 + tile]; }
static int n_bytes(int tile) { return layout[16 + 2 * tile] | layout[17 + 2 * tile] << 8; }

static float bf16(const uint8_t *at) {
    uint32_t bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Pairs are summed apart, then together; every operation rounds to nearest even and loses denormals. */
static void multiply_bf16(int sum, int a, int b) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x9FC0);
    for (int m = 0; m < n_rows(sum); m++) {
        float even[LANES] = {0}, odd[LANES] = {0}, *out = (float *)tiles[sum][m];
        for (int k = 0; k < n_bytes(a) / 4; k++)
            for (int n = 0; n < n_bytes(sum) / 4; n++) {
                even[n] += bf16(&tiles[a][m][4 * k]) * bf16(&tiles[b][k][4 * n]);
                odd[n] += bf16(&tiles[a][m][4 * k + 2]) * bf16(&tiles[b][k][4 * n + 2]);
            }
        for (int n = 0; n < n_bytes(sum) / 4; n++) out[n] += even[n] + odd[n];
    }
    _mm_setcsr(before);
}

/* The first operand signed, the second one not. */
static void multiply_int8(int sum, int a, int b) {
    for (int m = 0; m < n_rows(sum); m++) {
        int32_t *out = (int32_t *)tiles[sum][m];
        for (int k = 0; k < n_bytes(a) / 4; k++)
            for (int n = 0; n < n_bytes(sum) / 4; n++)
                for (int i = 0; i < 4; i++) out[n] += (int8_t)tiles[a][m][4 * k + i] * (int)tiles[b][k][4 * n + i];
    }
}

static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

struct operand {
    uint8_t *base;
    int64_t stride; /* of rows: what the index register says */
    int length;     /* of the instruction, which ends with it */
};

/* ModRM, SIB and displacement, after three bytes of VEX and the opcode. */
static struct operand in_memory(const uint8_t *code, const greg_t *registers) {
    int index_high = !(code[1] & 0x40) << 3, base_high = !(code[1] & 0x20) << 3;
    int mod = code[4] >> 6, rm = code[4] & 7, base = rm | base_high;
    struct operand found = {0, 0, 5};
    int has_base = 1;
    int64_t displacement = 0;
    if (rm == 4) {
        uint8_t sib = code[found.length++];
        int index = (sib >> 3 & 7) | index_high;
        if (index != 4) found.stride = registers[REGISTERS[index]] * ((int64_t)1 << (sib >> 6));
        base = (sib & 7) | base_high;
        has_base = !((sib & 7) == 5 && mod == 0);
    } else if (rm == 5 && mod == 0) { /* relative to the next instruction; nothing follows the displacement */
        int32_t wide;
        memcpy(&wide, code + found.length, 4);
        found.length += 4;
        found.base = (uint8_t *)(code + found.length + wide);
        return found;
    }
    if (mod == 1) displacement = (int8_t)code[found.length++];
    if (mod == 2 || !has_base) {
        int32_t wide;
        memcpy(&wide, code + found.length, 4);
        displacement = wide;
        found.length += 4;
    }
    found.base = (uint8_t *)(displacement + (has_base ? registers[REGISTERS[base]] : 0));
    return found;
}

enum { CONFIGURE = 0x49, MOVE = 0x4B, INT8 = 0x5E, BF16 = 0x5C };
enum { NO_PREFIX = 0, P66 = 1, PF3 = 2, PF2 = 3 };

static int done(const uint8_t *code, const greg_t *registers) {
    if (code[0] != 0xC4 || (code[1] & 0x1F) != 2) return 0; /* three bytes of VEX, map 0F38 */
    int opcode = code[3], prefix = code[2] & 3, third = ~(code[2] >> 3) & 15;
    int mod = code[4] >> 6, tile = code[4] >> 3 & 7, second = code[4] & 7;
    if (mod == 3) {
        if (opcode == CONFIGURE && prefix == NO_PREFIX) {
            memset(layout, 0, sizeof layout);
            memset(tiles, 0, sizeof tiles);
        } else if (opcode == CONFIGURE && prefix == PF2) memset(tiles[tile], 0, sizeof tiles[tile]);
        else if (opcode == BF16 && prefix == PF3) multiply_bf16(tile, second, third & 7);
        else if (opcode == INT8 && prefix == PF3) multiply_int8(tile, second, third & 7);
        else return 0;
        return 5;
    }
    struct operand at = in_memory(code, registers);
    if (opcode == CONFIGURE && prefix == NO_PREFIX) {
        memcpy(layout, at.base, sizeof layout);
        memset(tiles, 0, sizeof tiles);
    } else if (opcode == MOVE && prefix == PF2) {
        memset(tiles[tile], 0, sizeof tiles[tile]);
        for (int m = 0; m < n_rows(tile); m++) memcpy(tiles[tile][m], at.base + m * at.stride, n_bytes(tile));
    } else if (opcode == MOVE && prefix == PF3) {
        for (int m = 0; m < n_rows(tile); m++) memcpy(at.base + m * at.stride, tiles[tile][m], n_bytes(tile));
    } else return 0;
    return at.length;
}

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int length = done((const uint8_t *)registers[REG_RIP], registers);
    (void)info;
    if (!length) signal(signal_number, SIG_DFL); /* raised again when this returns */
    registers[REG_RIP] += length;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, 0);
}
