/* The client of every proxy: a closed loop of scripted sessions that checks each octet it is sent.
 *
 *     load MODE PORT SESSIONS WARM COUNT [what tls.c wants]
 *
 * It warms the proxy up, prints "ready", waits for a line, does COUNT units of the mode's work,
 * prints what it did, waits again, ends what is open and exits: with status 0 if no session failed.
 * What it prints is "UNITS FAILED OCTETS P50", the last being the median time of a unit in ns. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "pop3.h"

enum {
    AT_ONCE = 32,           /* connections in the making: Twisted listens with a backlog of 50 */
    STALL_MS = 10000,       /* without a single octet for so long, the proxy is taken for dead */
    FAILURES_TOLD = 3,      /* the rest is only counted */
    FAILURES_BORNE = 100,   /* then no further session is begun */
    CHUNK = 256 * 1024,
};

enum expect {
    ANY_OK, /* one line that starts with +OK: some proxies greet and answer USER themselves */
    EXACT,  /* these octets and no others */
    END,    /* the connection's orderly end */
};

struct step {
    struct blob request; /* empty: the server speaks first */
    enum expect expect;
    struct blob reply;
};

/* One unit of work for a session. */
struct script {
    bool connects;
    int count;
    const struct step *steps;
};

struct session {
    int number;
    int fd; /* -1: none */
    struct channel *channel;
    unsigned connections; /* so far */
    bool busy;
    bool drained; /* whether the last recv found nothing */
    bool writing; /* whether epoll is to tell of room to write, and of nothing else */
    int step;
    size_t have; /* of the reply to this step */
    uint64_t since;
    char line[512];
};

#define TEXT(literal) {literal, sizeof literal - 1}
#define STEPS(array) (int)(sizeof(array) / sizeof *(array)), array

static const char user_line[] = "USER bench\r\n";
static const char pass_line[] = "PASS secret\r\n";

#define LOGIN \
    {.expect = ANY_OK}, \
    {.request = {user_line, sizeof user_line - 1}, .expect = ANY_OK}, \
    {.request = {pass_line, sizeof pass_line - 1}, .expect = ANY_OK}
#define QUIT \
    {.request = TEXT("QUIT\r\n"), .expect = EXACT, .reply = TEXT(QUIT_REPLY)}, \
    {.expect = END}

static const struct step whole_steps[] = {
    LOGIN, {.request = TEXT("STAT\r\n"), .expect = EXACT, .reply = TEXT(STAT_REPLY)}, QUIT};
static const struct step login_steps[] = {LOGIN};
static const struct step quit_steps[] = {QUIT};
static const struct step stls_steps[] = {
    {.expect = ANY_OK}, {.request = TEXT("STLS\r\n"), .expect = EXACT, .reply = TEXT(OK)}};
static struct step loop_step = {.expect = EXACT};

static const struct script whole = {true, STEPS(whole_steps)};
static const struct script login = {true, STEPS(login_steps)};
static const struct script stls = {true, STEPS(stls_steps)};
static const struct script loop = {false, 1, &loop_step};
static const struct script quit = {false, STEPS(quit_steps)};

static struct sockaddr_in proxy = {.sin_family = AF_INET};
static int epoll_fd;

/* The phase under way. */
static const struct script *script;
static long budget, active;
static long units, failed;
static uint64_t octets, *times;

static void begin_step(struct session *session);

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void hang_up(struct session *session)
{
    if (session->fd < 0)
        return;
    channel_drop(session->channel);
    close(session->fd);
    session->fd = -1;
}

static void dial(struct session *session)
{
    struct epoll_event event = {.data.ptr = session};
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (session->fd < 0)
        die("socket");
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    /* A refusal shows in the first recv. */
    if (connect(session->fd, (struct sockaddr *)&proxy, sizeof proxy) < 0 && errno != EINPROGRESS)
        die("connect");
    session->connections++;
    event.events = channel_open(session->channel, session->fd);
    session->writing = event.events == EPOLLOUT;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, session->fd, &event) < 0)
        die("epoll_ctl");
}

/* Gives the session its next unit, or lets it rest. */
static void begin_unit(struct session *session)
{
    session->busy = budget > 0 && (session->fd >= 0 || script->connects);
    if (!session->busy) {
        active--;
        return;
    }
    budget--;
    session->step = 0;
    session->since = now_ns();
    if (script->connects)
        dial(session);
    begin_step(session);
}

