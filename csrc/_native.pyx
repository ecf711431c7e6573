# The only door to native code: parse, one `with nogil`, return.
# Memory: planes belong to the caller and are held (buffer protocol) for the length of a call; outputs are the caller's.
# Threads: a Resize may be used by any number of threads at once; the GIL is free while pixels are worked.
# A HeaderScanner keeps the GIL: a packet's headers take less time than giving it away, and it guards the scanner.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport INT64_MIN, int16_t, int32_t, int64_t, uint8_t
from libcpp cimport bool as boolean
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


cdef extern from "axis.h" namespace "gpupipe" nogil:
    cdef cppclass AxisSpec:
        int64_t begin, end
        int64_t outputs
        int log2_subsampling
        int siting

    cdef cppclass Axis:
        vector[int32_t] start, count
        vector[int16_t] weights
        int taps

    Axis row_axis(const AxisSpec&) except +


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


cdef extern from "bits.h" namespace "gpupipe" nogil:
    cdef cppclass Bytes:
        const uint8_t* data
        size_t size


cdef extern from "scanner.h" namespace "gpupipe" nogil:
    cdef cppclass CPicture "gpupipe::Picture":
        pass

    cdef cppclass CPictures "gpupipe::Pictures":
        vector[CPicture] found
        vector[int64_t] needs

    cdef cppclass Scanner:
        boolean skips, restarts
        int64_t reach

    const char* const kOutOfMemory
    const char* make_scanner(unique_ptr[Scanner]&, const string&, Bytes)
    const char* scan_packet(Scanner&, Bytes)
    const char* lose_packet(Scanner&)
    const char* scanned_pictures(Scanner&, int64_t, const CPictures*&)
    const char* read_bits "gpupipe::read_bits" (Bytes, boolean, const vector[int]&, vector[int64_t]&)


cdef extern from "keypoints_crop.h" namespace "gpupipe" nogil:
    cdef cppclass RgbImage:
        const uint8_t* data
        int64_t height, width

    cdef cppclass Region:
        float x, y, width, height, rotation

    void c_crop_region "gpupipe::crop_region" (const RgbImage&, const Region&, int, bint, const float*, float*) except +


cdef extern from "keypoints_points.h" namespace "gpupipe" nogil:
    cdef cppclass Detections:
        const float* boxes
        const float* scores
        const float* anchors
        int64_t count, columns
        float size, score_bound, confidence, overlap

    cdef cppclass Heatmap:
        const float* logits
        int64_t height, width, points, kernel
        float confidence

    bint c_best_detection "gpupipe::best_detection" (const Detections&, float*) except +
    void c_refine_points "gpupipe::refine_points" (const Heatmap&, float*) except +


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


def axis_tables(*, begin, end, outputs, log2_subsampling, siting):
    """One axis, csrc/axis.h: starts and counts (int32 an output), weights (int16, `taps` an output), taps."""
    cdef AxisSpec spec
    cdef Axis axis
    spec.begin, spec.end, spec.outputs = begin, end, outputs
    spec.log2_subsampling, spec.siting = log2_subsampling, siting
    with nogil:
        axis = row_axis(spec)
    return (
        PyByteArray_FromStringAndSize(<const char*> axis.start.data(), axis.start.size() * sizeof(int32_t)),
        PyByteArray_FromStringAndSize(<const char*> axis.count.data(), axis.count.size() * sizeof(int32_t)),
        PyByteArray_FromStringAndSize(<const char*> axis.weights.data(), axis.weights.size() * sizeof(int16_t)),
        axis.taps,
    )


cdef class Resize:
    """A planned resize; see csrc/resize.h for the fields, all in the decoded orientation.

    ``given`` holds the arguments, for whoever carries the same plan out elsewhere.
    """

    cdef unique_ptr[CResize] _resize
    cdef readonly object given

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
        self.given = {
            "size": size,
            "crop": crop,
            "out": out,
            "subsampling": subsampling,
            "siting": siting,
            "sample": sample,
            "components": components,
            "colour": colour,
            "rotation": rotation,
            "mirrored": mirrored,
        }

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


