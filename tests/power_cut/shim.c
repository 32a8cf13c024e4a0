/* Records what a process does to the files below one folder, so that a test can work out what the disk may
 * hold after a power cut at any moment. Loaded with LD_PRELOAD; passes every call through.
 *
 * POWER_CUT_DIR      the folder; nothing else is recorded
 * POWER_CUT_TRACE    the file that records are appended to
 * POWER_CUT_FAIL     a file; while it exists, one sync fails with EIO, and then it is removed: the next sync of files
 *                    whose names end as the file says, at best one that covers several commits. With * in it, all
 *                    syncs of files fail for as long as it exists
 *
 * A record is: operation (1 byte), file (8 bytes, the inode), offset or size (8 bytes), length of the data
 * (4 bytes), the data; numbers in the machine's byte order. One write(2) each, so records never mix.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 4096
static char tracked[MAX_FD]; /* 1: a file, 2: a folder */
static char named[MAX_FD][64]; /* how its name ends */
static int commits[MAX_FD];    /* commits in a write-ahead log that are not synced */
static const char *fail;
static int passed; /* syncs that could have failed */
static const char *dir;
static size_t dir_len;
static int trace = -1;
/* Holds a call and its record together: the order of records is the order of calls. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    dir = getenv("POWER_CUT_DIR");
    const char *path = getenv("POWER_CUT_TRACE");
    if (!dir || !path) return;
    dir_len = strlen(dir);
    fail = getenv("POWER_CUT_FAIL");
    trace = REAL(open)(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void record(char op, uint64_t file, uint64_t at, const void *data, uint32_t len) {
    char head[21];
    head[0] = op;
    memcpy(head + 1, &file, 8);
    memcpy(head + 9, &at, 8);
    memcpy(head + 17, &len, 4);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, len}};
    if (writev(trace, parts, len ? 2 : 1) < 0) abort();
}

/* The path below the folder, or NULL. */
static const char *inside(const char *path) {
    if (trace < 0 || strncmp(path, dir, dir_len) != 0) return NULL;
    return path[dir_len] == '/' ? path + dir_len + 1 : path[dir_len] == 0 ? "" : NULL;
}

static uint64_t inode(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static int opened(int fd, const char *path, int existed) {
    const char *name = inside(path);
    if (fd < 0 || fd >= MAX_FD || !name) return fd;
    struct stat st;
    if (fstat(fd, &st) != 0) return fd;
    tracked[fd] = S_ISDIR(st.st_mode) ? 2 : 1;
    commits[fd] = 0;
    size_t len = strlen(name);
    strcpy(named[fd], name + (len < sizeof named[fd] ? 0 : len - sizeof named[fd] + 1));
    if (tracked[fd] == 1) record(existed ? 'O' : 'C', st.st_ino, 0, name, strlen(name));
    return fd;
}

static int mode_of(int flags, va_list args) { return flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, int) : 0; }

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list args;                                                       \
        va_start(args, flags);                                              \
        int mode = mode_of(flags, args);                                    \
        va_end(args);                                                       \
        pthread_mutex_lock(&order);                                         \
        int existed = access(path, F_OK) == 0;                              \
        int fd = opened(REAL(name)(path, flags, mode), path, existed);      \
        int saved = errno;                                                  \
        if (fd >= 0 && fd < MAX_FD && tracked[fd] == 1 && existed && (flags & O_TRUNC)) \
            record('T', inode(fd), 0, NULL, 0);                             \
        pthread_mutex_unlock(&order);                                       \
        errno = saved;                                                      \
        return fd;                                                          \
    }
OPEN(open)
OPEN(open64)

int openat(int at, const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = mode_of(flags, args);
    va_end(args);
    return path[0] == '/' ? open(path, flags, mode) : REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = mode_of(flags, args);
    va_end(args);
    return path[0] == '/' ? open64(path, flags, mode) : REAL(openat64)(at, path, flags, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD) tracked[fd] = 0;
    return REAL(close)(fd);
}

