// The pool: workers spin for a while after a loop, because the next one usually follows within microseconds, then sleep.
#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>

namespace selfee {
namespace {

constexpr uint64_t kOpen = 1u << 31, kInside = kOpen - 1;
constexpr int kSpins = 8000;       // some hundred microseconds: longer than the pause between two tokens
constexpr int kSpinsToYield = 200;  // some microseconds: whoever waits longer may be keeping another from the core

// How often this process and those it comes from were forked. To ask the system for the number of the process instead
// would cost a third of a loop.
std::atomic<uint32_t> forks{0};

void count_forks() {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); }); });
}

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

void Turnstile::lock() {
    std::unique_lock<std::mutex> held(mutex_);
    const uint64_t own = given_++;
    next_.wait(held, [&] { return served_ == own; });
}

void Turnstile::unlock() {
    {
        const std::lock_guard<std::mutex> held(mutex_);
        ++served_;
    }
    next_.notify_all();
}

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)), stretches_(size_t(threads_)) {
    count_forks();
    forks_ = forks.load();
    workers_.reserve(size_t(threads_ - 1));
    try {
        for (int thread = 1; thread < threads_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {  // the system gives no more; results are the same with fewer
        threads_ = int(workers_.size()) + 1;
    }
}

ThreadPool::~ThreadPool() {
    if (forked()) {  // a fork: the threads are not here, so nothing that knows of them can be ended
        new std::vector<std::thread>(std::move(workers_));  // can neither be joined nor dropped
        sleep_.release();  // to destroy a condition waits for those who sleep on it, here for ever
        return;
    }
    stop_ = true;
    {
        const std::lock_guard<std::mutex> lock(sleep_->mutex);
        sleep_->wake.notify_all();
    }
    for (auto& worker : workers_) worker.join();
}

bool ThreadPool::forked() const { return forks.load(std::memory_order_relaxed) != forks_; }

void ThreadPool::run(int64_t count, int64_t grain, void* context, Call call) {
    if (count <= 0) return;
    if (count <= grain || workers_.empty() || forked()) return call(context, 0, count, 0);
    context_ = context;
    call_ = call;
    grain_ = std::max<int64_t>(1, grain);
    const int64_t parts = (count + grain_ - 1) / grain_;
    for (int64_t thread = 0; thread < threads_; ++thread) {
        Stretch& stretch = stretches_[size_t(thread)];
        stretch.next.store(parts * thread / threads_ * grain_, std::memory_order_relaxed);
        stretch.end = std::min(count, parts * (thread + 1) / threads_ * grain_);
    }
    state_.store(((state_.load() >> 32) + 1) << 32 | kOpen);
    if (sleepers_.load() > 0) {
        const std::lock_guard<std::mutex> lock(sleep_->mutex);
        sleep_->wake.notify_all();
    }
    take_parts(0);
    // Threads that have not entered by now find the loop closed: nobody waits for one that the system has put aside.
    state_.fetch_and(~kOpen);
    for (int spins = 0; (state_.load(std::memory_order_acquire) & kInside) != 0; ++spins)
        spins < kSpinsToYield ? pause() : std::this_thread::yield();
}

void ThreadPool::take_parts(int thread) {
    take_stretch(stretches_[size_t(thread)], thread);
    for (int other = 1; other < threads_; ++other) take_stretch(stretches_[size_t((thread + other) % threads_)], thread);
}

void ThreadPool::take_stretch(Stretch& stretch, int thread) {
    while (stretch.next.load(std::memory_order_relaxed) < stretch.end) {
        const int64_t begin = stretch.next.fetch_add(grain_, std::memory_order_relaxed);
        if (begin >= stretch.end) return;
        call_(context_, begin, std::min(begin + grain_, stretch.end), thread);
    }
}

void ThreadPool::work(int thread) {
    uint64_t seen = 0;
    while ((seen = wait_for_loop(seen)) != 0) {
        uint64_t state = state_.load();
        while ((state >> 32) == seen && (state & kOpen) != 0) {
            if (!state_.compare_exchange_weak(state, state + 1)) continue;
            take_parts(thread);
            state_.fetch_sub(1, std::memory_order_release);
            break;
        }
    }
}

// The number of an open loop other than `last_seen`; 0 when the pool ends.
uint64_t ThreadPool::wait_for_loop(uint64_t last_seen) {
    const auto ready = [&] {
        const uint64_t state = state_.load();
        return (state >> 32) != last_seen && (state & kOpen) != 0;
    };
    for (int spins = 0; spins < kSpins; ++spins) {
        if (stop_.load(std::memory_order_relaxed)) return 0;
        if (ready()) return state_.load() >> 32;
        spins % kSpinsToYield == kSpinsToYield - 1 ? std::this_thread::yield() : pause();
    }
    std::unique_lock<std::mutex> lock(sleep_->mutex);
    sleepers_.fetch_add(1);
    sleep_->wake.wait(lock, [&] { return stop_.load() || ready(); });
    sleepers_.fetch_sub(1);
    return stop_ ? 0 : state_.load() >> 32;
}

}  // namespace selfee