static void fail(struct session *session, const char *why)
{
    if (failed++ < FAILURES_TOLD)
        fprintf(stderr, "step %d, octet %zu: %s\n", session->step, session->have, why);
    if (failed >= FAILURES_BORNE)
        budget = 0;
    hang_up(session);
    if (session->busy)
        begin_unit(session);
}

static void begin_step(struct session *session)
{
    struct blob request = script->steps[session->step].request;
    char line[32];
    session->have = 0;
    if (request.size == 0)
        return;
    if (request.data == user_line || request.data == pass_line) {
        /* Each session's own: nobody logs in to one account 32 times at once. */
        const char *form = request.data == user_line ? "USER bench%d\r\n" : "PASS secret%d\r\n";
        request.size = (size_t)snprintf(line, sizeof line, form, session->number);
        request.data = line;
    }
    if (!channel_send(session->channel, session->fd, request.data, request.size))
        fail(session, channel_problem());
}

static void end_step(struct session *session)
{
    if (++session->step < script->count) {
        begin_step(session);
        return;
    }
    if (times != NULL)
        times[units] = now_ns() - session->since;
    units++;
    begin_unit(session);
}

static void take_line(struct session *session, const char *data, size_t size)
{
    if (session->have + size > sizeof session->line) {
        fail(session, "a status line is too long");
        return;
    }
    memcpy(session->line + session->have, data, size);
    session->have += size;
    const char *end = memchr(session->line, '\n', session->have);
    if (end == NULL)
        return;
    if (end + 1 != session->line + session->have)
        fail(session, "octets after the status line");
    else if (strncmp(session->line, "+OK", 3) != 0)
        fail(session, "no +OK");
    else
        end_step(session);
}

static void take_exactly(struct session *session, const char *data, size_t size)
{
    const struct blob *reply = &script->steps[session->step].reply;
    if (size > reply->size - session->have) {
        fail(session, "more octets than the reply has");
        return;
    }
    if (memcmp(reply->data + session->have, data, size) != 0) {
        fail(session, "the reply has other octets");
        return;
    }
    session->have += size;
    if (session->have == reply->size)
        end_step(session);
}

static void take_end(struct session *session, size_t size)
{
    if (size > 0) {
        fail(session, "octets where the end was due");
        return;
    }
    if (!channel_end(session->channel)) {
        fail(session, channel_problem());
        return;
    }
    hang_up(session);
    end_step(session);
}

static void take(struct session *session, const char *data, size_t size)
{
    enum expect expect = script->steps[session->step].expect;
    if (expect == END)
        take_end(session, size);
    else if (size == 0)
        fail(session, "the connection ended early");
    else if (expect == ANY_OK)
        take_line(session, data, size);
    else
        take_exactly(session, data, size);
}

static void read_once(struct session *session)
{
    static char chunk[CHUNK];
    ssize_t got = channel_recv(session->channel, session->fd, chunk, sizeof chunk);
    if (got == NOTHING_YET) {
        session->drained = true;
        return;
    }
    if (got < 0) {
        fail(session, channel_problem());
        return;
    }
    octets += (uint64_t)got;
    if (!session->busy)
        fail(session, got == 0 ? "ended while idle" : "octets while idle");
    else
        take(session, chunk, (size_t)got);
}

static void ready(struct session *session)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    if (session->writing && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, session->fd, &event) < 0)
        die("epoll_ctl");
    session->writing = false;
    switch (channel_begin(session->channel, session->fd)) {
    case NOTHING_YET:
        return;
    case BROKEN:
        fail(session, channel_problem());
        return;
    }
    unsigned connection = session->connections;
    session->drained = false;
    for (int i = 0; i < channel_recvs && !session->drained && session->fd >= 0 &&
                    session->connections == connection; i++)
        read_once(session);
}

/* Does `to_do` units of `work` with these sessions, each taking the next unit as it finishes one. */
static void run(const struct script *work, struct session *sessions, long how_many, long to_do)
{
    struct epoll_event events[64];
    script = work;
    budget = to_do;
    active = how_many;
    for (long i = 0; i < how_many; i++)
        begin_unit(&sessions[i]);
    while (active > 0) {
        int count = epoll_wait(epoll_fd, events, 64, STALL_MS);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        if (count == 0) {
            fprintf(stderr, "no octet for %d s\n", STALL_MS / 1000);
            exit(1);
        }
        for (int i = 0; i < count; i++)
            ready(events[i].data.ptr);
    }
}

