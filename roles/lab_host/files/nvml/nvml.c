/* Copyright: the bedplate developers
 * Apache License 2.0 (see LICENSE)
 *
 * A stand-in for libnvidia-ml.so.1 on machines without a GPU: it answers what a profile says, so that the real pynvml
 * and bedplate.llm.gpu_info run unmodified.  Only what gpu_info asks is here.  Written from the documented interface;
 * the structures below are the part of it that these functions share with their callers.
 *
 *   cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml.c
 *
 * What a profile is, and what is done with it: profile.h.
 */
#include "profile.h"

/* In the library's version, so that nobody takes the answers for hardware. */
#define MARK "+simulated"

enum { MAX_GPUS = 16, MAX_PARTS = 8 };

/* --- what callers and the library share ------------------------------------------------------------------------- */

typedef struct {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} PciInfo;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { unsigned environment, feature, devtools; } ConfidentialState;
typedef struct {
    unsigned multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mib;
} Attributes;
typedef struct { unsigned char cluster[16]; unsigned status, clique, state; } Fabric;
typedef struct {
    unsigned version;
    unsigned char cluster[16];
    unsigned status, clique, state, health_mask;
    unsigned char health_summary; /* from version 3 */
} FabricV;

static Status device_copy(Device device, const char *name, char *buffer, unsigned size) {
    const char *text;
    Status status = device_text(device, name, &text);
    return copy_text(status, text, buffer, size);
}

/* --- the library and the driver --------------------------------------------------------------------------------- */

Status nvmlInitWithFlags(unsigned flags) {
    const char *value;
    Status status = load_profile();
    (void)flags;
    if (status) return status;
    status = text_at("init", &value);
    if (status == NOT_SUPPORTED) status = SUCCESS;
    started = !status;
    return status;
}
Status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Status nvmlShutdown(void) { started = 0; return SUCCESS; }

/* The one question that the library answers without the driver. */
Status nvmlSystemGetNVMLVersion(char *buffer, unsigned size) {
    const char *text;
    char marked[MAX_TEXT];
    Status status = text_at("nvml.version", &text);
    if (status) return status;
    snprintf(marked, sizeof marked, "%.64s%s", text, MARK);
    return copy_text(status, marked, buffer, size);
}

static Status system_text(const char *key, const char **text) {
    return started ? text_at(key, text) : UNINITIALIZED;
}

Status nvmlSystemGetDriverVersion(char *buffer, unsigned size) {
    const char *text;
    Status status = system_text("driver.version", &text);
    return copy_text(status, text, buffer, size);
}

Status nvmlSystemGetCudaDriverVersion_v2(int *version) {
    const char *text;
    Status status = system_text("cuda.version", &text);
    if (!status) *version = atoi(text);
    return status;
}

Status nvmlSystemGetConfComputeState(ConfidentialState *state) {
    const char *text;
    Status status = system_text("confidential.feature", &text);
    if (status) return status;
    memset(state, 0, sizeof *state);
    state->feature = (unsigned)atoi(text);
    if (!system_text("confidential.environment", &text)) state->environment = (unsigned)atoi(text);
    if (!system_text("confidential.devtools", &text)) state->devtools = (unsigned)atoi(text);
    return SUCCESS;
}

Status nvmlDeviceGetCount_v2(unsigned *count) {
    const char *text;
    Status status = system_text("gpu.count", &text);
    if (!status) *count = (unsigned)atoi(text);
    return status;
}

/* --- GPUs and their parts --------------------------------------------------------------------------------------- */

static void device_handle(unsigned gpu, int part, Device *device) {
    static struct device devices[MAX_GPUS][1 + MAX_PARTS];
    *device = &devices[gpu][1 + part];
    **device = (struct device){(int)gpu, part};
}

Status nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    unsigned count;
    const char *text;
    Status status = nvmlDeviceGetCount_v2(&count);
    if (status) return status;
    if (index >= count || index >= MAX_GPUS) return INVALID_ARGUMENT;
    device_handle(index, NO_PART, device);
    status = device_text(*device, "handle", &text);
    return status == NOT_SUPPORTED ? SUCCESS : status;
}

Status nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *count) {
    return device_unsigned(device, "mig.slots", count);
}

Status nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *part) {
    const char *text;
    if (!device || index >= MAX_PARTS) return INVALID_ARGUMENT;
    device_handle((unsigned)device->gpu, (int)index, part);
    return device_text(*part, "uuid", &text) == NOT_SUPPORTED ? NOT_FOUND : SUCCESS;
}

Status nvmlDeviceGetName(Device device, char *buffer, unsigned size) {
    return device_copy(device, "name", buffer, size);
}

Status nvmlDeviceGetUUID(Device device, char *buffer, unsigned size) {
    return device_copy(device, "uuid", buffer, size);
}

