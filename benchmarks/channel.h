/* How the loader's sessions reach the proxy: plain.c or tls.c, whichever it is linked with. */

#ifndef BENCHMARKS_CHANNEL_H
#define BENCHMARKS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What one session keeps, from one connection to the next. */
struct channel;

enum { NOTHING_YET = -1, BROKEN = -2 };

/* Takes the loader's arguments behind the first five; false if they are not understood. */
bool channels_set_up(int count, char **arguments);
/* From now on all is done as the scenario has it; before, the proxy is only warmed up. */
void channels_count(void);

struct channel *channel_new(void);
/* Begins with a socket that is being connected; returns the epoll events that it waits for first. */
uint32_t channel_open(struct channel *channel, int fd);
/* Goes on with what comes before the first octet: 0 once that is done, NOTHING_YET or BROKEN. */
int channel_begin(struct channel *channel, int fd);
/* Returns the octets received, 0 at an orderly end, NOTHING_YET or BROKEN. */
ssize_t channel_recv(struct channel *channel, int fd, void *data, size_t size);
/* Whether all was sent. */
bool channel_send(struct channel *channel, int fd, const void *data, size_t size);
/* How often to recv, with 16 KiB of room or more, each time that the socket can be read. */
extern const int channel_recvs;
/* Called when the peer ended in order: whether the connection was as the scenario has it. */
bool channel_end(struct channel *channel);
/* Forgets the connection, in whatever state. */
void channel_drop(struct channel *channel);
/* What went wrong last. */
const char *channel_problem(void);

#endif