/* One unit for each session, AT_ONCE at a time. */
static void run_each(const struct script *work, struct session *sessions, long how_many)
{
    for (long first = 0; first < how_many; first += AT_ONCE) {
        long part = how_many - first < AT_ONCE ? how_many - first : AT_ONCE;
        run(work, sessions + first, part, part);
    }
}

static int by_time(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t median_time(void)
{
    if (units == 0)
        return 0;
    qsort(times, (size_t)units, sizeof *times, by_time);
    return times[units / 2];
}

static void await_line(void)
{
    char line[16];
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(2);
}

static void await_start(long count)
{
    puts("ready");
    await_line();
    channels_count();
    units = 0;
    octets = 0;
    times = calloc((size_t)count, sizeof *times);
    if (times == NULL)
        die("calloc");
}

static void report_and_await_end(void)
{
    printf("%ld %ld %" PRIu64 " %" PRIu64 "\n", units, failed, octets, median_time());
    await_line();
    free(times);
    times = NULL;
}

static void run_sessions(struct session *sessions, long how_many, long warm, long count)
{
    run(&whole, sessions, how_many, warm);
    await_start(count);
    run(&whole, sessions, how_many, count);
    report_and_await_end();
}

static void run_idle(struct session *sessions, long warm, long count)
{
    /* Those of the warm-up stay: they use up the memory that the proxy's start left free. */
    run_each(&login, sessions, warm);
    await_start(count);
    run_each(&login, sessions + warm, count);
    report_and_await_end();
    run_each(&quit, sessions, warm + count);
}

static void run_loop(const struct script *open, struct session *sessions, long how_many, long warm,
                     long count)
{
    run_each(open, sessions, how_many);
    run(&loop, sessions, how_many, warm);
    await_start(count);
    run(&loop, sessions, how_many, count);
    report_and_await_end();
    if (open == &login)
        run_each(&quit, sessions, how_many);
}

int main(int argc, char **argv)
{
    if (argc < 6 || !channels_set_up(argc - 6, argv + 6)) {
        fputs("usage: load sessions|base64|prose|opaque|noop|idle PORT SESSIONS WARM COUNT"
              " [full|resumed CERTIFICATE]\n",
              stderr);
        return 2;
    }
    const char *mode = argv[1];
    long how_many = atol(argv[3]), warm = atol(argv[4]), count = atol(argv[5]);
    long room = how_many + warm + count; /* enough in every mode */
    struct session *sessions = calloc((size_t)room, sizeof *sessions);
    if (sessions == NULL)
        die("calloc");
    for (long i = 0; i < room; i++) {
        sessions[i].fd = -1;
        sessions[i].number = (int)i;
        sessions[i].channel = channel_new();
    }
    proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    proxy.sin_port = htons((uint16_t)atoi(argv[2]));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (strcmp(mode, "sessions") == 0) {
        run_sessions(sessions, how_many, warm, count);
    } else if (strcmp(mode, "idle") == 0) {
        run_idle(sessions, warm, count);
    } else if (strcmp(mode, "noop") == 0) {
        loop_step.request = (struct blob)TEXT("NOOP\r\n");
        loop_step.reply = (struct blob)TEXT(OK);
        run_loop(&login, sessions, how_many, warm, count);
    } else if (strcmp(mode, "base64") == 0) {
        loop_step.request = (struct blob)TEXT("RETR 1\r\n");
        loop_step.reply = base64_answer();
        run_loop(&login, sessions, how_many, warm, count);
    } else if (strcmp(mode, "prose") == 0) {
        loop_step.request = (struct blob)TEXT("RETR 2\r\n");
        loop_step.reply = prose_answer();
        run_loop(&login, sessions, how_many, warm, count);
    } else if (strcmp(mode, "opaque") == 0) {
        loop_step.request = (struct blob){OPAQUE_REQUEST, OPAQUE_REQUEST_OCTETS};
        loop_step.reply = opaque_answer();
        run_loop(&stls, sessions, how_many, warm, count);
    } else {
        fprintf(stderr, "no such mode: %s\n", mode);
        return 2;
    }
    for (long i = 0; i < room; i++)
        hang_up(&sessions[i]);
    return failed > 0;
}
