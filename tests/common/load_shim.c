/* Preloaded into the load tool: a clock that is set while it runs, and slow reads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static int real_clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, time);
}

/* From the fifth call on, the time of day is SHIM_JUMP seconds later. */
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int asked;
    int result = real_clock_gettime(clock, time);
    const char *jump = getenv("SHIM_JUMP");
    if (jump && clock == CLOCK_REALTIME && ++asked >= 5)
        time->tv_sec += atol(jump);
    return result;
}

/* Keeps the core for SHIM_BUSY_US microseconds before it reads. */
ssize_t recv(int socket, void *buffer, size_t length, int flags) {
    static ssize_t (*real)(int, void *, size_t, int);
    if (!real)
        real = (ssize_t (*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
    const char *busy = getenv("SHIM_BUSY_US");
    if (busy) {
        struct timespec from, now;
        real_clock_gettime(CLOCK_MONOTONIC, &from);
        do
            real_clock_gettime(CLOCK_MONOTONIC, &now);
        while ((now.tv_sec - from.tv_sec) * 1000000L + (now.tv_nsec - from.tv_nsec) / 1000
               < atol(busy));
    }
    return real(socket, buffer, length, flags);
}
