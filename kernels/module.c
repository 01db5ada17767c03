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

/* The first place that holds the module; 0, or -1 where there is none. */
static int find(const char *backend, char *path, size_t size) {
  for (int place = 0; !module_path(backend, place, path, size); place++)
    if (!access(path, F_OK)) return 0;
  return -1;
}

int sw_module_installed(const char *backend) {
  char path[4400];
  return !find(backend, path, sizeof path);
}

/* CUDA's module needs the driver: without one its libraries would fail in less clear words. */
static int driver_present(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return sw_fail("no NVIDIA driver here (libcuda.so.1 was not found)");
  int (*init)(unsigned), (*count)(int *), devices = 0;
  *(void **)&init = dlsym(driver, "cuInit");
  *(void **)&count = dlsym(driver, "cuDeviceGetCount");
  if (!init || !count || init(0) || count(&devices) || !devices)
    return sw_fail("the NVIDIA driver finds no device; nvidia-smi may say more");
  return 0; /* the driver stays open: the module uses it */
}

static const sw_module *load(const char *backend) {
  char path[4400];
  if (find(backend, path, sizeof path)) {
    sw_fail("this installation has no module for it; build with a CUDA toolkit (tools/setup --cuda brings one)");
    return NULL;
  }
  if (!strcmp(backend, "cuda") && driver_present()) return NULL;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    sw_fail("its module cannot be loaded: %s", dlerror());
    return NULL;
  }
  const sw_module *module = dlsym(library, SW_MODULE_SYMBOL);
  if (module && module->api == SW_MODULE_API) return module;
  if (module)
    sw_fail("%s has module interface %d, this program needs %d; install both from the same version", path, module->api, SW_MODULE_API);
  else
    sw_fail("%s is no module of this program", path);
  dlclose(library);
  return NULL;
}

const void *sw_module_symbol(const char *name, const char *symbol) {
  char path[4400];
  if (find(name, path, sizeof path)) {
    sw_fail("this installation has no module for %s (skillwatch_%s.so); build where CMake finds it", name, name);
    return NULL;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const void *found = library ? dlsym(library, symbol) : NULL;
  if (!found) sw_fail("%s cannot be loaded: %s", path, dlerror());
  return found;
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
