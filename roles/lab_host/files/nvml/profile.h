/* Copyright: the bedplate developers
 * Apache License 2.0 (see LICENSE)
 *
 * The profile that the stand-in answers from: lines of `key = value`.
 *
 * A segment `*` of a key stands for any one segment, and as the last one for all that follow; of the lines that fit, the
 * last one counts.  A value `!gpu_is_lost` makes the functions that need it return that error.  What no line says is
 * "not supported".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILE_VARIABLE "BEDPLATE_GPU_PROFILE"
#define PROFILE_FILE "/etc/bedplate-lab/gpu-profile"

enum { MAX_LINES = 2048, MAX_TEXT = 160, NO_PART = -1 };
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       OPERATING_SYSTEM = 17, VERSION_MISMATCH = 25, UNKNOWN = 999 };

typedef int Status;

/* A GPU, or a part of one. */
typedef struct device { int gpu, part; } *Device;

/* --- errors ----------------------------------------------------------------------------------------------------- */

static const struct { const char *name; Status code; const char *text; } ERRORS[] = {
    {"uninitialized", UNINITIALIZED, "Uninitialized"},
    {"invalid_argument", INVALID_ARGUMENT, "Invalid Argument"},
    {"not_supported", NOT_SUPPORTED, "Not Supported"},
    {"no_permission", 4, "Insufficient Permissions"},
    {"not_found", NOT_FOUND, "Not Found"},
    {"insufficient_size", INSUFFICIENT_SIZE, "Insufficient Size"},
    {"driver_not_loaded", 9, "Driver Not Loaded"},
    {"timeout", 10, "Timeout"},
    {"gpu_is_lost", 15, "GPU is lost"},
    {"reset_required", 16, "GPU requires reset"},
    {"operating_system", OPERATING_SYSTEM, "Operating System Error"},
    {"driver_mismatch", 18, "Driver/library version mismatch"},
    {"no_data", 21, "No data"},
    {"version_mismatch", VERSION_MISMATCH, "Argument version mismatch"},
    {"not_ready", 27, "Not ready"},
    {"unknown", UNKNOWN, "Unknown Error"},
};

const char *nvmlErrorString(Status code) {
    if (code == SUCCESS) return "Success";
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == code) return ERRORS[i].text;
    return "Unknown Error";
}

static Status error_named(const char *name) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (!strcmp(ERRORS[i].name, name)) return ERRORS[i].code;
    return UNKNOWN;
}

/* --- the profile ------------------------------------------------------------------------------------------------ */

static struct { char key[MAX_TEXT], value[MAX_TEXT]; } lines[MAX_LINES];
static int line_count, started;

static char *trim(char *text) {
    char *end = text + strlen(text);
    while (*text == ' ' || *text == '\t') text++;
    while (end > text && strchr(" \t\r\n", end[-1])) *--end = 0;
    return text;
}

static Status load_profile(void) {
    const char *path = getenv(PROFILE_VARIABLE);
    char line[2 * MAX_TEXT];
    FILE *file = fopen(path && *path ? path : PROFILE_FILE, "re");
    if (!file) return OPERATING_SYSTEM;
    for (line_count = 0; line_count < MAX_LINES && fgets(line, sizeof line, file);) {
        char *key = trim(line), *equals = strchr(key, '=');
        if (*key == '#' || !equals) continue;
        *equals = 0;
        snprintf(lines[line_count].key, MAX_TEXT, "%s", trim(key));
        snprintf(lines[line_count++].value, MAX_TEXT, "%s", trim(equals + 1));
    }
    fclose(file);
    return SUCCESS;
}

static int fits(const char *pattern, const char *key) {
    for (;;) {
        size_t width = strcspn(pattern, "."), length = strcspn(key, ".");
        int any = width == 1 && *pattern == '*';
        if (any && !pattern[1]) return 1;
        if (!any && (width != length || strncmp(pattern, key, width))) return 0;
        if (!pattern[width] || !key[length]) return !pattern[width] && !key[length];
        pattern += width + 1;
        key += length + 1;
    }
}

static const char *find(const char *key) {
    const char *value = NULL;
    for (int i = 0; i < line_count; i++)
        if (fits(lines[i].key, key)) value = lines[i].value;
    return value;
}

/* The value for a key, or the error that the profile wants instead of it. */
static Status text_at(const char *key, const char **value) {
    *value = find(key);
    if (!*value) return NOT_SUPPORTED;
    return **value == '!' ? error_named(*value + 1) : SUCCESS;
}

/* `gpu.3.memory.total`, or `gpu.3.mig.0.memory.total` for a part of a GPU. */
static Status device_text(Device device, const char *name, const char **value) {
    char key[MAX_TEXT];
    if (!started) return UNINITIALIZED;
    if (!device) return INVALID_ARGUMENT;
    if (device->part == NO_PART) snprintf(key, sizeof key, "gpu.%d.%s", device->gpu, name);
    else snprintf(key, sizeof key, "gpu.%d.mig.%d.%s", device->gpu, device->part, name);
    return text_at(key, value);
}

static Status device_number(Device device, const char *name, unsigned long long *number) {
    const char *text;
    Status status = device_text(device, name, &text);
    if (!status) *number = strtoull(text, NULL, 0);
    return status;
}

static Status device_unsigned(Device device, const char *name, unsigned *number) {
    unsigned long long value;
    Status status = device_number(device, name, &value);
    if (!status) *number = (unsigned)value;
    return status;
}

static unsigned long long number_or(Device device, const char *name, unsigned long long otherwise) {
    unsigned long long value;
    return device_number(device, name, &value) ? otherwise : value;
}

static Status copy_text(Status status, const char *text, char *buffer, unsigned size) {
    if (status) return status;
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}
