// Working without Python's lock, and asking for it again, also while Python ends.
#pragma once
#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

namespace selfee {

// Once Python ends, a thread that asks for its lock, or waits for it already, is thrown out of whatever it is in (up to
// Python 3.13 by a forced unwinding), and C++ ends the process with a crash where that meets a destructor. A daemon thread
// that is still computing then waits here for the end instead: what it was thrown is never let go.
template <typename Ask>
void ask_python(const Ask& ask) {
#if PY_VERSION_HEX >= 0x030d0000
    while (Py_IsFinalizing()) pause();
#else
    while (_Py_IsFinalizing()) pause();
#endif
    try {
        ask();
    } catch (abi::__forced_unwind&) {
        while (true) pause();
    }
}

// Runs without Python's lock.
class Unlocked {
public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    ~Unlocked() {
        ask_python([this] { PyEval_RestoreThread(state_); });
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

private:
    PyThreadState* state_;
};

// Whether Python has been told to stop; to be asked without its lock.
inline bool signal_arrived() {
    PyGILState_STATE state{};
    ask_python([&state] { state = PyGILState_Ensure(); });
    const bool arrived = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return arrived;
}

}  // namespace selfee
