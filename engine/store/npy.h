/* NumPy's .npy, format 1.0 (numpy.lib.format): two-dimensional float32 in C order. */
#ifndef SW_STORE_NPY_H
#define SW_STORE_NPY_H
#include <stdint.h>
#include <stdio.h>

enum { SW_NPY_HEADER = 128 }; /* bytes that sw_npy_header writes, whatever the shape */

int sw_npy_header(FILE *file, uint64_t rows, uint64_t columns);
/* Reads and checks the header; afterwards the file stands at the first value. Format 1.0 to 3.0, '<f4', C order, two
 * dimensions, and as many bytes as the shape says; anything else is refused, naming `path`. *data is the offset of the
 * first value. */
int sw_npy_read_header(FILE *file, const char *path, uint64_t *rows, uint64_t *columns, uint64_t *data);
#endif
