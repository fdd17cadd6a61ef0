/* Shifts the wall clock of a process by what a file says, while it runs.

   The file named by CHAOS_CLOCK holds a shift in nanoseconds, a 64-bit integer. Only clock_gettime and time are answered differently.
   gettimeofday is not: the client of Kafka computes deadlines of waits from it, which the kernel, who knows of no shift, would wait for.

     cc -O2 -shared -fPIC -o clock.so clock.c -ldl;  CHAOS_CLOCK=shift LD_PRELOAD=./clock.so python ... */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void open_shift(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) shift = at;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    int failed = (int)syscall(SYS_clock_gettime, clock, found);
    if (failed || !shift || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    int64_t ns = (int64_t)found->tv_sec * 1000000000 + found->tv_nsec + *shift;
    found->tv_sec = ns / 1000000000;
    found->tv_nsec = ns % 1000000000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
