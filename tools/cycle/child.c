#include "tools/cycle/child.h"
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_SECONDS = 120 }; /* between SIGTERM, after which a program saves, and SIGKILL */

static const int stopping[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
enum { STOPPING = sizeof stopping / sizeof *stopping };
static sigset_t kept, before;
static int stopped;

int cycle_keep_signals(void) {
  struct sigaction present;
  sigemptyset(&kept);
  for (int i = 0; i < STOPPING; i++)
    if (sigaction(stopping[i], NULL, &present) || present.sa_handler != SIG_IGN) sigaddset(&kept, stopping[i]); /* nohup's stays */
  sigaddset(&kept, SIGCHLD);
  signal(SIGCHLD, SIG_DFL); /* ignored, as it may be inherited, it would lose the children's statuses */
  return sigprocmask(SIG_BLOCK, &kept, &before) ? sw_fail("signals cannot be kept: %s", strerror(errno)) : 0;
}

int cycle_stopped(void) {
  sigset_t pending;
  if (!sigpending(&pending))
    for (int i = 0; i < STOPPING; i++) stopped |= sigismember(&pending, stopping[i]) == 1;
  return stopped;
}

/* "skillwatch" beside this program and the arguments, ended by NULL; texts are borrowed but for the first. */
static char **command_line(const json_t *arguments) {
  char folder[PATH_MAX];
  const size_t count = json_array_size(arguments);
  char **argv = sw_alloc_array(count + 2, sizeof *argv);
  sw_own_folder(folder);
  if (!argv || !(argv[0] = sw_path_join(folder, "skillwatch"))) {
    free(argv);
    return NULL;
  }
  for (size_t i = 0; i < count; i++) argv[i + 1] = (char *)json_string_value(json_array_get(arguments, i));
  return argv;
}

static void close_command_line(char **argv) {
  if (argv) free(argv[0]);
  free(argv);
}

/* In the child: never returns. */
static void become(char **argv, int in, int out, int err, int lock, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1); /* it died before the line above */
  for (int i = 0; i < STOPPING; i++) {
    struct sigaction present;
    if (!sigaction(stopping[i], NULL, &present) && present.sa_handler != SIG_IGN) signal(stopping[i], SIG_DFL);
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (lock >= 0) fcntl(lock, F_SETFD, 0);
  if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0) execv(argv[0], argv);
  dprintf(err, "skillwatch: cannot run %s: %s\n", argv[0], strerror(errno));
  _exit(1);
}

static pid_t start(char **argv, int out, int err, int lock) {
  const pid_t us = getpid();
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = in < 0 ? -1 : fork();
  if (child == 0) become(argv, in, out, err, lock, us);
  if (child < 0) sw_fail("cannot start %s: %s", argv[0], strerror(errno));
  if (in >= 0) close(in);
  return child;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Until the child has ended; signals to us and the end of its time are passed on. */
static void wait_for(pid_t child, double seconds, child_result *out) {
  double deadline = seconds > 0 ? now() + seconds : 0;
  int status, asked = 0;
  *out = (child_result){0};
  while (waitpid(child, &status, WNOHANG) == 0) {
    siginfo_t got;
    const double left = deadline > 0 ? deadline - now() : 3600;
    const struct timespec span = {left > 0 ? (time_t)left : 0, left > 0 ? (long)((left - (double)(time_t)left) * 1e9) : 0};
    const int signal = sigtimedwait(&kept, &got, &span);
    if (signal > 0 && signal != SIGCHLD) {
      stopped = 1;
      out->end = CHILD_STOPPED;
    } else if (signal < 0 && deadline > 0 && now() >= deadline) {
      if (asked) kill(child, SIGKILL);
      if (!asked) out->end = CHILD_TOO_LONG;
    } else {
      continue;
    }
    if (!asked) {
      kill(child, SIGTERM);
      deadline = now() + GRACE_SECONDS;
      asked = 1;
    }
  }
  if (WIFEXITED(status)) {
    out->status = WEXITSTATUS(status);
    if (out->status == 0) out->end = CHILD_ENDED; /* it was done all the same */
  } else {
    out->status = WTERMSIG(status);
    if (!asked) out->end = CHILD_DIED;
  }
}

static int open_log(const char *path, int flags) {
  const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
  if (file < 0) sw_fail("cannot write %s: %s", path, strerror(errno));
  return file;
}

int cycle_run(const json_t *arguments, const child_options *o, child_result *result) {
  char **argv = command_line(arguments);
  const int log = argv ? open_log(o->log, O_APPEND) : -1;
  const int out = log < 0 || !o->out ? log : open_log(o->out, o->append ? O_APPEND : O_TRUNC);
  const pid_t child = out < 0 ? -1 : start(argv, out, log, o->lock);
  if (child > 0) wait_for(child, o->seconds, result);
  if (out >= 0 && out != log) {
    fsync(out); /* what it printed may be the bill */
    close(out);
  }
  if (log >= 0) close(log);
  close_command_line(argv);
  return child > 0 ? 0 : -1;
}

int cycle_ask(const json_t *arguments, sw_buffer *text) {
  enum { MOST = 1 << 20 };
  int ends[2], status = -1;
  char **argv = command_line(arguments);
  if (!argv || pipe2(ends, O_CLOEXEC)) {
    close_command_line(argv);
    return sw_fail("cannot start a program: %s", strerror(errno));
  }
  const pid_t child = start(argv, ends[1], ends[1], -1);
  close(ends[1]);
  while (child > 0 && text->size < MOST && !sw_buffer_reserve(text, 4097)) {
    const ssize_t got = read(ends[0], text->data + text->size, 4096);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text->size += (size_t)got;
    text->data[text->size] = 0;
  }
  close(ends[0]);
  if (child > 0) waitpid(child, &status, 0);
  if (child > 0 && status) {
    if (text->data) text->data[strcspn(text->data, "\n")] = 0;
    sw_fail("%s %s does not work: %s", argv[0], argv[1], text->data ? text->data : "it said nothing");
  }
  close_command_line(argv);
  return child > 0 && !status ? 0 : -1;
}
