// Whether all that decides how something is computed is what it was, asked in one call: in a loop that does much else in between,
// each piece of Python that asks has left the cache.
#pragma once

#include "containers.hpp"

namespace vertexflow {

// Whether each reference leads to an object of this very class. (Weak references: they are called.)
inline bool lead_to(const py::list& references, const py::list& classes) {
    for (py::size_t i = 0; i < references.size(); ++i) {
        const py::object object = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(references[i].ptr()));
        if (!object) throw py::error_already_set();
        if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) != classes[i].ptr()) return false;
    }
    return true;
}

// Whether each collection has elements at these addresses, in order.
inline bool have_elements(const py::list& collections, const py::list& addresses) {
    for (py::size_t i = 0; i < collections.size(); ++i) {
        const py::handle collection = collections[i];
        const py::list expected = addresses[i];
        if (py::len(collection) != expected.size()) return false;
        py::size_t at = 0;
        if (expected.size())
            for (const py::handle element : collection)
                if (PyLong_AsVoidPtr(expected[at++].ptr()) != element.ptr()) return false;
    }
    return true;
}

// Whether dictionaries hold these objects under these names; None stands for what is missing, too.
inline bool are_held(const py::list& dictionaries, const py::list& names, const py::list& values) {
    for (py::size_t i = 0; i < dictionaries.size(); ++i) {
        PyObject* const value = PyDict_GetItemWithError(dictionaries[i].ptr(), names[i].ptr());
        if (PyErr_Occurred()) throw py::error_already_set();
        if ((value ? value : Py_None) != values[i].ptr()) return false;
    }
    return true;
}

// Whether each tensor has the version, the address, and the dictionary of own attributes that it had (0: none, or an empty one).
// Without versions, it may hold something else.
inline bool are_as_they_were(const py::list& tensors, const py::list& versions, const py::list& addresses, const py::list& own) {
    static PyObject* const version = PyUnicode_InternFromString("_version");
    static PyObject* const address = PyUnicode_InternFromString("data_ptr");
    static PyObject* const attributes = PyUnicode_InternFromString("__dict__");
    const auto is_number = [](PyObject* found, const py::handle& expected) {
        const py::object number = py::reinterpret_steal<py::object>(found);
        if (!number) throw py::error_already_set();
        const long long value = PyLong_AsLongLong(number.ptr());
        if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
        return value == PyLong_AsLongLong(expected.ptr());
    };
    for (py::size_t i = 0; i < tensors.size(); ++i) {
        PyObject* const tensor = tensors[i].ptr();
        if (versions.size() && !is_number(PyObject_GetAttr(tensor, version), versions[i])) return false;
        if (!is_number(PyObject_CallMethodNoArgs(tensor, address), addresses[i])) return false;
        const py::object dictionary = py::reinterpret_steal<py::object>(PyObject_GetAttr(tensor, attributes));
        if (!dictionary) throw py::error_already_set();
        const bool has_any = !PyDict_Check(dictionary.ptr()) || PyDict_GET_SIZE(dictionary.ptr()) > 0;
        if (PyLong_AsVoidPtr(own[i].ptr()) != (has_any ? dictionary.ptr() : nullptr)) return false;
    }
    return true;
}

// Whether functions return the very objects that they returned.
inline bool return_the_same(const py::list& functions, const py::list& arguments, const py::list& results) {
    for (py::size_t i = 0; i < functions.size(); ++i) {
        const py::object result =
            py::reinterpret_steal<py::object>(PyObject_Call(functions[i].ptr(), arguments[i].ptr(), nullptr));
        if (!result) throw py::error_already_set();
        if (result.ptr() != results[i].ptr()) return false;
    }
    return true;
}

// Whether a function that is given these tensors, and further ones, says True.
inline bool passes(const py::handle& check, const py::list& tensors, const py::list& further) {
    std::vector<PyObject*> all;
    all.reserve(tensors.size() + further.size());
    for (const py::list* some : {&tensors, &further})
        for (py::size_t i = 0; i < some->size(); ++i) all.push_back((*some)[i].ptr());
    const py::object result = py::reinterpret_steal<py::object>(PyObject_Vectorcall(check.ptr(), all.data(), all.size(), nullptr));
    if (!result) throw py::error_already_set();
    return result.ptr() == Py_True;
}

// All of these, of what was written down as a tuple (`call/unchanged.py`), with further tensors for its check.
inline bool is_unchanged(const py::tuple& before, const py::list& further) {
    constexpr py::size_t num_lists = 18;
    if (before.size() != num_lists + 1) throw py::value_error("there are nineteen parts");
    const auto part = [&](py::size_t at) {
        PyObject* const list = PyTuple_GET_ITEM(before.ptr(), at);
        if (!PyList_Check(list)) throw py::type_error("all parts but the last are lists");
        return py::reinterpret_borrow<py::list>(list);
    };
    constexpr std::pair<py::size_t, py::size_t> alike[] = {{0, 1}, {0, 2}, {3, 5}, {3, 6}, {9, 10}, {13, 14}, {15, 16}, {15, 17}};
    for (const auto& [one, other] : alike)
        if (part(one).size() != part(other).size()) throw py::value_error("parts of one kind differ in length");
    if (part(4).size() && part(4).size() != part(3).size()) throw py::value_error("there are versions of some tensors only");
    return are_held(part(0), part(1), part(2)) && are_as_they_were(part(3), part(4), part(5), part(6)) &&
           holds_the_same(part(7), part(8)) && lead_to(part(9), part(10)) && have_keys(part(11), part(12)) &&
           have_elements(part(13), part(14)) && return_the_same(part(15), part(16), part(17)) &&
           passes(PyTuple_GET_ITEM(before.ptr(), num_lists), part(3), further);
}

}  // namespace vertexflow
