# The only door to native code: parse, one `with nogil`, return.
# Memory: planes belong to the caller and are held (buffer protocol) for the length of a call; outputs are the caller's.
# Threads: a Resize may be used by any number of threads at once; the GIL is free while pixels are worked.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "plane.h" namespace "gpupipe" nogil:
    const int kArithmeticVersion
    const int kColourShift
    const int kMidBits

    cdef cppclass ColourMatrix:
        int32_t[3][3] c
        int32_t[3] bias


cdef extern from "resize.h" namespace "gpupipe" nogil:
    cdef cppclass Component:
        int plane, offset, step
        bint chroma

    cdef cppclass ResizeSpec:
        int64_t height, width
        int64_t crop_top, crop_left, crop_bottom, crop_right
        int64_t out_height, out_width
        int log2_y, log2_x
        int siting_y, siting_x
        int word_bytes, shift, depth
        int components
        Component[3] component
        ColourMatrix colour
        int rotation
        bint mirrored

    cdef cppclass PlaneView:
        const uint8_t* data
        int64_t stride, nbytes

    cdef cppclass CResize "gpupipe::Resize":
        CResize(const ResizeSpec&) except +
        int planes()
        int64_t out_bytes()
        void run(const PlaneView*, uint8_t*) except +


cdef extern from "kernels.h" namespace "gpupipe" nogil:
    vector[string] kernel_levels() except +
    void set_kernels(const string&) except +
    cdef cppclass Kernels:
        const char* name
    const Kernels& active_kernels()


ARITHMETIC_VERSION = kArithmeticVersion
COLOUR_SHIFT = kColourShift
MID_BITS = kMidBits


def simd_levels():
    """Names of the instruction sets this machine runs, slowest first."""
    return [name.decode() for name in kernel_levels()]


def simd_level():
    """The one in use."""
    return active_kernels().name.decode()


def set_simd(level):
    """Use one level from now on, in the whole process; None for the fastest. ValueError if it is not here."""
    set_kernels((level or "").encode())


cdef class Resize:
    """A planned resize; see csrc/resize.h for the fields, all in the decoded orientation."""

    cdef unique_ptr[CResize] _resize

    def __cinit__(self, *, size, crop, out, subsampling, siting, sample, components, colour, rotation, mirrored):
        cdef ResizeSpec spec
        cdef int i, j
        spec.height, spec.width = size
        spec.crop_top, spec.crop_left, spec.crop_bottom, spec.crop_right = crop
        spec.out_height, spec.out_width = out
        spec.log2_y, spec.log2_x = subsampling
        spec.siting_y, spec.siting_x = siting
        spec.word_bytes, spec.shift, spec.depth = sample
        spec.components = len(components)
        if spec.components not in (1, 3):
            raise ValueError("components")
        for i, (plane, offset, step, chroma) in enumerate(components):
            spec.component[i].plane = plane
            spec.component[i].offset = offset
            spec.component[i].step = step
            spec.component[i].chroma = chroma
        for i in range(3):
            coefficients, bias = colour[i]
            for j in range(3):
                spec.colour.c[i][j] = coefficients[j]
            spec.colour.bias[i] = bias
        spec.rotation = rotation
        spec.mirrored = mirrored
        self._resize.reset(new CResize(spec))

    @property
    def planes(self):
        """Planes read from each surface."""
        return self._resize.get().planes()

    def run(self, planes, strides, out):
        """Resize host planes into ``out``, a writable C-contiguous buffer of exactly the output's bytes."""
        cdef Py_buffer[4] sources
        cdef Py_buffer target
        cdef PlaneView[4] views
        cdef uint8_t* pixels
        cdef int held = 0, wanted = self._resize.get().planes()
        if len(planes) < wanted or len(strides) < wanted:
            raise ValueError(f"{min(len(planes), len(strides))} planes, expected {wanted}")
        PyObject_GetBuffer(out, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if target.len != self._resize.get().out_bytes():
                raise ValueError(f"an output of {target.len} bytes, expected {self._resize.get().out_bytes()}")
            pixels = <uint8_t*> target.buf
            while held < wanted:
                views[held].stride = strides[held]
                PyObject_GetBuffer(planes[held], &sources[held], PyBUF_SIMPLE)
                views[held].data = <const uint8_t*> sources[held].buf
                views[held].nbytes = sources[held].len
                held += 1
            with nogil:
                self._resize.get().run(views, pixels)
        finally:
            while held > 0:
                held -= 1
                PyBuffer_Release(&sources[held])
            PyBuffer_Release(&target)
