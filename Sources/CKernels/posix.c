#define _GNU_SOURCE
#include "CKernels.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

void guira_name_this_thread(const char *name) {
  char truncated[16] = {0};  // the kernel keeps 15 characters
  strncpy(truncated, name, sizeof truncated - 1);
  pthread_setname_np(pthread_self(), truncated);
}

void guira_yield_to_others(void) {
  // On Linux this is the thread's own niceness. It may always be raised, so nothing can fail.
  (void)setpriority(PRIO_PROCESS, 0, 5);
}

void guira_start_writeback(int descriptor) {
  // Advice: what fails here fails again, and is told, at the next fsync.
  (void)sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int guira_event_descriptor(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int guira_signal_on_parent_death(int signal) { return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0); }

static int forwarded_signals = -1;

static void forward_signal(int signal) {
  int saved = errno;
  unsigned char byte = (unsigned char)signal;
  ssize_t wrote = write(forwarded_signals, &byte, 1);  // a full pipe holds enough signals
  (void)wrote;
  errno = saved;
}

int guira_forward_signals(const int *signals, int count) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  if (fcntl(ends[1], F_SETFL, O_NONBLOCK) != 0) return -1;
  forwarded_signals = ends[1];
  struct sigaction action = {.sa_handler = forward_signal, .sa_flags = SA_RESTART};
  sigfillset(&action.sa_mask);
  for (int i = 0; i < count; i++) {
    if (sigaction(signals[i], &action, NULL) != 0) return -1;
  }
  // Whoever started this process may have had them blocked, and a blocked mask is inherited.
  sigset_t wanted;
  sigemptyset(&wanted);
  for (int i = 0; i < count; i++) sigaddset(&wanted, signals[i]);
  if (pthread_sigmask(SIG_UNBLOCK, &wanted, NULL) != 0) return -1;
  return ends[0];
}

void guira_keep_freed_memory(void) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  mallopt(M_TOP_PAD, 1 << 20);
}
