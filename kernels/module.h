/* A backend in a shared object of its own: lib/skillwatch/skillwatch_<backend>.so, opened at run time. It exports one symbol,
 * sw_backend_module, and takes sw_fail and the other functions of base/error.h from the program that opens it. */
#ifndef SW_KERNELS_MODULE_H
#define SW_KERNELS_MODULE_H
#include "kernels/backend.h"

/* Changes whenever sw_module, sw_device, sw_operators or an operator's contract changes: another number is refused. */
#define SW_MODULE_API 6

typedef struct {
  char name[96];         /* the product's */
  int major, minor;      /* compute capability */
  int multiprocessors;
  size_t memory, memory_free; /* bytes */
} sw_device_info;

typedef struct {
  int api; /* SW_MODULE_API it was built with; first, so that any version can be read */
  const char *backend;
  const char *built_with; /* toolkit and libraries, for people */
  /* Devices that can be used; -1 with the message set where the driver does not work. */
  int (*count)(void);
  int (*describe)(int index, sw_device_info *info);
  int (*open)(int index, sw_device **out);
} sw_module;

#define SW_MODULE_SYMBOL "sw_backend_module"

/* The module of a backend ("cuda"), opened once and kept; NULL with the message set: what is missing. */
const sw_module *sw_module_open(const char *backend);
/* The same for what is no backend: the symbol of skillwatch_<name>.so. */
const void *sw_module_symbol(const char *name, const char *symbol);
/* 1 where a module of the backend lies where sw_module_open looks, whether it can be used or not. */
int sw_module_installed(const char *backend);
#endif
