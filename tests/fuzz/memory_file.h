/* The fuzzer's bytes as a file that the readers can open, without touching the disk. */
#ifndef SW_FUZZ_MEMORY_FILE_H
#define SW_FUZZ_MEMORY_FILE_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Sets `path` to the file's name; close the returned descriptor afterwards. */
static inline int memory_file(const uint8_t *data, size_t size, char path[64]) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0) abort();
  while (size) {
    ssize_t wrote = write(fd, data, size);
    if (wrote <= 0) abort();
    data += wrote;
    size -= (size_t)wrote;
  }
  snprintf(path, 64, "/proc/self/fd/%d", fd);
  return fd;
}
#endif
