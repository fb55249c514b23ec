/* Writes down what a process does to the files beneath one directory, in order, for tests of power cuts.
 *
 * Preloaded (LD_PRELOAD) into a process and those it starts. RECORD_ROOT is the directory, of which only RECORD_ONLY is
 * followed, without RECORD_SKIP beneath that; RECORD_LOG is the log. Each record is one write to a file opened for appending, so what several
 * processes record is in one order, and so are the marks that a test writes there itself (tape.py reads it and has the format).
 *
 * A record follows its operation, and both happen under one lock: nobody can rely on an operation that is not recorded yet.
 * RECORD_SYNC_DELAY_US makes each sync slow, so that an answer which does not wait for it is seen to come too early.
 * What cannot be followed (exchanging names, files without one) is recorded as such and makes the tape invalid. Symbolic links are
 * left out, as are writes within the C library (stdio): who compares the tape with what is there at last sees whether that matters.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct __attribute__((packed)) header {
  uint32_t length;
  uint8_t op;
  uint16_t path_bytes;
  uint64_t node;
  uint64_t offset;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], only[PATH_MAX], skip[PATH_MAX];
static int log_fd = -1;
static long sync_delay_us;

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(next))dlsym(RTLD_NEXT, #name)

static void unlock_in_child(void) { pthread_mutex_init(&lock, NULL); }

static void __attribute__((constructor)) begin(void) {
  const char *where = getenv("RECORD_ROOT"), *what = getenv("RECORD_ONLY");
  const char *without = getenv("RECORD_SKIP"), *delay = getenv("RECORD_SYNC_DELAY_US");
  if (!where || !realpath(where, root)) { root[0] = 0; return; }
  snprintf(only, sizeof only, "%s", what ? what : root);
  snprintf(skip, sizeof skip, "%s", without ? without : "");
  sync_delay_us = delay ? atol(delay) : 0;
  pthread_atfork(NULL, NULL, unlock_in_child);
}

static int beneath(const char *path, const char *directory) {
  size_t n = strlen(directory);
  return n && strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static int watched_path(const char *path) {
  return (beneath(path, only) && !beneath(path, skip)) || strcmp(path, root) == 0;  /* the root for the sake of its names */
}

/* The path of an open file; whether it is one that is recorded. */
static int watched_fd(int fd, char *path) {
  if (!root[0] || fd < 0) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int saved = errno;
  ssize_t n = readlink(link, path, PATH_MAX - 1);
  errno = saved;
  if (n <= 0) return 0;
  path[n] = 0;
  return watched_path(path);
}

/* The absolute path of a name, with its directory resolved; whether it is one that is recorded. */
static int watched_name(int dirfd, const char *name, char *path) {
  if (!root[0] || !name) return 0;
  int saved = errno, found = 0;
  char whole[PATH_MAX * 2], directory[PATH_MAX];
  if (name[0] == '/') snprintf(whole, sizeof whole, "%s", name);
  else {
    char link[64];
    ssize_t n;
    if (dirfd == AT_FDCWD) { if (!getcwd(directory, sizeof directory)) goto out; }
    else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
      if ((n = readlink(link, directory, sizeof directory - 1)) <= 0) goto out;
      directory[n] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", directory, name);
  }
  size_t end = strlen(whole);
  while (end > 1 && whole[end - 1] == '/') whole[--end] = 0;
  char *slash = strrchr(whole, '/');
  if (!slash) goto out;
  *slash = 0;
  if (!realpath(slash == whole ? "/" : whole, directory)) goto out;
  int size = snprintf(path, PATH_MAX, "%s/%s", strcmp(directory, "/") ? directory : "", slash + 1);
  found = size < PATH_MAX && watched_path(path);
out:
  errno = saved;
  return found;
}

