/*
 * Preloaded into a process under test (LD_PRELOAD): counts and records every call that changes what lies
 * below one folder, and lets the N-th such call fail, be cut short, or be the last thing the process does.
 *
 * VECSTOW_FAULT_FOLDER    the folder, absolute, without links in it
 * VECSTOW_FAULT_CONTROL   the file that the test driver shares with the process: `struct control`
 *
 * All threads and all forked children count together. The layout of `struct control` and the numbers of
 * kinds and actions are those of control.py; every number has 8 bytes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE, TRUNCATE, ALLOCATE, CREATE, RENAME, UNLINK, RMDIR, MKDIR, LINK, FSYNC, FDATASYNC, OPEN };
enum action { PASS, KILL_BEFORE, KILL_TORN, KILL_AFTER, FAIL, CUT, CUT_THEN_FAIL };

#define RECORDS 65536
#define PATTERN_BYTES 256
#define RECORD_BYTES 248

struct record {
    uint64_t kind;              /* one more than the kind, once the path is there */
    char path[RECORD_BYTES];    /* below the folder; of a rename or link "source -> target" */
};

struct control {
    uint64_t total;             /* calls counted so far: the number of the next record */
    uint64_t leader;            /* the process that a kill ends, besides the caller */
    uint64_t armed;             /* written last by the driver */
    uint64_t kinds;             /* bits: 1 << kind */
    uint64_t nth;               /* of the matching calls, the first that the action befalls, from 1 */
    uint64_t times;             /* how many matching calls in a row */
    uint64_t action;
    uint64_t number;            /* errno of FAIL */
    uint64_t bytes;             /* what CUT and KILL_TORN leave of a write; 0: half of it */
    uint64_t matched;           /* matching calls since it was armed */
    uint64_t fired;             /* calls that the action befell */
    uint64_t fired_at;          /* one more than the number of the first one's record */
    uint64_t sync_delay_us;     /* how long each FDATASYNC waits: meanwhile writers gather */
    char pattern[PATTERN_BYTES]; /* a match has this in its path; empty: any path */
    struct record records[RECORDS];
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;

/* When it is loaded; a process that was forked before it knew its folder calls this itself. */
__attribute__((constructor)) void vecstow_faults_attach(void)
{
    const char *path = getenv("VECSTOW_FAULT_CONTROL"), *below = getenv("VECSTOW_FAULT_FOLDER");
    if (!path || !below)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort(); /* a test without its faults would pass */
    folder_length = strlen(below);
    memcpy(folder, below, folder_length + 1);
    void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED)
        abort();
    control = shared;
    control->leader = (uint64_t)getpid();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no server outlives its driver */
}

