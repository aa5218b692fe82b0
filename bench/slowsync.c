/* Preloaded into a process: every fsync and fdatasync takes SLOW_SYNC_US microseconds more, asleep. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_first(void) {
    const char *given = getenv("SLOW_SYNC_US");
    long us = given ? atol(given) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    if (us > 0)
        while (nanosleep(&left, &left) != 0) {}
}

int fsync(int fd) {
    static int (*original)(int);
    if (!original)
        original = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return original(fd);
}

int fdatasync(int fd) {
    static int (*original)(int);
    if (!original)
        original = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return original(fd);
}
