// libnvidia-ml: FAKE_GPUS cards (2), of which FAKE_LOST has fallen off the bus; FAKE_NVML an error code; no MIG, no JPEG.
#include <cstdio>
#include <cstdlib>
#include <string>

struct Pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct Memory {
    unsigned long long total, free, used;
};
struct Rates {
    unsigned gpu, memory;
};

static bool lost(long card) {
    const char* value = getenv("FAKE_LOST");
    return value && atol(value) == card;
}

#define CARD                      \
    long card = long(device) - 1; \
    if (lost(card)) return 15

extern "C" {
int nvmlInitWithFlags(unsigned) {
    const char* value = getenv("FAKE_NVML");
    return value ? atoi(value) : 0;
}
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int) { return "an error"; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
    snprintf(text, size, "580.95.05");
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
    *version = 13000;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned* number) {
    const char* value = getenv("FAKE_GPUS");
    *number = value ? unsigned(atoi(value)) : 2;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
    *device = reinterpret_cast<void*>(long(index) + 1);
    return lost(index) ? 15 : 0;
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
    CARD;
    char digit = char('0' + card);
    std::string four = "-" + std::string(4, digit);
    std::string uuid = "GPU-" + std::string(8, digit) + four + four + four + "-" + std::string(12, digit);
    snprintf(text, size, "%s", uuid.c_str());
    return 0;
}
int nvmlDeviceGetName(void* device, char* text, unsigned size) {
    CARD;
    snprintf(text, size, "Fake H100 80GB");
    return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
    CARD;
    *memory = {80ull << 30, 79ull << 30, 1ull << 30};
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
    CARD;
    *major = 9;
    *minor = 0;
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void* device, Pci* pci) {
    CARD;
    snprintf(pci->bus_id, 32, "00000000:%02lX:00.0", 0x3A + card);
    return 0;
}
int nvmlDeviceGetMigMode(void*, unsigned*, unsigned*) { return 3; }
int nvmlDeviceGetUtilizationRates(void* device, Rates* rates) {
    CARD;
    *rates = {unsigned(10 + card), 5};
    return 0;
}
int nvmlDeviceGetDecoderUtilization(void* device, unsigned* share, unsigned* period) {
    CARD;
    *share = unsigned(90 + card);
    *period = 167000;
    return 0;
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
    CARD;
    *milliwatts = 123456;
    return 0;
}
}
