/* The server behind every proxy: a cheap POP3 stub, and the auth_http responder that nginx asks.
 *
 * It prints "POP3-PORT AUTH-PORT" once it listens, both on 127.0.0.1, and ends when its standard
 * input does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pop3.h"

enum kind { PARENT, POP3_LISTENER, AUTH_LISTENER, POP3, AUTH };

/* One descriptor in the epoll set; all but the first two fields are for connections. */
struct entry {
    enum kind kind;
    int fd;
    bool opaque, blocked, closing;
    size_t have;
    struct blob due; /* what is still to be sent; nothing is read while it is not empty */
    char input[1024];
};

struct command {
    const char *line;
    struct blob reply;
    bool opaque, closing;
};

#define TEXT(literal) {literal, sizeof literal - 1}

/* A line that starts as one of these gets its reply. The empty one, last, stands for all others. */
static struct command commands[] = {
    {.line = "NOOP\r\n", .reply = TEXT(OK)},
    {.line = "USER ", .reply = TEXT(OK)},
    {.line = "PASS ", .reply = TEXT(OK)},
    {.line = "STAT\r\n", .reply = TEXT(STAT_REPLY)},
    {.line = "RETR 1\r\n"},
    {.line = "RETR 2\r\n"},
    {.line = "STLS\r\n", .reply = TEXT(OK), .opaque = true},
    {.line = "QUIT\r\n", .reply = TEXT(QUIT_REPLY), .closing = true},
    {.line = "", .reply = TEXT("-ERR not in this benchmark\r\n")},
};
enum { RETR_BASE64 = 4, RETR_PROSE = 5 };

static struct blob opaque_message;
static char auth_answer[128];
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct entry *entry, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = entry};
    if (epoll_ctl(epoll_fd, operation, entry->fd, &event) < 0)
        die("epoll_ctl");
}

static int listen_anywhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* Accepted sockets inherit TCP_NODELAY. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0)
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return fd;
}

static void forget(struct entry *entry)
{
    close(entry->fd);
    free(entry);
}

/* Sends what is due as far as the socket takes it; false when the connection is gone. */
static bool flush(struct entry *entry)
{
    while (entry->due.size > 0) {
        ssize_t sent = send(entry->fd, entry->due.data, entry->due.size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            forget(entry);
            return false;
        }
        if (sent < 0)
            break;
        entry->due.data += sent;
        entry->due.size -= (size_t)sent;
    }
    if (entry->due.size == 0 && entry->closing) {
        forget(entry);
        return false;
    }
    bool blocked = entry->due.size > 0;
    if (blocked != entry->blocked) {
        watch(entry, EPOLL_CTL_MOD, blocked ? EPOLLOUT : EPOLLIN);
        entry->blocked = blocked;
    }
    return true;
}

static void drop_input(struct entry *entry, size_t size)
{
    entry->have -= size;
    memmove(entry->input, entry->input + size, entry->have);
}

/* Takes one command off the input and makes its reply due; false when no command is whole. */
static bool take_command(struct entry *entry)
{
    if (entry->opaque) {
        if (entry->have < OPAQUE_REQUEST_OCTETS)
            return false;
        entry->due = opaque_message;
        drop_input(entry, OPAQUE_REQUEST_OCTETS);
        return true;
    }
    char *end = memchr(entry->input, '\n', entry->have);
    if (end == NULL)
        return false;
    const struct command *command = commands;
    while (strncmp(entry->input, command->line, strlen(command->line)) != 0)
        command++;
    entry->due = command->reply;
    entry->opaque = command->opaque;
    entry->closing = command->closing;
    drop_input(entry, (size_t)(end + 1 - entry->input));
    return true;
}

static bool take_auth_request(struct entry *entry)
{
    if (memmem(entry->input, entry->have, "\r\n\r\n", 4) == NULL)
        return false;
    entry->due = (struct blob){auth_answer, strlen(auth_answer)};
    entry->closing = true;
    entry->have = 0;
    return true;
}

static void answer(struct entry *entry)
{
    while (entry->due.size == 0 && (entry->kind == AUTH ? take_auth_request(entry) : take_command(entry)))
        if (!flush(entry))
            return;
}

static void readable(struct entry *entry)
{
    ssize_t got = recv(entry->fd, entry->input + entry->have, sizeof entry->input - entry->have, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    /* A full buffer without a command in it also ends here. */
    if (got <= 0) {
        forget(entry);
        return;
    }
    entry->have += (size_t)got;
    answer(entry);
}

static void accept_all(struct entry *listener)
{
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct entry *entry = calloc(1, sizeof *entry);
        if (entry == NULL)
            die("calloc");
        entry->kind = listener->kind == AUTH_LISTENER ? AUTH : POP3;
        entry->fd = fd;
        watch(entry, EPOLL_CTL_ADD, EPOLLIN);
        if (entry->kind == POP3)
            entry->due = (struct blob)TEXT(GREETING);
        flush(entry);
    }
}

static void serve(struct entry *entry, uint32_t events)
{
    switch (entry->kind) {
    case PARENT:
        exit(0);
    case POP3_LISTENER:
    case AUTH_LISTENER:
        accept_all(entry);
        break;
    case POP3:
    case AUTH:
        if (!(events & EPOLLOUT))
            readable(entry);
        else if (flush(entry))
            answer(entry);
        break;
    }
}

int main(void)
{
    struct entry parent = {.kind = PARENT, .fd = STDIN_FILENO};
    struct entry pop3 = {.kind = POP3_LISTENER}, auth = {.kind = AUTH_LISTENER};
    struct epoll_event events[64];
    int pop3_port, auth_port;

    commands[RETR_BASE64].reply = base64_answer();
    commands[RETR_PROSE].reply = prose_answer();
    opaque_message = opaque_answer();

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    pop3.fd = listen_anywhere(&pop3_port);
    auth.fd = listen_anywhere(&auth_port);
    snprintf(auth_answer, sizeof auth_answer,
             "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: %d\r\n\r\n",
             pop3_port);
    watch(&parent, EPOLL_CTL_ADD, EPOLLIN);
    watch(&pop3, EPOLL_CTL_ADD, EPOLLIN);
    watch(&auth, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d %d\n", pop3_port, auth_port);
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(epoll_fd, events, 64, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++)
            serve(events[i].data.ptr, events[i].events);
    }
}
