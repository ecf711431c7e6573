// libnvcuvid and libnvidia-encode: they only have to be there.
extern "C" int nothing() { return 0; }