static int is_file(int fd) { return trace >= 0 && fd >= 0 && fd < MAX_FD && tracked[fd] == 1; }

static int ends_with(const char *name, const char *end) {
    size_t len = strlen(name), of_end = strlen(end);
    return len >= of_end && strcmp(name + len - of_end, end) == 0;
}

/* The header of a frame is written by itself; that of a commit has the size of the file. */
static void count_commit(int fd, const char *data, size_t len) {
    static const char none[4];
    if (len == 24 && ends_with(named[fd], "-wal") && memcmp(data + 4, none, 4) != 0) commits[fd]++;
}

#define PWRITE(name, type)                                                   \
    ssize_t name(int fd, const void *data, size_t len, type at) {            \
        if (!is_file(fd)) return REAL(name)(fd, data, len, at);              \
        pthread_mutex_lock(&order);                                          \
        ssize_t done = REAL(name)(fd, data, len, at);                        \
        if (done > 0) record('W', inode(fd), at, data, done);                \
        count_commit(fd, data, len);                                         \
        pthread_mutex_unlock(&order);                                        \
        return done;                                                         \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t len) {
    if (!is_file(fd)) return REAL(write)(fd, data, len);
    pthread_mutex_lock(&order);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, len);
    if (done > 0) record('W', inode(fd), at, data, done);
    pthread_mutex_unlock(&order);
    return done;
}

#define TRUNCATE(name, type)                                                 \
    int name(int fd, type size) {                                            \
        if (!is_file(fd)) return REAL(name)(fd, size);                       \
        pthread_mutex_lock(&order);                                          \
        int outcome = REAL(name)(fd, size);                                  \
        if (outcome == 0) record('T', inode(fd), size, NULL, 0);             \
        pthread_mutex_unlock(&order);                                        \
        return outcome;                                                      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* Whether this sync fails. One that covers several commits does at once; where none comes, another one does. */
static int fails(int fd) {
    char end[64] = "";
    int file = fail && tracked[fd] == 1 ? REAL(open)(fail, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t len = read(file, end, sizeof end - 1);
    REAL(close)(file);
    if (end[0] == '*') return 1;
    if (len <= 0 || !ends_with(named[fd], end)) return 0;
    if (ends_with(end, "-wal") && (commits[fd] == 0 || (commits[fd] < 2 && ++passed % 16 != 0))) return 0;
    REAL(unlink)(fail);
    return 1;
}

/* What is synced is what was written before the call: the record stands at the call's begin, under the lock,
 * and the sync itself is not needed, since nobody cuts the power. */
static int synced(int fd, char op) {
    if (trace < 0 || fd < 0 || fd >= MAX_FD || !tracked[fd]) return 0;
    pthread_mutex_lock(&order);
    int failed = fails(fd);
    record(failed ? 'F' : tracked[fd] == 2 ? 'D' : op, inode(fd), commits[fd], NULL, 0);
    commits[fd] = 0;
    pthread_mutex_unlock(&order);
    if (failed) errno = EIO;
    return -failed;
}
int fsync(int fd) { return synced(fd, 'S'); }
int fdatasync(int fd) { return synced(fd, 's'); }

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name) return REAL(unlink)(path);
    pthread_mutex_lock(&order);
    int outcome = REAL(unlink)(path);
    if (outcome == 0) record('U', 0, 0, name, strlen(name));
    pthread_mutex_unlock(&order);
    return outcome;
}

int rename(const char *from, const char *to) {
    const char *old = inside(from), *new = inside(to);
    if (!old || !new) return REAL(rename)(from, to);
    pthread_mutex_lock(&order);
    int outcome = REAL(rename)(from, to);
    if (outcome == 0) {
        char names[2 * PATH_MAX];
        int len = snprintf(names, sizeof names, "%s%c%s", old, 0, new);
        record('R', 0, 0, names, len);
    }
    pthread_mutex_unlock(&order);
    return outcome;
}
