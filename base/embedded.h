/* Files that are part of the program: sw_embed_file of cmake/embed.cmake puts them in, SW_EMBEDDED makes them known. */
#ifndef SW_BASE_EMBEDDED_H
#define SW_BASE_EMBEDDED_H
#include <stddef.h>

/* `name` is the file's `name`_size bytes and, for those who want text, a NUL behind them; both last as long as the program. */
#define SW_EMBEDDED(name)                                                                                              \
  extern const char name[];                                                                                            \
  extern const size_t name##_size
#endif
