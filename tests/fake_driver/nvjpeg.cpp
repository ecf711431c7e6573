// libnvjpeg of a card with seven engines.
extern "C" {
int nvjpegCreateSimple(void** handle) {
    *handle = handle;
    return 0;
}
int nvjpegGetHardwareDecoderInfo(void*, unsigned* engines, unsigned* cores) {
    *engines = 7;
    *cores = 1;
    return 0;
}
}
