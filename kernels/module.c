#include "kernels/module.h"
#include "base/error.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where modules lie: $SKILLWATCH_MODULES alone where it is set, otherwise beside the program: ../lib/skillwatch as installed,
 * ../modules in a build tree. */
static int module_path(const char *backend, int place, char *path, size_t size) {
  const char *folder = getenv("SKILLWATCH_MODULES");
  char file[64];
  int n = snprintf(file, sizeof file, "skillwatch_%s.so", backend);
  for (int i = 0; i < n; i++)
    if (file[i] == '-') file[i] = '_';
  if (folder && *folder) return place == 0 && snprintf(path, size, "%s/%s", folder, file) < (int)size ? 0 : -1;
  static const char *const places[] = {"../lib/skillwatch", "../" SW_LIBRARY_FOLDER "/skillwatch", "../modules"};
  if (place >= (int)(sizeof places / sizeof *places)) return -1;
  char program[4096];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return -1;
  program[length] = 0;
  char *slash = strrchr(program, '/');
  if (!slash) return -1;
  *slash = 0;
  return snprintf(path, size, "%s/%s/%s", program, places[place], file) < (int)size ? 0 : -1;
}

/* CUDA's module needs the driver: without one its libraries would fail in less clear words. */
static int driver_present(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return sw_fail("no NVIDIA driver here (libcuda.so.1 was not found); use --device cpu");
  int (*init)(unsigned), (*count)(int *), devices = 0;
  *(void **)&init = dlsym(driver, "cuInit");
  *(void **)&count = dlsym(driver, "cuDeviceGetCount");
  if (!init || !count || init(0) || count(&devices) || !devices)
    return sw_fail("the NVIDIA driver finds no device; nvidia-smi may say more; use --device cpu");
  return 0; /* the driver stays open: the module uses it */
}

static const sw_module *load(const char *backend) {
  char path[4400], found[4400] = "";
  for (int place = 0; !*found && !module_path(backend, place, path, sizeof path); place++)
    if (!access(path, F_OK)) memcpy(found, path, sizeof found);
  if (!*found) {
    sw_fail("this installation has no module for the device '%s' (skillwatch_%s.so); build it where nvcc is, or use --device cpu", backend,
            backend);
    return NULL;
  }
  if (!strcmp(backend, "cuda") && driver_present()) return NULL;
  void *library = dlopen(found, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    sw_fail("the module could not be opened: %s", dlerror());
    return NULL;
  }
  const sw_module *module = dlsym(library, SW_MODULE_SYMBOL);
  if (!module || module->api != SW_MODULE_API) {
    sw_fail("%s: made for module interface %d, this program needs %d; install program and module of the same version", found,
            module ? module->api : 0, SW_MODULE_API);
    dlclose(library);
    return NULL;
  }
  return module;
}

const sw_module *sw_module_open(const char *backend) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static struct {
    char backend[32];
    const sw_module *module;
  } opened[4];
  const sw_module *module = NULL;
  pthread_mutex_lock(&lock);
  size_t i = 0, places = sizeof opened / sizeof *opened;
  while (i < places && *opened[i].backend && strcmp(opened[i].backend, backend)) i++;
  if (i < places && *opened[i].backend) {
    module = opened[i].module;
  } else if ((module = load(backend)) && i < places) {
    snprintf(opened[i].backend, sizeof opened[i].backend, "%s", backend);
    opened[i].module = module;
  }
  pthread_mutex_unlock(&lock);
  return module;
}
