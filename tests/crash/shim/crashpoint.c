/* Crash points: what a program does to the files below one folder, counted, journalled, and ended at will.

   Loaded by LD_PRELOAD. Nothing happens before crashpoint_arm(). From then on every call that changes
   what is (or will be) on the disk below the root is one crash point, numbered from 1. At number `at`
   the process is killed before or after the call, in the middle of a write, or the call fails with an
   error; the latter also for every call from there on. All calls run one after the other under a lock,
   so the journal is the order in which things happened.

   A call that changes nothing (mkdir of what is there, open without creating) is not counted. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FAILED, RENAME, UNLINK, MKDIR, RMDIR, LINK, REACHED };
enum { KILL_BEFORE = 1, KILL_AFTER, KILL_AMID, FAIL, FAIL_FROM };

/* One entry of the journal; two names and the written bytes follow. Native byte order. */
struct entry { uint32_t op, name, other, data; uint64_t inode, offset; };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length; /* 0: not armed */
static int journal = -1, action, error_number;
static long count, at;

void crashpoint_arm(const char *folder, int journal_fd, long number, int what, int error) {
    pthread_mutex_lock(&turn);
    snprintf(root, sizeof root, "%s/", folder);
    journal = journal_fd, at = number, action = what, error_number = error, count = 0;
    root_length = strlen(root);
    pthread_mutex_unlock(&turn);
}

/* The fault is over: calls are counted and journalled, and go through. */
void crashpoint_heal(void) {
    pthread_mutex_lock(&turn);
    action = 0;
    pthread_mutex_unlock(&turn);
}

long crashpoint_count(void) { return count; }