static Status pci_info(Device device, const char *prefix, PciInfo *info) {
    const char *text;
    char name[MAX_TEXT];
    Status status;
    snprintf(name, sizeof name, "%sbus_id", prefix);
    status = device_text(device, name, &text);
    if (status) return status;
    memset(info, 0, sizeof *info);
    if (sscanf(text, "%x:%x:%x", &info->domain, &info->bus, &info->device) != 3) return INVALID_ARGUMENT;
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", info->domain, info->bus & 0xff, info->device & 0xff);
    snprintf(info->legacy_bus_id, sizeof info->legacy_bus_id, "%04X:%02X:%02X.0", info->domain & 0xffff,
             info->bus & 0xff, info->device & 0xff);
    info->device_id = (unsigned)number_or(device, "pci.device_id", 0) << 16 | 0x10de;
    info->subsystem_id = (unsigned)number_or(device, "pci.subsystem_id", 0);
    return SUCCESS;
}
Status nvmlDeviceGetPciInfo_v3(Device device, PciInfo *info) { return pci_info(device, "pci.", info); }

Status nvmlDeviceGetArchitecture(Device device, unsigned *value) {
    return device_unsigned(device, "architecture", value);
}

Status nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    const char *text;
    Status status = device_text(device, "compute_capability", &text);
    if (!status && sscanf(text, "%d.%d", major, minor) != 2) return INVALID_ARGUMENT;
    return status;
}

static Status memory_of(Device device, MemoryV2 *memory) {
    Status status = device_number(device, "memory.total", &memory->total);
    memory->reserved = number_or(device, "memory.reserved", 0);
    memory->used = number_or(device, "memory.used", 0);
    if (!status) memory->free = memory->total - memory->reserved - memory->used;
    return status;
}

Status nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2 *memory) { return memory_of(device, memory); }

Status nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    MemoryV2 all;
    Status status = memory_of(device, &all);
    if (status) return status;
    memory->total = all.total;
    memory->free = all.free;
    memory->used = all.used + all.reserved;
    return SUCCESS;
}

Status nvmlDeviceGetAttributes_v2(Device device, Attributes *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->memory_mib = number_or(device, "memory.total", 0) >> 20;
    return device_unsigned(device, "multiprocessors", &attributes->multiprocessors);
}

/* Functions that give one number. */
#define NUMBER(function, key) \
    Status function(Device device, unsigned *value) { return device_unsigned(device, key, value); }
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "link.generation")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "link.generation_max")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "link.width")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "link.width_max")
NUMBER(nvmlDeviceGetPersistenceMode, "persistence")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pages.pending")
NUMBER(nvmlDeviceGetPowerManagementLimit, "power.limit_milliwatts")

/* Functions that give two: now and from the next reset on, or least and most. */
#define TWO_NUMBERS(function, first, second)                                  \
    Status function(Device device, unsigned *one, unsigned *two) {            \
        Status status = device_unsigned(device, first, one);                  \
        return status ? status : device_unsigned(device, second, two);        \
    }
TWO_NUMBERS(nvmlDeviceGetEccMode, "ecc.enabled", "ecc.pending")
TWO_NUMBERS(nvmlDeviceGetMigMode, "mig.enabled", "mig.pending")
TWO_NUMBERS(nvmlDeviceGetPowerManagementLimitConstraints, "power.limit_min_milliwatts", "power.limit_max_milliwatts")

Status nvmlDeviceGetTotalEccErrors(Device device, unsigned type, unsigned counter, unsigned long long *count) {
    char name[MAX_TEXT];
    snprintf(name, sizeof name, "ecc.%s_%s", type ? "uncorrected" : "corrected", counter ? "aggregate" : "volatile");
    return device_number(device, name, count);
}

Status nvmlDeviceGetRemappedRows(Device device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                                 unsigned *failed) {
    Status status = device_unsigned(device, "row_remap.pending", pending);
    *correctable = (unsigned)number_or(device, "row_remap.correctable", 0);
    *uncorrectable = (unsigned)number_or(device, "row_remap.uncorrectable", 0);
    *failed = (unsigned)number_or(device, "row_remap.failed", 0);
    return status;
}

Status nvmlDeviceGetUtilizationRates(Device device, Utilization *rates) {
    memset(rates, 0, sizeof *rates);
    return device_unsigned(device, "utilization_percent", &rates->gpu);
}

static Status clock_mhz(Device device, unsigned type, const char *most, unsigned *mhz) {
    char name[MAX_TEXT];
    snprintf(name, sizeof name, "clocks.%s%s_mhz", type == 2 ? "memory" : "sm", most);
    return device_unsigned(device, name, mhz);
}
Status nvmlDeviceGetClockInfo(Device device, unsigned type, unsigned *mhz) { return clock_mhz(device, type, "", mhz); }
Status nvmlDeviceGetMaxClockInfo(Device device, unsigned type, unsigned *mhz) {
    return clock_mhz(device, type, "_max", mhz);
}