class HeaderError(Exception):
    """A packet's headers do not say for certain what the packet shows; the frames must be counted by decoding."""


cdef int _settle(const char* refusal) except -1:
    if refusal == NULL:
        return 0
    if refusal == kOutOfMemory:
        raise MemoryError
    raise HeaderError(refusal.decode())


def header_bits(data, widths, escaped=False):
    """Numbers read from the start of ``data``, see read_bits() in csrc/scanner.h."""
    cdef vector[int] wanted = widths
    cdef vector[int64_t] numbers
    cdef Py_buffer held
    cdef Bytes view
    cdef const char* refusal
    cdef boolean escapes = escaped
    PyObject_GetBuffer(data, &held, PyBUF_SIMPLE)
    view.data = <const uint8_t*> held.buf
    view.size = held.len
    refusal = read_bits(view, escapes, wanted, numbers)
    PyBuffer_Release(&held)
    _settle(refusal)
    return numbers


cdef class HeaderScanner:
    """Reads the headers of packet after packet, in decode order; see gpupipe/decode/headers."""

    cdef unique_ptr[Scanner] _scanner

    def __cinit__(self, codec, extradata):
        cdef string name = codec.encode()
        cdef Py_buffer held
        cdef Bytes view
        cdef const char* refusal
        PyObject_GetBuffer(extradata, &held, PyBUF_SIMPLE)
        view.data = <const uint8_t*> held.buf
        view.size = held.len
        refusal = make_scanner(self._scanner, name, view)
        PyBuffer_Release(&held)
        _settle(refusal)

    @property
    def skips(self):
        return self._scanner.get().skips

    @property
    def restarts(self):
        return self._scanner.get().restarts

    @property
    def reach(self):
        return self._scanner.get().reach

    def scan(self, data):
        """Take the next packet, any contiguous buffer."""
        cdef Py_buffer held
        cdef Bytes view
        cdef const char* refusal
        PyObject_GetBuffer(data, &held, PyBUF_SIMPLE)
        view.data = <const uint8_t*> held.buf
        view.size = held.len
        refusal = scan_packet(self._scanner.get()[0], view)
        PyBuffer_Release(&held)
        _settle(refusal)

    def lose(self):
        """Take the packet that was just refused as a broken picture."""
        _settle(lose_packet(self._scanner.get()[0]))

    def taken(self, int64_t delay):
        """All packets taken: their pictures and what they need, as csrc/scanner.h lays them out."""
        cdef const CPictures* pictures = NULL
        _settle(scanned_pictures(self._scanner.get()[0], delay, pictures))
        return (
            PyByteArray_FromStringAndSize(
                <const char*> pictures.found.data(), pictures.found.size() * sizeof(CPicture)
            ),
            PyByteArray_FromStringAndSize(
                <const char*> pictures.needs.data(), pictures.needs.size() * sizeof(int64_t)
            ),
        )


cdef class PacketRows:
    """What the demuxer says of packets, gathered; gpupipe/decode/index.py names the columns."""

    cdef vector[int64_t] _values

    def __len__(self):
        return self._values.size() // 6

    def add(self, packet):
        """Take one of PyAV's packets and return its bytes; -1, and nothing is taken, where it marks the end."""
        pts, dts, pos = packet.pts, packet.dts, packet.pos
        cdef int64_t size = packet.size
        if size == 0 and pts is None and dts is None:
            return -1
        cdef int64_t[6] row
        row[0] = INT64_MIN if pts is None else pts
        row[1] = INT64_MIN if dts is None else dts
        row[2] = -1 if pos is None else pos
        row[3] = size
        row[4] = packet.is_discard
        row[5] = packet.is_corrupt
        self._values.insert(self._values.end(), row, row + 6)
        return size

    def taken(self):
        """All rows, one behind the other, int64."""
        return PyByteArray_FromStringAndSize(
            <const char*> self._values.data(), self._values.size() * sizeof(int64_t)
        )


