#pragma once

// glibc hides pthread_setname_np behind _GNU_SOURCE, which Swift's Glibc module does not set.
void guira_name_this_thread(const char *name);

// Lets other threads of the system go first when they wake: niceness 5, about a third of an ordinary thread's weight.
void guira_yield_to_others(void);

// sync_file_range over the whole file, without waiting; glibc hides it behind _GNU_SOURCE.
void guira_start_writeback(int descriptor);

// eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC): Swift's Glibc module has no sys/eventfd.h. -1 and errno on failure.
int guira_event_descriptor(void);

// prctl(PR_SET_PDEATHSIG): the kernel sends `signal` to this process when the thread that started it ends. prctl has
// variable arguments, which Swift cannot call. -1 and errno on failure.
int guira_signal_on_parent_death(int signal);

// From now on each of these signals is a byte, its number, to be read from the descriptor returned; whatever thread the
// kernel picks. Once per process. -1 and errno on failure.
int guira_forward_signals(const int *signals, int count);

// Makes malloc keep what is freed instead of giving it back to the kernel: messages of a megabyte come and go thousands
// of times a second, and every new page costs a fault.
void guira_keep_freed_memory(void);
