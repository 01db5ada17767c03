/* Errors: a function that can fail returns 0 or -1 and leaves one message in a thread-local buffer.
 * The message says what went wrong, where, and how to fix it; the program prints it once and exits. */
#ifndef SW_BASE_ERROR_H
#define SW_BASE_ERROR_H

/* Sets the calling thread's message; always returns -1, so that `return sw_fail(...)` reads well. */
int sw_fail(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
/* Puts "context: " before the present message; always returns -1. */
int sw_fail_in(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
/* sw_fail where memory ran out: the message begins with that. sw_error_is_memory: 1 where it was the last failure of the calling thread,
 * so that data is not blamed for it. */
int sw_fail_memory(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
int sw_error_is_memory(void);
/* The calling thread's last message; "" when there was none. Valid until the thread's next failure. */
const char *sw_error(void);

/* The end of a noun behind a number: "1 row", "2 rows". */
#define SW_S(count) ((count) == 1 ? "" : "s")

/* Memory that is checked: NULL on failure with the message set to the number of bytes wanted.
 * sw_alloc and sw_alloc_array give zeroed memory; an overflow of count * size is a failure too. */
void *sw_alloc(unsigned long bytes);
void *sw_alloc_array(unsigned long count, unsigned long size);
void *sw_realloc_array(void *old, unsigned long count, unsigned long size);
char *sw_strdup(const char *text);
char *sw_strndup(const char *text, unsigned long bytes);
/* 64-byte aligned, not zeroed; release with free(). */
void *sw_alloc_aligned(unsigned long bytes);
#endif
