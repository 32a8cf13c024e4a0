/* Shows a process another time of day than the machine has, as if an administrator had set the clock. Loaded with
 * LD_PRELOAD. The clock since the boot stays as it is: the process reads it by another way, and nobody can set it.
 *
 * SET_CLOCK_FILE     a file of 8 bytes: by how many nanoseconds the clock is set, in the machine's byte order. It may
 *                    change at any time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *set_by;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("SET_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) abort();
    void *map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    set_by = map;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    if (result == 0 && id == CLOCK_REALTIME && set_by) {
        int64_t nanos = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + *set_by;
        time->tv_sec = nanos / 1000000000;
        time->tv_nsec = nanos % 1000000000;
    }
    return result;
}