static int is_inside(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static const char *below_folder(const char *path)
{
    return is_inside(path) ? path + folder_length + (path[folder_length] == '/') : path;
}

static void read_link(const char *link, char *path)
{
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void path_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    read_link(link, path);
}

static void resolve(int folder_fd, const char *name, char *path)
{
    path[0] = 0;
    if (name[0] != '/') {
        if (folder_fd == AT_FDCWD)
            read_link("/proc/self/cwd", path);
        else
            path_of(folder_fd, path);
        strncat(path, "/", PATH_MAX - 1 - strlen(path));
    }
    strncat(path, name, PATH_MAX - 1 - strlen(path));
}

static void die(void)
{
    kill((pid_t)control->leader, SIGKILL);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static uint64_t take_number(enum kind kind, const char *path, const char *target)
{
    uint64_t number = __atomic_fetch_add(&control->total, 1, __ATOMIC_SEQ_CST);
    if (number < RECORDS) {
        struct record *record = &control->records[number];
        snprintf(record->path, sizeof record->path, "%s%s%s", below_folder(path), target ? " -> " : "",
                 target ? below_folder(target) : "");
        __atomic_store_n(&record->kind, (uint64_t)kind + 1, __ATOMIC_SEQ_CST);
    }
    return number;
}

/* What the driver wants to befall this call. */
static enum action wanted(enum kind kind, const char *path, const char *target)
{
    if (!__atomic_load_n(&control->armed, __ATOMIC_SEQ_CST) || !(control->kinds >> kind & 1))
        return PASS;
    if (!strstr(path, control->pattern) && !(target && strstr(target, control->pattern)))
        return PASS;
    uint64_t matched = __atomic_add_fetch(&control->matched, 1, __ATOMIC_SEQ_CST);
    if (matched < control->nth || matched - control->nth >= control->times)
        return PASS;
    if (control->action == CUT_THEN_FAIL)
        return matched == control->nth ? CUT : FAIL;
    return control->action;
}

/* Count one call, made on `path` (and `target`); returns what is to befall it. */
static enum action begin(enum kind kind, const char *path, const char *target)
{
    if (!control || !(is_inside(path) || (target && is_inside(target))))
        return PASS;
    uint64_t number = take_number(kind, path, target);
    if (kind == FDATASYNC && control->sync_delay_us)
        usleep((useconds_t)control->sync_delay_us);
    enum action action = wanted(kind, path, target);
    if (action == PASS)
        return PASS;
    uint64_t none = 0;
    __atomic_compare_exchange_n(&control->fired_at, &none, number + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST);
    if (action == KILL_BEFORE || (action == KILL_TORN && kind != WRITE))
        die();
    return action;
}

static void end(enum action action)
{
    if (action == KILL_AFTER || action == KILL_TORN)
        die();
}

static size_t kept(enum action action, size_t length)
{
    if ((action != CUT && action != KILL_TORN) || length < 2)
        return length;
    size_t part = control->bytes ? control->bytes : length / 2;
    return part < length ? part : length;
}

/* Copy of `parts` with so many bytes left; returns how many parts it has. */
static int keep_parts(enum action action, const struct iovec *parts, int count, struct iovec *left)
{
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    size_t rest = kept(action, length);
    int i = 0;
    for (; i < count && rest; i++) {
        left[i] = parts[i];
        if (left[i].iov_len > rest)
            left[i].iov_len = rest;
        rest -= left[i].iov_len;
    }
    return i;
}

#define REAL(name)                                      \
    static __typeof__(name) *real;                      \
    if (!real)                                          \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define INTERCEPT(kind, path, target, type, failed, call)   \
    enum action action = begin(kind, path, target);         \
    if (action == FAIL) {                                   \
        errno = (int)control->number;                       \
        return failed;                                      \
    }                                                       \
    type result = call;                                     \
    end(action);                                            \
    return result

#define ON_FD(kind, type, failed, call) \
    char path[PATH_MAX];                \
    path_of(fd, path);                  \
    INTERCEPT(kind, path, NULL, type, failed, call)

#define ON_NAME(kind, folder_fd, name, type, failed, call)  \
    char path[PATH_MAX];                                    \
    resolve(folder_fd, name, path);                         \
    INTERCEPT(kind, path, NULL, type, failed, call)

#define ON_NAMES(kind, from_fd, from, to_fd, to, call)  \
    char path[PATH_MAX], target[PATH_MAX];              \
    resolve(from_fd, from, path);                       \
    resolve(to_fd, to, target);                         \
    INTERCEPT(kind, path, target, int, -1, call)

/* Writes ------------------------------------------------------------------------------------------------ */

ssize_t write(int fd, const void *bytes, size_t length)
{
    REAL(write);
    ON_FD(WRITE, ssize_t, -1, real(fd, bytes, kept(action, length)));
}

#define PWRITE(name, offset_type)                                                   \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset)      \
    {                                                                               \
        REAL(name);                                                                 \
        ON_FD(WRITE, ssize_t, -1, real(fd, bytes, kept(action, length), offset));   \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    struct iovec left[IOV_MAX];
    ON_FD(WRITE, ssize_t, -1, real(fd, left, keep_parts(action, parts, count, left)));
}

#define PWRITEV(name, offset_type, parameter, argument)                                             \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset parameter)        \
    {                                                                                               \
        REAL(name);                                                                                 \
        struct iovec left[IOV_MAX];                                                                 \
        ON_FD(WRITE, ssize_t, -1, real(fd, left, keep_parts(action, parts, count, left), offset argument)); \
    }
#define FLAGS_PARAMETER , int flags
#define FLAGS_ARGUMENT , flags

PWRITEV(pwritev, off_t, , )
PWRITEV(pwritev64, off64_t, , )
PWRITEV(pwritev2, off_t, FLAGS_PARAMETER, FLAGS_ARGUMENT)
PWRITEV(pwritev64v2, off64_t, FLAGS_PARAMETER, FLAGS_ARGUMENT)

/* Lengths ----------------------------------------------------------------------------------------------- */

#define FTRUNCATE(name, offset_type)                            \
    int name(int fd, offset_type length)                        \
    {                                                           \
        REAL(name);                                             \
        ON_FD(TRUNCATE, int, -1, real(fd, length));             \
    }

#define TRUNCATE_NAME(name, offset_type)                                            \
    int name(const char *file, offset_type length)                                  \
    {                                                                               \
        REAL(name);                                                                 \
        ON_NAME(TRUNCATE, AT_FDCWD, file, int, -1, real(file, length));             \
    }

#define FALLOCATE(name, offset_type)                                        \
    int name(int fd, int mode, offset_type offset, offset_type length)      \
    {                                                                       \
        REAL(name);                                                         \
        ON_FD(ALLOCATE, int, -1, real(fd, mode, offset, length));           \
    }

#define POSIX_FALLOCATE(name, offset_type)                                      \
    int name(int fd, offset_type offset, offset_type length)                    \
    {                                                                           \
        REAL(name);                                                             \
        ON_FD(ALLOCATE, int, (int)control->number, real(fd, offset, length));   \
    }

FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)
TRUNCATE_NAME(truncate, off_t)
TRUNCATE_NAME(truncate64, off64_t)
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

/* Syncs ------------------------------------------------------------------------------------------------- */

int fsync(int fd)
{
    REAL(fsync);
    ON_FD(FSYNC, int, -1, real(fd));
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    ON_FD(FDATASYNC, int, -1, real(fd));
}

/* Opens: CREATE may make or empty a file, OPEN does neither ------------------------------------------------ */

static enum kind kind_of(int flags)
{
    return flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE ? CREATE : OPEN;
}

#define MODE(flags)                                                     \
    mode_t mode = 0;                                                    \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) {      \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        mode = va_arg(more, mode_t);                                    \
        va_end(more);                                                   \
    }

