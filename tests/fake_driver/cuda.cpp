// libcuda: FAKE_GPUS cards (2), FAKE_CUDA (13000), FAKE_NAME; FAKE_CUINIT an error code, FAKE_CRASH, FAKE_HANG.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

static const char* words(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value ? value : otherwise;
}

static std::string uuid_of(int card) {
    char digit = char('0' + card);
    std::string four = "-" + std::string(4, digit);
    return std::string(8, digit) + four + four + four + "-" + std::string(12, digit);
}

static std::vector<int> visible() {
    int count = atoi(words("FAKE_GPUS", "2"));
    std::vector<int> found;
    const char* list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) {
        for (int card = 0; card < count; card++) found.push_back(card);
        return found;
    }
    std::string text = list;
    for (size_t at = 0; at <= text.size();) {
        size_t end = text.find(',', at);
        if (end == std::string::npos) end = text.size();
        std::string word = text.substr(at, end - at);
        at = end + 1;
        int hit = -1;
        for (int card = 0; card < count; card++)
            if (word == std::to_string(card) || word == "GPU-" + uuid_of(card) || word == "MIG-" + uuid_of(card))
                hit = card;
        if (hit < 0) break;  // as CUDA does: nothing behind an unknown name is seen
        found.push_back(hit);
    }
    return found;
}

extern "C" {
int cuDriverGetVersion(int* version) {
    *version = atoi(words("FAKE_CUDA", "13000"));
    return 0;
}
int cuInit(unsigned) {
    if (getenv("FAKE_CRASH")) raise(SIGSEGV);
    while (getenv("FAKE_HANG")) pause();
    int code = atoi(words("FAKE_CUINIT", "0"));
    return code ? code : visible().empty() ? 100 : 0;
}
int cuGetErrorName(int code, const char** text) {
    *text = code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : nullptr;
    return *text ? 0 : 1;
}
int cuDeviceGetCount(int* count) {
    *count = int(visible().size());
    return 0;
}
int cuDeviceGet(int* device, int number) {
    std::vector<int> cards = visible();
    if (number >= int(cards.size())) return 101;
    *device = cards[number];
    return 0;
}
int cuDeviceGetName(char* name, int size, int) {
    snprintf(name, size, "%s", words("FAKE_NAME", "Fake H100 80GB"));
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
    memset(uuid, 0x11 * device, 16);
    return 0;
}
int cuDeviceGetPCIBusId(char* text, int size, int device) {
    snprintf(text, size, "0000:%02X:00.0", 0x3A + device);
    return 0;
}
int cuDeviceTotalMem_v2(size_t* nbytes, int) {
    *nbytes = size_t(80) << 30;
    return 0;
}
int cuDeviceGetAttribute(int* value, int which, int) {
    *value = which == 75 ? 9 : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = context;
    return 0;
}
int cuCtxSetCurrent(void*) { return 0; }
}
