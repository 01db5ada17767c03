/* One run at a time: a file that a living process holds. The lock is the kernel's (an open-file-description lock), so that it ends with its
 * process however that ends; on NFS it is the server's, and ends when the server notices that a client is gone. The file only says who. */
#ifndef SW_BASE_LOCK_H
#define SW_BASE_LOCK_H

typedef struct {
  int file;
  char *path; /* owned; NULL: not held */
} sw_lock;

/* Makes and locks `path`. 0: it is ours; 1: another process has it (the message names its pid and host); -1: it cannot be made. A file system
 * without locks is no reason to stop: a line on standard error says that nobody is kept out. `lock` must be zeroed. */
int sw_lock_take(const char *path, sw_lock *lock);
/* The same where it is no output that is locked: `what` the other does, and what can be done about it. */
int sw_lock_take_as(const char *path, const char *what, const char *advice, sw_lock *lock);
/* Removes the file and gives the lock back; does nothing on a zeroed struct. */
void sw_lock_release(sw_lock *lock);
#endif
