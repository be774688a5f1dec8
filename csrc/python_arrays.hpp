// NumPy arrays as the core has them: looked at where they are, never converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "check.hpp"

namespace vertexflow::python {

namespace py = pybind11;
using Array = py::array_t<Index>;
using Wide = py::array_t<std::int64_t>;

inline void stop_if_asked() {
    py::gil_scoped_acquire held;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// The elements of an array that is what it must be; nothing is converted, since that would hide a copy.
template <class T>
const T* elements(const py::array& array, const char* name, std::int64_t size) {
    static const PyObject* const usual = py::dtype::of<T>().release().ptr();  // kept for good
    if (reinterpret_cast<const py::detail::PyArray_Proxy*>(array.ptr())->descr != usual && !py::isinstance<py::array_t<T>>(array))
        throw py::type_error(std::string(name) + " must be an array of " + (sizeof(T) == 4 ? "int32" : "int64") + ", not " +
                             py::str(array.dtype()).cast<std::string>());
    if (array.ndim() != 1 || (array.size() > 1 && array.strides(0) != static_cast<py::ssize_t>(sizeof(T))))
        throw py::value_error(std::string(name) + " must be a contiguous array of one dimension");
    if (array.size() > 0 && reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0)
        throw py::value_error(std::string(name) + " must be aligned in memory");
    if (size >= 0 && array.size() != size)
        throw py::value_error(std::string(name) + " has " + std::to_string(array.size()) + " elements, not " +
                              std::to_string(size));
    return static_cast<const T*>(array.data());
}

inline Index* fresh(Array& array) { return array.mutable_data(); }

struct Arguments {
    const py::array &child, &slot, &offset;
    const std::optional<py::array>& kind;
    std::int64_t num_kinds, num_external;
    const py::array* edge = nullptr;
};

inline Structure structure_of(const Arguments& given) {
    Structure s;
    if (given.offset.size() < 2) throw py::value_error("offset must have at least two elements");
    s.num_vertices = checked(given.offset.size() - 1, "too large");
    s.num_edges = checked(given.child.size(), "too large");
    s.num_external = checked(given.num_external, "too large");
    s.num_kinds = checked(given.num_kinds, "too large");
    s.child = elements<Index>(given.child, "child", -1);
    s.slot = elements<Index>(given.slot, "slot", s.num_edges);
    s.offset = elements<Index>(given.offset, "offset", -1);
    if (given.kind) s.kind = elements<Index>(*given.kind, "kind", s.num_vertices);
    if (given.edge) s.edge = elements<Index>(*given.edge, "edge", s.num_edges);
    return s;
}

inline py::object attribute(PyObject* item, PyObject* name) {
    PyObject* const found = PyObject_GetAttr(item, name);
    if (!found) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
}

}  // namespace vertexflow::python
