/* Preloaded into a relay: reports each system call of the relay, has one fail, and steps it.
 *
 * Standard output, on which a relay has nothing to say, gets a line for each call:
 *
 *     name descriptor result errno port    what the call came to; the port where there is a new one
 *     !name descriptor -1 errno 0          the same of a call that was made to fail
 *     asleep timeout                       all is done, and the relay would wait as long as that
 *
 * and standard input states the next step: `g` to wait indeed, `j` to jump, with the clock, to the end of
 * the waiting, unless something has happened meanwhile. Without that the number of calls would
 * depend on who is faster, the relay or its clients, and the seventh `recv` would not be
 * the same one twice.
 *
 * SHIM_FAIL is "name first times errno": the calls of that function from the first on, so many of
 * them, do nothing and fail with that error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Kernel buffers of a size that a few messages overflow. */
enum { SEND_BUFFER = 32 * 1024 };

/* What the runtime does before `main` is not the relay's. */
static int has_begun;

static char failing[32];
static unsigned first, times;
static int error;

static long jumped_ms;

__attribute__((constructor)) static void read_plan(void) {
    const char *plan = getenv("SHIM_FAIL");
    if (plan && sscanf(plan, "%31s %u %u %d", failing, &first, &times, &error) != 4)
        abort();
}

/* Not with the functions below, and as a signal handler may do it: there is a `send` in one. */
static void say(const char *line, int length) {
    int saved = errno;
    while (syscall(SYS_write, 1, line, (size_t)length) < 0 && errno == EINTR)
        ;
    errno = saved;
}

static void report(const char *mark, const char *name, int fd, long result, int port) {
    char line[128];
    if (has_begun)
        say(line, snprintf(line, sizeof line, "%s%s %d %ld %d %d\n", mark, name, fd, result,
                           result < 0 ? errno : 0, port));
}

static long reported(const char *name, int fd, long result) {
    report("", name, fd, result, 0);
    return result;
}

static int fails(const char *name, unsigned *count, int fd) {
    if (!has_begun || ++*count < first || *count - first >= times || strcmp(name, failing) != 0)
        return 0;
    errno = error;
    report("!", name, fd, -1, 0);
    return 1;
}

static int port_of(const struct sockaddr_in *address) {
    return ntohs(address->sin_port);
}