static int below(const char *path) {
    return root_length && (!strncmp(path, root, root_length) ||
                           (!strncmp(path, root, root_length - 1) && !path[root_length - 1]));
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int fd_below(int fd) {
    char path[PATH_MAX];
    int before = errno, yes = root_length && path_of(fd, path) && below(path);
    errno = before;
    return yes;
}

/* The absolute path; whether it is below the root. */
static int resolved(int folder, const char *name, char *path) {
    if (!root_length) return 0;
    if (name[0] == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && below(path);
    if (folder == AT_FDCWD ? !getcwd(path, PATH_MAX) : !path_of(folder, path)) return 0;
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "/%s", name);
    return below(path);
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int needs_room(int op) { return op != UNLINK && op != RMDIR; }

static void done(int, uint64_t, uint64_t, const char *, const char *, const struct iovec *, int, size_t);

/* Count one call; 1 where it must fail now (errno is set). */
static int reached(int op) {
    count++;
    if (count == at && action != KILL_AFTER) done(REACHED, 0, 0, NULL, NULL, NULL, 0, 0);
    if (action == KILL_BEFORE && count == at) die();
    if ((action == FAIL && count == at) || (action == FAIL_FROM && count >= at)) {
        if (error_number == ENOSPC && !needs_room(op)) return 0;
        errno = error_number;
        return 1;
    }
    return 0;
}

static void done(int op, uint64_t inode, uint64_t offset, const char *name, const char *other,
                 const struct iovec *parts, int number, size_t length) {
    struct entry entry = {op, name ? strlen(name) : 0, other ? strlen(other) : 0, length, inode, offset};
    int before = errno;
    char text[2 * PATH_MAX + sizeof entry];
    size_t used = sizeof entry;
    memcpy(text, &entry, used);
    if (name) memcpy(text + used, name, entry.name), used += entry.name;
    if (other) memcpy(text + used, other, entry.other), used += entry.other;
    syscall(SYS_write, journal, text, used);
    for (int n = 0; n < number && length; n++) {
        size_t piece = parts[n].iov_len < length ? parts[n].iov_len : length;
        syscall(SYS_write, journal, parts[n].iov_base, piece);
        length -= piece;
    }
    if (action == KILL_AFTER && count == at) die();
    errno = before;
}

/* ---- opening ----------------------------------------------------------------------------- */

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !resolved(folder, name, path))
        return syscall(SYS_openat, folder, name, flags, mode);
    pthread_mutex_lock(&turn);
    int there = inode_at(path) != 0, fd = -1;
    int changes = there ? flags & O_TRUNC && !(flags & O_EXCL) : flags & O_CREAT;
    if (!changes || !reached(there ? TRUNCATE : CREATE)) {
        fd = syscall(SYS_openat, folder, name, flags, mode);
        if (fd >= 0 && changes)
            done(there ? TRUNCATE : CREATE, inode_of(fd), 0, path + root_length, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    return fd;
}

#define MODE_OF(flags)                                   \
    mode_t mode = 0;                                     \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                    \
    }

int open(const char *name, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE_OF(flags) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE_OF(flags) return opened(folder, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* ---- bytes ------------------------------------------------------------------------------- */

/* offset -1: where the file stands. */
static ssize_t written(int fd, const struct iovec *parts, int number, off_t offset) {
    size_t length = 0;
    for (int n = 0; n < number; n++) length += parts[n].iov_len;
    pthread_mutex_lock(&turn);
    ssize_t result = -1;
    if (!reached(WRITE)) {
        int amid = action == KILL_AMID && count == at;
        struct iovec half = {parts[0].iov_base, parts[0].iov_len / 2};
        if (amid) parts = &half, number = 1;
        result = offset < 0 ? syscall(SYS_writev, fd, parts, number)
                            : syscall(SYS_pwritev, fd, parts, number, offset, 0L);
        if (result >= 0) {
            if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - result;
            done(WRITE, inode_of(fd), offset, NULL, NULL, parts, number, result);
        }
        if (amid) die();
    }
    pthread_mutex_unlock(&turn);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!fd_below(fd)) return syscall(SYS_write, fd, bytes, length);
    struct iovec part = {(void *)bytes, length};
    return written(fd, &part, 1, -1);
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    if (!fd_below(fd)) return syscall(SYS_writev, fd, parts, number);
    return written(fd, parts, number, -1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    if (!fd_below(fd)) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    struct iovec part = {(void *)bytes, length};
    return written(fd, &part, 1, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }
ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t offset) {
    if (!fd_below(fd)) return syscall(SYS_pwritev, fd, parts, number, offset, 0L);
    return written(fd, parts, number, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t offset) { return pwritev(fd, parts, number, offset); }

/* Calls that move bytes past this journal are answered as by a kernel that lacks them: callers fall back. */
ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    if (fd_below(out)) return errno = EINVAL, -1;
    return syscall(SYS_sendfile, out, in, offset, length);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) { return sendfile(out, in, offset, length); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    if (fd_below(out)) return errno = ENOSYS, -1;
    return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
}

int ftruncate64(int fd, off64_t length) {
    if (!fd_below(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&turn);
    int result = -1;
    if (!reached(TRUNCATE) && !(result = syscall(SYS_ftruncate, fd, length)))
        done(TRUNCATE, inode_of(fd), length, NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, long call) {
    if (!fd_below(fd)) return syscall(call, fd);
    pthread_mutex_lock(&turn);
    int result = -1;
    if (!reached(SYNC)) result = syscall(call, fd);
    done(result ? SYNC_FAILED : SYNC, inode_of(fd), 0, NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* ---- names ------------------------------------------------------------------------------- */

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int inside = resolved(to, new, target);
    if (!(resolved(from, old, source) | inside)) return syscall(SYS_renameat2, from, old, to, new, flags);
    pthread_mutex_lock(&turn);
    int result = -1;
    if (!inode_at(source) || !reached(RENAME)) {
        result = syscall(SYS_renameat2, from, old, to, new, flags);
        if (!result)
            done(RENAME, inode_at(target), 0, below(source) ? source + root_length : NULL,
                 inside ? target + root_length : NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    return result;
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char target[PATH_MAX];
    if (!resolved(to, new, target)) return syscall(SYS_linkat, from, old, to, new, flags);
    pthread_mutex_lock(&turn);
    int result = -1;
    if (inode_at(target) || !reached(LINK)) {
        result = syscall(SYS_linkat, from, old, to, new, flags);
        if (!result) done(LINK, inode_at(target), 0, target + root_length, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    return result;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!resolved(folder, name, path)) return syscall(SYS_unlinkat, folder, name, flags);
    pthread_mutex_lock(&turn);
    int result = -1, op = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    uint64_t inode = inode_at(path);
    if (!inode || !reached(op)) {
        result = syscall(SYS_unlinkat, folder, name, flags);
        if (!result) done(op, inode, 0, path + root_length, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!resolved(folder, name, path)) return syscall(SYS_mkdirat, folder, name, mode);
    pthread_mutex_lock(&turn);
    int result = -1;
    if (inode_at(path) || !reached(MKDIR)) {
        result = syscall(SYS_mkdirat, folder, name, mode);
        if (!result) done(MKDIR, inode_at(path), 0, path + root_length, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
