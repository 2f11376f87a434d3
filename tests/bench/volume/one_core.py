"""What one processor core encrypts, where the kernel cannot be asked (`cryptsetup benchmark` needs its AF_ALG).

    python3 one_core.py SM4_C RESULT      # gcc and openssl; SM4_C: crypto/sm4.c of a kernel's source

Two bounds for what dm-crypt can do with one core, neither of them dm-crypt:
  aes-256-xts  OpenSSL's, 4096 bytes a call (`openssl speed`): the processor's AES instructions at their best.
  sm4-xts      the kernel's own sm4.c, compiled for user space between a few lines that stand for the kernel's headers,
               with XTS around it, 4096 bytes a sector: what the module sm4_generic runs, without what the kernel adds.
MB/s (10^6 bytes) of processor time, so that other work of the machine counts little; decryption, since reading weights
is that.  The best of three.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

# The names that sm4.c uses of the kernel.
KERNEL = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
typedef uint8_t u8; typedef uint32_t u32; typedef uint64_t u64;
#define ____cacheline_aligned __attribute__((aligned(64)))
#define __alias(name) __attribute__((alias(#name)))
#define EXPORT_SYMBOL(name) extern int unused_ ## name
#define EXPORT_SYMBOL_GPL(name) extern int unused_ ## name
#define MODULE_DESCRIPTION(text) extern int unused_description
#define MODULE_LICENSE(text) extern int unused_license
#define EINVAL 22
#define SM4_KEY_SIZE 16
#define SM4_BLOCK_SIZE 16
#define SM4_RKEY_WORDS 32
struct sm4_ctx { u32 rkey_enc[SM4_RKEY_WORDS]; u32 rkey_dec[SM4_RKEY_WORDS]; };
static inline u32 rol32(u32 word, unsigned shift) { return word << shift | word >> (32 - shift); }
static inline u32 get_unaligned_be32(const void *at) { u32 v; memcpy(&v, at, 4); return __builtin_bswap32(v); }
static inline void put_unaligned_be32(u32 v, void *at) { v = __builtin_bswap32(v); memcpy(at, &v, 4); }
"""
# The standard's example first (GB/T 32907, annex A), so that what is measured is SM4.
MAIN = r"""
static u8 data[1 << 20];
int main(void) {
    static const u8 key[16] = {1,0x23,0x45,0x67,0x89,0xab,0xcd,0xef,0xfe,0xdc,0xba,0x98,0x76,0x54,0x32,0x10};
    static const u8 expected[16] = {0x68,0x1e,0xdf,0x34,0xd2,6,0x96,0x5e,0x86,0xb3,0xe9,0x4f,0x53,0x6e,0x42,0x46};
    struct sm4_ctx ctx; u8 out[16]; struct timespec from, now; double seconds; u64 done = 0;
    sm4_expandkey(&ctx, key, 16);
    sm4_crypt_block(ctx.rkey_enc, out, key);
    if (memcmp(out, expected, 16)) return 1;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    do {
        for (size_t sector = 0; sector < sizeof(data); sector += 4096) {
            u64 t[2] = {sector, 0};
            sm4_crypt_block(ctx.rkey_enc, (u8 *)t, (u8 *)t);
            for (size_t at = sector; at < sector + 4096; at += 16) {
                u64 x[2]; memcpy(x, data + at, 16);
                x[0] ^= t[0]; x[1] ^= t[1];
                sm4_crypt_block(ctx.rkey_dec, (u8 *)x, (u8 *)x);
                x[0] ^= t[0]; x[1] ^= t[1];
                memcpy(data + at, x, 16);
                u64 carry = -(t[1] >> 63) & 0x87;
                t[1] = t[1] << 1 | t[0] >> 63; t[0] = t[0] << 1 ^ carry;
            }
        }
        done += sizeof(data);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        seconds = now.tv_sec - from.tv_sec + (now.tv_nsec - from.tv_nsec) / 1e9;
    } while (seconds < 3);
    printf("%.1f\n", done / 1e6 / seconds);
    return 0;
}
"""


def sm4(source: Path) -> float:
    text = re.sub(r"^#include .*$", "", source.read_text(), flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "sm4")
        Path(folder, "sm4.c").write_text(KERNEL + text + MAIN)
        subprocess.run(["gcc", "-O2", "-fno-strict-aliasing", "-o", str(program), f"{program}.c"], check=True)
        return max(float(subprocess.run([str(program)], check=True, capture_output=True).stdout) for _round in range(3))


def aes() -> float:
    argv = ["openssl", "speed", "-mr", "-decrypt", "-seconds", "3", "-bytes", "4096", "-evp", "aes-256-xts"]
    said = [subprocess.run(argv, check=True, capture_output=True, text=True).stdout for _round in range(3)]
    return max(float(re.search(r"^\+F:.*:([\d.]+)$", text, re.M)[1]) / 1e6 for text in said)


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    info = Path("/proc/cpuinfo").read_text()
    result = {
        "command": "python3 tests/bench/volume/one_core.py SM4_C RESULT",
        "date": datetime.now(UTC).date().isoformat(),
        "processor": re.search(r"^model name\s*: (.*)$", info, re.M)[1],
        "instructions": sorted(set(info.split()) & {"aes", "avx", "avx2", "vaes", "gfni"}),
        "openssl": subprocess.run(["openssl", "version"], check=True, capture_output=True, text=True).stdout.strip(),
        "load_average": round(os.getloadavg()[0], 1),
        "mb_s": {"aes-256-xts": round(aes(), 1), "sm4-xts": round(sm4(Path(sys.argv[1])), 1)},
    }
    Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["mb_s"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