#define REAL(function)                                                                             \
    static unsigned count;                                                                         \
    static __typeof__(&function) real;                                                             \
    if (!real)                                                                                     \
        real = (__typeof__(&function))dlsym(RTLD_NEXT, #function)

#define TORTURED(function, fd)                                                                     \
    REAL(function);                                                                                \
    if (fails(#function, &count, fd))                                                              \
    return -1

int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit) {
    has_begun |= resource == RLIMIT_NOFILE;
    TORTURED(getrlimit64, -1);
    return reported("getrlimit64", -1, real(resource, limit));
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit) {
    TORTURED(setrlimit64, -1);
    return reported("setrlimit64", -1, real(resource, limit));
}

int epoll_create1(int flags) {
    TORTURED(epoll_create1, -1);
    return reported("epoll_create1", -1, real(flags));
}

int socket(int domain, int type, int protocol) {
    TORTURED(socket, -1);
    return reported("socket", -1, real(domain, type, protocol));
}

int socketpair(int domain, int type, int protocol, int pair[2]) {
    TORTURED(socketpair, -1);
    int result = real(domain, type, protocol, pair);
    report("", "socketpair", pair[1], result, 0);
    return result;
}

int pipe2(int pair[2], int flags) {
    TORTURED(pipe2, -1);
    return reported("pipe2", -1, real(pair, flags));
}

int dup(int fd) {
    TORTURED(dup, fd);
    return reported("dup", fd, real(fd));
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    /* A debug build asks with F_GETFD before each `close` whether it closes what is its own. */
    if (command == F_GETFD)
        return syscall(SYS_fcntl, fd, command, argument);
    TORTURED(fcntl, fd);
    return reported("fcntl", fd, real(fd, command, argument));
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    TORTURED(ioctl, fd);
    return reported("ioctl", fd, real(fd, request, argument));
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    TORTURED(setsockopt, fd);
    return reported("setsockopt", fd, real(fd, level, name, value, length));
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    TORTURED(getsockopt, fd);
    return reported("getsockopt", fd, real(fd, level, name, value, length));
}

int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t length) {
    TORTURED(bind, fd);
    return reported("bind", fd, real(fd, address, length));
}

int listen(int fd, int backlog) {
    TORTURED(listen, fd);
    int size = SEND_BUFFER;
    syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    int result = real(fd, backlog);
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    syscall(SYS_getsockname, fd, &address, &length);
    report("", "listen", fd, result, port_of(&address));
    return result;
}

int getsockname(int fd, __SOCKADDR_ARG address, socklen_t *length) {
    TORTURED(getsockname, fd);
    return reported("getsockname", fd, real(fd, address, length));
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    TORTURED(open64, -1);
    return reported("open64", -1, real(path, flags, mode));
}

int sigaction(int signal, const struct sigaction *action, struct sigaction *before) {
    TORTURED(sigaction, -1);
    return reported("sigaction", -1, real(signal, action, before));
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    TORTURED(epoll_ctl, fd);
    return reported("epoll_ctl", fd, real(epoll, operation, fd, event));
}

int accept4(int fd, __SOCKADDR_ARG address, socklen_t *length, int flags) {
    TORTURED(accept4, fd);
    int result = real(fd, address, length, flags);
    report("", "accept4", fd, result, result < 0 ? 0 : port_of(address.__sockaddr_in__));
    return result;
}

ssize_t read(int fd, void *buffer, size_t length) {
    TORTURED(read, fd);
    return reported("read", fd, real(fd, buffer, length));
}

ssize_t recv(int fd, void *buffer, size_t length, int flags) {
    TORTURED(recv, fd);
    return reported("recv", fd, real(fd, buffer, length, flags));
}

ssize_t write(int fd, const void *buffer, size_t length) {
    TORTURED(write, fd);
    return reported("write", fd, real(fd, buffer, length));
}

ssize_t send(int fd, const void *buffer, size_t length, int flags) {
    TORTURED(send, fd);
    return reported("send", fd, real(fd, buffer, length, flags));
}

ssize_t writev(int fd, const struct iovec *slices, int slice_count) {
    TORTURED(writev, fd);
    return reported("writev", fd, real(fd, slices, slice_count));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    TORTURED(sendmsg, fd);
    return reported("sendmsg", fd, real(fd, message, flags));
}

int shutdown(int fd, int how) {
    TORTURED(shutdown, fd);
    return reported("shutdown", fd, real(fd, how));
}

/* Whatever the result, Linux has closed it. */
int close(int fd) {
    REAL(close);
    int result = real(fd);
    if (fails("close", &count, fd))
        return -1;
    return reported("close", fd, result);
}

/* Waits for a command how to wait, but no longer than until a signal, which ends an `epoll_wait` as
 * well. One that comes between the line and the waiting is not to be missed. */
static int is_let(int timeout, char *how) {
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    char line[32];
    say(line, snprintf(line, sizeof line, "asleep %d\n", timeout));
    struct pollfd input = {.fd = 0, .events = POLLIN};
    int ready = ppoll(&input, 1, NULL, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready > 0 && syscall(SYS_read, 0, how, 1) >= 0;
}

int epoll_wait(int fd, struct epoll_event *events, int capacity, int timeout) {
    TORTURED(epoll_wait, fd);
    int result = real(fd, events, capacity, 0);
    if (result == 0 && timeout != 0) {
        char how = 'g';
        if (!is_let(timeout, &how)) {
            errno = EINTR;
            return reported("epoll_wait", fd, -1);
        }
        result = real(fd, events, capacity, how == 'j' ? 0 : timeout);
        if (result == 0 && how == 'j' && timeout > 0)
            jumped_ms += timeout;
    }
    return reported("epoll_wait", fd, result);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_MONOTONIC) {
        long ms = time->tv_nsec / 1000000 + jumped_ms;
        time->tv_sec += ms / 1000;
        time->tv_nsec = ms % 1000 * 1000000 + time->tv_nsec % 1000000;
    }
    return result;
}