/* Sets a bit for each number in a list such as `0-31,64-95`. */
static Status bits_of(Device device, const char *name, unsigned words, uint64_t *set) {
    const char *text;
    Status status = device_text(device, name, &text);
    memset(set, 0, words * sizeof *set);
    while (!status && *text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        for (; first <= last && first / 64 < words; first++) set[first / 64] |= 1ULL << first % 64;
        text = *end == ',' ? end + 1 : "";
    }
    return status;
}
Status nvmlDeviceGetCpuAffinity(Device device, unsigned words, uint64_t *set) {
    return bits_of(device, "cpu_affinity", words, set);
}
Status nvmlDeviceGetMemoryAffinity(Device device, unsigned words, uint64_t *set, unsigned scope) {
    (void)scope;
    return bits_of(device, "numa_node", words, set);
}

Status nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, Process *processes) {
    unsigned long long running;
    unsigned room = *count;
    Status status = device_number(device, "processes", &running);
    if (status) return status;
    *count = (unsigned)running;
    if (running > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < running; i++) {
        char name[MAX_TEXT];
        snprintf(name, sizeof name, "process.%u.pid", i);
        processes[i].pid = (unsigned)number_or(device, name, 0);
        snprintf(name, sizeof name, "process.%u.memory_bytes", i);
        processes[i].memory = number_or(device, name, UINT64_MAX);
        processes[i].gpu_instance = processes[i].compute_instance = UINT32_MAX;
    }
    return SUCCESS;
}

/* --- links between GPUs ----------------------------------------------------------------------------------------- */

/* Whether the GPU has this link; its key is left in `name`. */
static Status link_name(Device device, unsigned link, const char *what, char name[MAX_TEXT]) {
    unsigned long long links;
    Status status = device_number(device, "nvlink.links", &links);
    if (status) return status;
    snprintf(name, MAX_TEXT, "nvlink.%u.%s", link, what);
    return link < links ? SUCCESS : INVALID_ARGUMENT;
}

Status nvmlDeviceGetNvLinkState(Device device, unsigned link, unsigned *active) {
    char name[MAX_TEXT];
    Status status = link_name(device, link, "active", name);
    if (!status) *active = (unsigned)number_or(device, name, 1);
    return status;
}

Status nvmlDeviceGetNvLinkVersion(Device device, unsigned link, unsigned *version) {
    char name[MAX_TEXT];
    Status status = link_name(device, link, "version", name);
    return status ? status : device_unsigned(device, "nvlink.version", version);
}

Status nvmlDeviceGetNvLinkRemoteDeviceType(Device device, unsigned link, unsigned *type) {
    char name[MAX_TEXT];
    Status status = link_name(device, link, "to_switch", name);
    if (!status) *type = number_or(device, name, 0) ? 2 : 0;
    return status;
}

Status nvmlDeviceGetNvLinkRemotePciInfo_v2(Device device, unsigned link, PciInfo *info) {
    char name[MAX_TEXT];
    Status status = link_name(device, link, "", name);
    return status ? status : pci_info(device, name, info);
}

/* --- the fabric of NVSwitch ------------------------------------------------------------------------------------- */

Status nvmlDeviceGetGpuFabricInfo(Device device, Fabric *info) {
    const char *text;
    Status status = device_unsigned(device, "fabric.state", &info->state);
    if (status) return status;
    memset(info->cluster, 0, sizeof info->cluster);
    if (!device_text(device, "fabric.cluster_uuid", &text))
        for (unsigned i = 0, byte; i < sizeof info->cluster && sscanf(text, "%2x", &byte) == 1; i++) {
            info->cluster[i] = (unsigned char)byte;
            text += text[2] == '-' ? 3 : 2;
        }
    info->status = (unsigned)number_or(device, "fabric.status", 0);
    info->clique = (unsigned)number_or(device, "fabric.clique_id", 0);
    return SUCCESS;
}

Status nvmlDeviceGetGpuFabricInfoV(Device device, FabricV *info) {
    Fabric fabric;
    unsigned version = info->version >> 24;
    Status status = nvmlDeviceGetGpuFabricInfo(device, &fabric);
    if (version != 2 && version != 3) return VERSION_MISMATCH;
    if (status) return status;
    memcpy(info->cluster, fabric.cluster, sizeof info->cluster);
    info->status = fabric.status;
    info->clique = fabric.clique;
    info->state = fabric.state;
    info->health_mask = (unsigned)number_or(device, "fabric.health_mask", 0);
    if (version == 3) info->health_summary = (unsigned char)number_or(device, "fabric.health_summary", 0);
    return SUCCESS;
}