static void record(char op, uint64_t node, uint64_t offset, const char *path, const void *data, size_t size) {
  int saved = errno;
  NEXT(writev);
  struct header head = {(uint32_t)(sizeof head + strlen(path) + size), (uint8_t)op, (uint16_t)strlen(path), node, offset};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)path, strlen(path)}, {(void *)data, size}};
  for (int attempt = 0; attempt < 2; attempt++) {
    if (log_fd < 0) {
      NEXT(open);
      int low = next(getenv("RECORD_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
      log_fd = fcntl(low, F_DUPFD_CLOEXEC, 900);  /* out of the way of those who count descriptors from below */
      close(low);
    }
    if (next(log_fd, parts, 3) == (ssize_t)head.length) break;
    log_fd = -1;
    if (attempt) abort();
  }
  errno = saved;
}

static uint64_t node_of(int fd) {
  struct stat status;
  return fstat(fd, &status) ? 0 : status.st_ino;
}

/* What a call wrote, read back from the file: for calls whose data never was in our memory. */
static void record_copied(int fd, const char *path, off_t at, size_t size) {
  char *copy = malloc(size);
  int readable = open(path, O_RDONLY | O_CLOEXEC);
  if (copy && pread(readable, copy, size, at) == (ssize_t)size) record('W', node_of(fd), at, path, copy, size);
  else record('X', 0, 0, path, "copied", 6);
  close(readable);
  free(copy);
}

static int open_recorded(int dirfd, const char *name, int flags, mode_t mode) {
  NEXT(openat);
  char path[PATH_MAX];
  if (!(flags & (O_CREAT | O_TRUNC)) || !watched_name(dirfd, name, path)) return next(dirfd, name, flags, mode);
  pthread_mutex_lock(&lock);
  struct stat before;
  int saved = errno, fresh = lstat(path, &before) != 0;
  errno = saved;
  int fd = next(dirfd, name, flags, mode);
  if (fd >= 0) {
    if ((flags & O_TMPFILE) == O_TMPFILE || flags & (O_SYNC | O_DSYNC)) record('X', 0, 0, path, "flags", 5);
    if (fresh) record('C', node_of(fd), 0, path, NULL, 0);
    else if (flags & O_TRUNC && before.st_size) record('T', node_of(fd), 0, path, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

#define MODE_OF(flags, mode) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }

int open(const char *name, int flags, ...) { MODE_OF(flags, mode) return open_recorded(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE_OF(flags, mode) return open_recorded(AT_FDCWD, name, flags, mode); }
int openat(int dirfd, const char *name, int flags, ...) {
  NEXT(openat);
  MODE_OF(flags, mode)
  return flags & (O_CREAT | O_TRUNC) ? open_recorded(dirfd, name, flags, mode) : next(dirfd, name, flags, mode);
}
int openat64(int dirfd, const char *name, int flags, ...) { MODE_OF(flags, mode) return open_recorded(dirfd, name, flags, mode); }
int __open_2(const char *name, int flags) { return open_recorded(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_recorded(AT_FDCWD, name, flags, 0); }
int __openat_2(int dirfd, const char *name, int flags) { return open_recorded(dirfd, name, flags, 0); }
int __openat64_2(int dirfd, const char *name, int flags) { return open_recorded(dirfd, name, flags, 0); }
int creat(const char *name, mode_t mode) { return open_recorded(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return open_recorded(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* An operation on an open file, with what is recorded of it when it succeeds. */
#define ON_FILE(fd, call, note) \
  char path[PATH_MAX]; \
  if (!watched_fd(fd, path)) return call; \
  pthread_mutex_lock(&lock); \
  __typeof__(call) done = call; \
  if (done >= 0) { note; } \
  pthread_mutex_unlock(&lock); \
  return done

#define HERE(fd) lseek(fd, 0, SEEK_CUR)

ssize_t write(int fd, const void *data, size_t size) {
  NEXT(write);
  ON_FILE(fd, next(fd, data, size), record('W', node_of(fd), HERE(fd) - done, path, data, done));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  NEXT(pwrite);
  ON_FILE(fd, next(fd, data, size, at), record('W', node_of(fd), at, path, data, done));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  NEXT(pwrite64);
  ON_FILE(fd, next(fd, data, size, at), record('W', node_of(fd), at, path, data, done));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  NEXT(writev);
  ON_FILE(fd, next(fd, parts, count), record_copied(fd, path, HERE(fd) - done, done));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  NEXT(pwritev);
  ON_FILE(fd, next(fd, parts, count, at), record_copied(fd, path, at, done));
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
  NEXT(sendfile);
  ON_FILE(to, next(to, from, at, size), record_copied(to, path, HERE(to) - done, done));
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
  NEXT(sendfile64);
  ON_FILE(to, next(to, from, at, size), record_copied(to, path, HERE(to) - done, done));
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t size, unsigned flags) {
  NEXT(copy_file_range);
  ON_FILE(to, next(from, at, to, to_at, size, flags), record_copied(to, path, (to_at ? *to_at : HERE(to)) - done, done));
}
int ftruncate(int fd, off_t size) {
  NEXT(ftruncate);
  ON_FILE(fd, next(fd, size), record('T', node_of(fd), size, path, NULL, 0));
}
int ftruncate64(int fd, off64_t size) {
  NEXT(ftruncate64);
  ON_FILE(fd, next(fd, size), record('T', node_of(fd), size, path, NULL, 0));
}
static void record_grown(int fd, const char *path) {
  struct stat status;
  if (!fstat(fd, &status)) record('T', status.st_ino, status.st_size, path, NULL, 0);
}
int fallocate(int fd, int mode, off_t at, off_t size) {
  NEXT(fallocate);
  ON_FILE(fd, next(fd, mode, at, size), { if (mode & ~FALLOC_FL_KEEP_SIZE) record('X', 0, 0, path, "punch", 5); record_grown(fd, path); });
}
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
  NEXT(fallocate64);
  ON_FILE(fd, next(fd, mode, at, size), { if (mode & ~FALLOC_FL_KEEP_SIZE) record('X', 0, 0, path, "punch", 5); record_grown(fd, path); });
}
int posix_fallocate(int fd, off_t at, off_t size) {
  NEXT(posix_fallocate);
  ON_FILE(fd, next(fd, at, size), record_grown(fd, path));
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  NEXT(posix_fallocate64);
  ON_FILE(fd, next(fd, at, size), record_grown(fd, path));
}
/* A sync, with the content of a small file: so that what the C library itself wrote is known as soon as it is durable. */
static void record_sync(int fd, const char *path) {
  static char content[65536];  /* under the lock */
  struct stat status;
  ssize_t size = 0;
  if (!fstat(fd, &status) && S_ISREG(status.st_mode) && status.st_size < (off_t)sizeof content) {
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    if ((size = pread(readable, content, sizeof content, 0)) < 0) size = 0;
    close(readable);
  }
  record('S', node_of(fd), 0, path, content, size);
}
static void slowly(void) { if (sync_delay_us) usleep(sync_delay_us); }
int fsync(int fd) {
  NEXT(fsync);
  ON_FILE(fd, (slowly(), next(fd)), record_sync(fd, path));
}
int fdatasync(int fd) {
  NEXT(fdatasync);
  ON_FILE(fd, (slowly(), next(fd)), record_sync(fd, path));
}
static void *map(void *(*next)(void *, size_t, int, int, int, off_t), void *at, size_t size, int prot, int flags, int fd, off_t from) {
  char path[PATH_MAX];
  if (prot & PROT_WRITE && flags & MAP_SHARED && watched_fd(fd, path)) {
    pthread_mutex_lock(&lock);
    record('P', node_of(fd), 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  return next(at, size, prot, flags, fd, from);
}
void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t from) { NEXT(mmap); return map(next, at, size, prot, flags, fd, from); }
void *mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t from) { NEXT(mmap64); return map(next, at, size, prot, flags, fd, from); }

/* An operation on a name. */
#define ON_NAME(dirfd, name, call, note) \
  char path[PATH_MAX]; \
  if (!watched_name(dirfd, name, path)) return call; \
  pthread_mutex_lock(&lock); \
  int done = call; \
  if (done == 0) { note; } \
  pthread_mutex_unlock(&lock); \
  return done

static void record_made(const char *path) {
  struct stat status;
  record('M', lstat(path, &status) ? 0 : status.st_ino, 0, path, NULL, 0);
}
int mkdir(const char *name, mode_t mode) { NEXT(mkdir); ON_NAME(AT_FDCWD, name, next(name, mode), record_made(path)); }
int mkdirat(int dirfd, const char *name, mode_t mode) { NEXT(mkdirat); ON_NAME(dirfd, name, next(dirfd, name, mode), record_made(path)); }
int unlink(const char *name) { NEXT(unlink); ON_NAME(AT_FDCWD, name, next(name), record('U', 0, 0, path, NULL, 0)); }
int rmdir(const char *name) { NEXT(rmdir); ON_NAME(AT_FDCWD, name, next(name), record('U', 0, 0, path, NULL, 0)); }
int remove(const char *name) { NEXT(remove); ON_NAME(AT_FDCWD, name, next(name), record('U', 0, 0, path, NULL, 0)); }
int unlinkat(int dirfd, const char *name, int flags) { NEXT(unlinkat); ON_NAME(dirfd, name, next(dirfd, name, flags), record('U', 0, 0, path, NULL, 0)); }
int truncate(const char *name, off_t size) { NEXT(truncate); ON_NAME(AT_FDCWD, name, next(name, size), record('X', 0, 0, path, "truncate", 8)); }

/* From one name to another. Moving between what is recorded and what is not cannot be followed. */
#define BETWEEN(from_dir, from, to_dir, to, op, call) \
  char path[PATH_MAX], other[PATH_MAX]; \
  int a = watched_name(from_dir, from, path), b = watched_name(to_dir, to, other); \
  if (!a && !b) return call; \
  pthread_mutex_lock(&lock); \
  int done = call; \
  if (done == 0) { \
    if (a && b) record(op, 0, 0, path, other, strlen(other)); \
    else record('X', 0, 0, a ? path : other, "moved", 5); \
  } \
  pthread_mutex_unlock(&lock); \
  return done

int rename(const char *from, const char *to) { NEXT(rename); BETWEEN(AT_FDCWD, from, AT_FDCWD, to, 'R', next(from, to)); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
  NEXT(renameat);
  BETWEEN(from_dir, from, to_dir, to, 'R', next(from_dir, from, to_dir, to));
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  NEXT(renameat2);
  BETWEEN(from_dir, from, to_dir, to, flags & ~RENAME_NOREPLACE ? 'X' : 'R', next(from_dir, from, to_dir, to, flags));
}
int link(const char *from, const char *to) { NEXT(link); BETWEEN(AT_FDCWD, from, AT_FDCWD, to, 'L', next(from, to)); }
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  NEXT(linkat);
  BETWEEN(from_dir, from, to_dir, to, flags ? 'X' : 'L', next(from_dir, from, to_dir, to, flags));
}