def crop_region(
    const unsigned char[:, :, ::1] image, region, bint zeros, const float[::1] codes, float[:, :, ::1] out
):
    """Cut a region (x, y, width, height in pixels, radians) out of an image; csrc/keypoints_crop.h."""
    cdef RgbImage view
    cdef Region wanted
    if image.shape[0] < 1 or image.shape[1] < 1 or image.shape[2] != 3:
        raise ValueError(f"an image of {image.shape[0]} x {image.shape[1]} x {image.shape[2]}, expected h x w x 3")
    if image.strides[0] != 3 * image.shape[1]:
        raise ValueError("an image with gaps between its rows")
    if not 0 < out.shape[0] == out.shape[1] <= 4096 or out.shape[2] != 3 or out.strides[0] != 12 * out.shape[1]:
        raise ValueError(f"an output of {out.shape[0]} x {out.shape[1]} x {out.shape[2]}, expected s x s x 3")
    if codes.shape[0] != 256:
        raise ValueError(f"{codes.shape[0]} codes, expected 256")
    view.data, view.height, view.width = &image[0, 0, 0], image.shape[0], image.shape[1]
    wanted.x, wanted.y, wanted.width, wanted.height, wanted.rotation = region
    cdef int size = <int> out.shape[0]
    with nogil:
        c_crop_region(view, wanted, size, zeros, &codes[0], &out[0, 0, 0])


def best_detection(
    const float[:, ::1] boxes, const float[::1] scores, const float[:, ::1] anchors, *,
    float size, float score_bound, float confidence, float overlap, float[::1] out,
):
    """Write the best detection's keypoints, x and y each, or return False; csrc/keypoints_points.h."""
    cdef Detections all
    cdef boolean found = False
    if boxes.shape[0] != scores.shape[0] or anchors.shape[0] != scores.shape[0] or anchors.shape[1] != 2:
        raise ValueError(f"{boxes.shape[0]} boxes, {scores.shape[0]} scores, {anchors.shape[0]} anchors of x and y")
    if out.shape[0] < 2 or out.shape[0] % 2 or boxes.shape[1] != out.shape[0] + 4:
        raise ValueError(f"boxes of {boxes.shape[1]} numbers for {out.shape[0]} of keypoints, expected 4 more")
    if scores.shape[0] == 0:
        return False
    all.boxes, all.scores, all.anchors = &boxes[0, 0], &scores[0], &anchors[0, 0]
    all.count, all.columns = boxes.shape[0], boxes.shape[1]
    all.size, all.score_bound, all.confidence, all.overlap = size, score_bound, confidence, overlap
    with nogil:
        found = c_best_detection(all, &out[0])
    return found


def refine_points(const float[:, :, ::1] heatmap, int kernel, float confidence, float[:, ::1] points):
    """Move points (x, y, z each) to the mean of a heatmap around them, in place; csrc/keypoints_points.h."""
    cdef Heatmap map
    if points.shape[1] != 3 or points.shape[0] != heatmap.shape[2]:
        raise ValueError(f"{points.shape[0]} points of {points.shape[1]} numbers, expected {heatmap.shape[2]} of 3")
    if heatmap.shape[0] < 1 or heatmap.shape[1] < 1 or heatmap.shape[2] < 1 or kernel < 1:
        raise ValueError("an empty heatmap")
    map.logits = &heatmap[0, 0, 0]
    map.height, map.width, map.points = heatmap.shape[0], heatmap.shape[1], heatmap.shape[2]
    map.kernel, map.confidence = kernel, confidence
    with nogil:
        c_refine_points(map, &points[0, 0])
