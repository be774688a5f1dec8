// Whether Python's containers hold the very objects that they held before: what a model is made of is compared so at each call.
#pragma once

#include <pybind11/pybind11.h>

namespace vertexflow {

namespace py = pybind11;

// Whether a dictionary holds these keys and values, in order.
inline bool has_entries(PyObject* dictionary, PyObject* held) {
    if (2 * PyDict_GET_SIZE(dictionary) != PyTuple_GET_SIZE(held)) return false;
    Py_ssize_t at = 0, place = 0;
    PyObject *key, *value;
    if (PyODict_Check(dictionary) && PyDict_GET_SIZE(dictionary) > 1) {  // which has an order of its own
        const py::object keys = py::reinterpret_steal<py::object>(PyODict_Type.tp_iter(dictionary));
        if (!keys) throw py::error_already_set();
        for (; at < PyTuple_GET_SIZE(held); at += 2) {
            const py::object next = py::reinterpret_steal<py::object>(PyIter_Next(keys.ptr()));
            if (!PyErr_Occurred() && next.ptr() != PyTuple_GET_ITEM(held, at)) return false;
            value = PyErr_Occurred() ? nullptr : PyDict_GetItemWithError(dictionary, next.ptr());
            if (PyErr_Occurred()) throw py::error_already_set();
            if (value != PyTuple_GET_ITEM(held, at + 1)) return false;
        }
        return true;
    }
    for (; PyDict_Next(dictionary, &place, &key, &value); at += 2)
        if (key != PyTuple_GET_ITEM(held, at) || value != PyTuple_GET_ITEM(held, at + 1)) return false;
    return true;
}

// Whether each of these dictionaries has the keys that it had, in order.
inline bool have_keys(const py::list& dictionaries, const py::list& before) {
    const Py_ssize_t count = PyList_GET_SIZE(dictionaries.ptr());
    if (count != PyList_GET_SIZE(before.ptr())) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        PyObject* const dictionary = PyList_GET_ITEM(dictionaries.ptr(), i);
        PyObject* const keys = PyList_GET_ITEM(before.ptr(), i);
        if (!PyDict_Check(dictionary) || !PyTuple_Check(keys)) throw py::type_error("dictionaries and tuples of their keys");
        if (PyDict_GET_SIZE(dictionary) != PyTuple_GET_SIZE(keys)) return false;
        PyObject* key;
        for (Py_ssize_t at = 0, place = 0; PyDict_Next(dictionary, &place, &key, nullptr); ++at)
            if (key != PyTuple_GET_ITEM(keys, at)) return false;
    }
    return true;
}

// Whether a dictionary has so many entries, and these values under the names that stand behind it in the tuple `some`.
inline bool has_some(PyObject* dictionary, PyObject* some, PyObject* held) {
    if (PyTuple_GET_SIZE(some) != PyTuple_GET_SIZE(held)) throw py::type_error("as many values as names must be held");
    if (PyDict_GET_SIZE(dictionary) != PyLong_AsSsize_t(PyTuple_GET_ITEM(held, 0))) return false;
    for (Py_ssize_t at = 1; at < PyTuple_GET_SIZE(some); ++at) {
        PyObject* const value = PyDict_GetItemWithError(dictionary, PyTuple_GET_ITEM(some, at));
        if (PyErr_Occurred()) throw py::error_already_set();
        if (value != PyTuple_GET_ITEM(held, at)) return false;
    }
    return true;
}

inline bool is_function_of(PyObject* function, PyObject* held) {
    const auto or_none = [](PyObject* value) { return value ? value : Py_None; };
    return PyTuple_GET_SIZE(held) == 3 && PyFunction_GET_CODE(function) == PyTuple_GET_ITEM(held, 0) &&
           or_none(PyFunction_GET_DEFAULTS(function)) == PyTuple_GET_ITEM(held, 1) &&
           or_none(PyFunction_GET_KW_DEFAULTS(function)) == PyTuple_GET_ITEM(held, 2);
}

inline PyObject* dictionary_of(PyObject* container) {
    return PyType_Check(container) ? reinterpret_cast<PyTypeObject*>(container)->tp_dict : container;
}

// Whether each container holds the very objects that it held before. These were, for a dictionary or a class, its keys and
// values in order; for a list, its elements; for a function, its code and both kinds of defaults; for a cell of a closure, what
// is in it; and for a tuple of a dictionary (or a class) and keys of it, the number of its entries, and their values.
inline bool holds_the_same(const py::list& containers, const py::list& before) {
    const Py_ssize_t count = PyList_GET_SIZE(containers.ptr());
    if (count != PyList_GET_SIZE(before.ptr())) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        PyObject* const container = PyList_GET_ITEM(containers.ptr(), i);
        PyObject* const held = PyList_GET_ITEM(before.ptr(), i);
        if (!PyTuple_Check(held)) throw py::type_error("what containers held before must be tuples");
        PyObject* const dictionary = dictionary_of(container);
        if (dictionary && PyDict_Check(dictionary)) {
            if (!has_entries(dictionary, held)) return false;
        } else if (PyList_Check(container)) {
            if (PyList_GET_SIZE(container) != PyTuple_GET_SIZE(held)) return false;
            for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(held); ++at)
                if (PyList_GET_ITEM(container, at) != PyTuple_GET_ITEM(held, at)) return false;
        } else if (PyFunction_Check(container)) {
            if (!is_function_of(container, held)) return false;
        } else if (PyCell_Check(container)) {
            PyObject* const inside = PyCell_GET(container);
            if ((inside != nullptr) != (PyTuple_GET_SIZE(held) == 1)) return false;
            if (inside && inside != PyTuple_GET_ITEM(held, 0)) return false;
        } else if (PyTuple_Check(container) && PyTuple_GET_SIZE(container)) {
            PyObject* const whole = dictionary_of(PyTuple_GET_ITEM(container, 0));
            if (!whole || !PyDict_Check(whole)) throw py::type_error("a tuple must begin with a dictionary or a class");
            if (!has_some(whole, container, held)) return false;
        } else {
            throw py::type_error("containers must be dictionaries, classes, lists, functions, cells or tuples");
        }
    }
    return true;
}

}  // namespace vertexflow
