/* Several processes of one job, started by mpirun (or srun --mpi=pmix): who this one is, from what the launcher says in the environment;
 * and where the programs lie. */
#ifndef SW_BASE_LAUNCH_H
#define SW_BASE_LAUNCH_H
#include <limits.h>

typedef struct {
  int rank, size;             /* of the job; 0 and 1 without a launcher */
  int local_rank, local_size; /* among the job's processes on this machine */
} sw_launch;

const sw_launch *sw_launched(void);
/* Threads for one process of the job on this machine: its share of the cores that the process may use. */
int sw_launch_threads(void);
/* The folder of this executable, with a '/' at its end; "" where the system does not say. */
void sw_own_folder(char folder[PATH_MAX]);
#endif
