// A pool of threads that share one loop at a time, and a lock that is fair.
//
// What a loop computes may not depend on how it is divided, so results are the same for every number of threads.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace selfee {

// A mutex whose waiters get in in the order they came: whoever leaves and comes back at once, as a long prompt does
// between two batches, lets the others in first.
class Turnstile {
public:
    void lock();
    void unlock();

private:
    std::mutex mutex_;
    std::condition_variable next_;
    uint64_t given_ = 0, served_ = 0;
};

class ThreadPool {
public:
    // `threads` counts the calling thread: 1 makes no others. Where the system refuses one, there are fewer.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return threads_; }

    // body(begin, end, thread) for parts of [0, count) of at most `grain` items; returns when all are done. Each thread
    // walks through a stretch of its own, from first to last, and helps the others when it is through.
    // One caller at a time. A loop of one part costs nothing: it runs where it stands. `body` must not throw.
    template <class Body>
    void each(int64_t count, int64_t grain, Body&& body) {
        using Plain = std::remove_reference_t<Body>;
        run(count, grain, const_cast<void*>(static_cast<const void*>(&body)),
            [](void* context, int64_t begin, int64_t end, int thread) {
                (*static_cast<Plain*>(context))(begin, end, thread);
            });
    }

private:
    using Call = void (*)(void* context, int64_t begin, int64_t end, int thread);
    struct alignas(64) Stretch {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    void run(int64_t count, int64_t grain, void* context, Call call);
    void take_parts(int thread);
    void take_stretch(Stretch& stretch, int thread);
    void work(int thread);
    uint64_t wait_for_loop(uint64_t last_seen);
    bool forked() const;

    int threads_;
    uint32_t forks_;                  // the pool's threads exist in the process that made it, not in a fork of it
    std::vector<std::thread> workers_;

    // The loop in work; written while no thread is inside.
    void* context_ = nullptr;
    Call call_ = nullptr;
    int64_t grain_ = 1;
    std::vector<Stretch> stretches_;  // one for each thread

    // Number of the loop << 32 | kOpen while threads may enter | how many are inside.
    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    struct Sleep {
        std::mutex mutex;
        std::condition_variable wake;
    };
    std::unique_ptr<Sleep> sleep_ = std::make_unique<Sleep>();
};

}  // namespace selfee
