#include "base/launch.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A number of the environment, or -1. */
static int number(const char *name) {
  const char *text = getenv(name);
  char *end = NULL;
  const long value = text ? strtol(text, &end, 10) : -1;
  return end && end != text && !*end && value >= 0 && value < 1 << 20 ? (int)value : -1;
}

/* Slurm's variables count only beside PMIx's: a batch script has them, too, and is one process. */
static sw_launch find(void) {
  sw_launch l = {number("OMPI_COMM_WORLD_RANK"), number("OMPI_COMM_WORLD_SIZE"), number("OMPI_COMM_WORLD_LOCAL_RANK"), number("OMPI_COMM_WORLD_LOCAL_SIZE")};
  if (l.size < 1 && number("PMIX_RANK") >= 0)
    l = (sw_launch){number("PMIX_RANK"), number("SLURM_STEP_NUM_TASKS"), number("SLURM_LOCALID"), number("SLURM_NTASKS_PER_NODE")};
  if (l.size < 1 || l.rank < 0 || l.rank >= l.size) l = (sw_launch){0, 1, 0, 1};
  if (l.local_size < 1 || l.local_size > l.size) l.local_size = 1;
  if (l.local_rank < 0) l.local_rank = 0;
  return l;
}

const sw_launch *sw_launched(void) {
  static sw_launch launch;
  if (!launch.size) launch = find(); /* the same whoever comes first */
  return &launch;
}

int sw_launch_threads(void) {
  cpu_set_t set;
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, ranks = sw_launched()->local_size;
  /* a launcher that has bound each process to cores of its own leaves it fewer than all */
  const long all = sysconf(_SC_NPROCESSORS_ONLN);
  const int bound = getenv("OMPI_MCA_orte_bound_at_launch") != NULL;
  const int share = (bound && all > 0 ? (int)all : cores) / ranks;
  return share < 1 ? 1 : share < cores ? share : cores;
}

void sw_own_folder(char folder[PATH_MAX]) {
  const ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
  folder[length > 0 ? length : 0] = 0;
  char *slash = strrchr(folder, '/');
  folder[slash ? slash + 1 - folder : 0] = 0;
}