#define OPEN_NAME(name)                                                                     \
    int name(const char *file, int flags, ...)                                              \
    {                                                                                       \
        REAL(name);                                                                         \
        MODE(flags)                                                                         \
        ON_NAME(kind_of(flags), AT_FDCWD, file, int, -1, real(file, flags, mode));          \
    }

#define OPEN_AT(name)                                                                       \
    int name(int folder_fd, const char *file, int flags, ...)                               \
    {                                                                                       \
        REAL(name);                                                                         \
        MODE(flags)                                                                         \
        ON_NAME(kind_of(flags), folder_fd, file, int, -1, real(folder_fd, file, flags, mode)); \
    }

#define FOPEN(name)                                                                                 \
    FILE *name(const char *file, const char *mode)                                                  \
    {                                                                                               \
        REAL(name);                                                                                 \
        ON_NAME(mode[0] == 'r' ? OPEN : CREATE, AT_FDCWD, file, FILE *, NULL, real(file, mode));    \
    }

OPEN_NAME(open)
OPEN_NAME(open64)
OPEN_AT(openat)
OPEN_AT(openat64)
FOPEN(fopen)
FOPEN(fopen64)

int creat(const char *file, mode_t mode)
{
    return open(file, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

/* Never EINTR: no local file system interrupts it, and CPython does not call it again. */
DIR *opendir(const char *name)
{
    REAL(opendir);
    if (control != NULL && control->number == EINTR)
        return real(name);
    ON_NAME(OPEN, AT_FDCWD, name, DIR *, NULL, real(name));
}

/* Names ------------------------------------------------------------------------------------------------- */

int rename(const char *from, const char *to)
{
    REAL(rename);
    ON_NAMES(RENAME, AT_FDCWD, from, AT_FDCWD, to, real(from, to));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(renameat);
    ON_NAMES(RENAME, from_fd, from, to_fd, to, real(from_fd, from, to_fd, to));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags)
{
    REAL(renameat2);
    ON_NAMES(RENAME, from_fd, from, to_fd, to, real(from_fd, from, to_fd, to, flags));
}

int link(const char *from, const char *to)
{
    REAL(link);
    ON_NAMES(LINK, AT_FDCWD, from, AT_FDCWD, to, real(from, to));
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    REAL(linkat);
    ON_NAMES(LINK, from_fd, from, to_fd, to, real(from_fd, from, to_fd, to, flags));
}

int unlink(const char *name)
{
    REAL(unlink);
    ON_NAME(UNLINK, AT_FDCWD, name, int, -1, real(name));
}

int unlinkat(int folder_fd, const char *name, int flags)
{
    REAL(unlinkat);
    ON_NAME(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder_fd, name, int, -1, real(folder_fd, name, flags));
}

int rmdir(const char *name)
{
    REAL(rmdir);
    ON_NAME(RMDIR, AT_FDCWD, name, int, -1, real(name));
}

int mkdir(const char *name, mode_t mode)
{
    REAL(mkdir);
    ON_NAME(MKDIR, AT_FDCWD, name, int, -1, real(name, mode));
}

int mkdirat(int folder_fd, const char *name, mode_t mode)
{
    REAL(mkdirat);
    ON_NAME(MKDIR, folder_fd, name, int, -1, real(folder_fd, name, mode));
}
