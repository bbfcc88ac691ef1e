/* A light load generator: one thread, epoll, a closed loop on each of some connections.
 *
 * Each connection sends its next request when the last one is answered. The warm-up begins when each was answered once.
 * One JSON line on standard output says how many answers came after the warm-up, how long they took (a histogram with
 * steps of 1.6 %), which errors there were, and how much CPU this generator used itself: near one core it, not the
 * server, is what was measured.
 *
 *   cc -O2 -o load load.c && ./load --mode resp-set --port 6379 --connections 64 --seconds 5
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STEPS 64 /* of the histogram, for each power of two */
#define ERROR_KINDS 16
#define ACCEPT_NS 10000000000LL /* so long at most it waits until every connection was answered once */
#define KEY_BYTES 16

struct connection {
    int fd;
    int unanswered;     /* replies that are still to come, of the request under way */
    int seen;           /* whether it was ever answered */
    int failed;         /* whether a reply of the write under way was an error */
    int64_t sent_ns;
    char *out, *in;
    size_t out_length, out_done, in_length, in_size;
};

struct mode {
    const char *name;
    size_t (*build)(char *to, uint64_t key);
    const char *(*reply)(struct connection *c, const char *from, const char *end);
    int replies; /* to one write */
};

static struct {
    const char *mode, *host;
    int port, connections, pipeline, value_bytes, replicas, fill;
    double seconds, warm_up;
    uint64_t keys;
} want = {"resp-set", "127.0.0.1", 6379, 1, 1, 100, 3, 0, 5.0, 0.5, 10000};

static uint64_t histogram[64 * STEPS], answered, sum_ns, max_ns, state_of_random = 88172645463325252ULL, sent, finished;
static struct { char kind[32]; uint64_t count; } errors[ERROR_KINDS];
static char *value, *encoded;
static int measuring, heard_from;

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void count_error(const char *kind, size_t length) {
    if (length >= sizeof errors[0].kind)
        length = sizeof errors[0].kind - 1;
    for (int i = 0; i < ERROR_KINDS; i++)
        if (!errors[i].count || (strlen(errors[i].kind) == length && !memcmp(errors[i].kind, kind, length))) {
            for (size_t j = 0; j < length; j++) /* nothing that JSON would have to escape */
                errors[i].kind[j] = kind[j] < ' ' || kind[j] == '"' || kind[j] == '\\' ? '?' : kind[j];
            errors[i].count++;
            return;
        }
}

static uint64_t choose_key(void) {
    if (want.fill)
        return sent % want.keys;
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return state_of_random % want.keys;
}

#include "protocols.h"

/* --- connections --- */

static void flush_out(struct connection *c) {
    while (c->out_done < c->out_length) {
        ssize_t written = send(c->fd, c->out + c->out_done, c->out_length - c->out_done, MSG_NOSIGNAL);
        if (written < 0 && errno != EAGAIN && errno != EINTR)
            die("a connection broke while sending");
        if (written < 0)
            return; /* the edge that says it can be written again brings us back */
        c->out_done += written;
    }
}

static void next_request(struct connection *c) {
    c->out_length = c->out_done = 0;
    for (int i = 0; i < want.pipeline; i++) {
        c->out_length += mode->build(c->out + c->out_length, choose_key());
        sent++;
    }
    c->unanswered = mode->replies * want.pipeline;
    c->sent_ns = now_ns();
    flush_out(c);
}

static void record(int64_t taken_ns) {
    uint64_t v = taken_ns > 0 ? taken_ns : 0;
    int shift = v < STEPS ? -1 : 63 - __builtin_clzll(v) - 6;
    histogram[shift < 0 ? v : (shift + 1) * STEPS + (v >> shift) - STEPS]++; /* 64 equal steps in a power of two */
    answered++;
    sum_ns += v;
    if (v > max_ns)
        max_ns = v;
}

static double quantile_us(double p) {
    uint64_t rank = (uint64_t)(p * answered), seen = 0;
    for (int i = 0; i < 64 * STEPS; i++) {
        seen += histogram[i];
        if (seen > rank) {
            int shift = i / STEPS - 1;
            return (shift < 0 ? i : ((uint64_t)(i % STEPS + STEPS) << shift) + (1ULL << shift) / 2.0) / 1000.0;
        }
    }
    return max_ns / 1000.0;
}

static void take_replies(struct connection *c) {
    const char *at = c->in, *end = c->in + c->in_length, *next;
    int64_t now = now_ns();
    while (c->unanswered && at < end && (next = mode->reply(c, at, end))) {
        at = next;
        if (--c->unanswered % mode->replies == 0) {
            if (measuring && !c->failed)
                record(now - c->sent_ns);
            c->failed = 0;
            finished++;
        }
    }
    if (!c->unanswered && !c->seen) {
        c->seen = 1;
        heard_from++;
    }
    c->in_length = end - at;
    memmove(c->in, at, c->in_length);
    if (!c->unanswered && !(want.fill && sent >= want.keys))
        next_request(c);
}

static void receive(struct connection *c) {
    for (;;) {
        if (c->in_length == c->in_size)
            die("an answer is longer than the buffer");
        ssize_t got = recv(c->fd, c->in + c->in_length, c->in_size - c->in_length, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            die("the server closed a connection");
        if (got < 0)
            return;
        size_t room = c->in_size - c->in_length;
        c->in_length += got;
        take_replies(c);
        if ((size_t)got < room)
            return; /* that was all: more brings a new edge, and a read that finds nothing is spared */
    }
}

static struct connection *open_connections(int poll_fd) {
    struct connection *all = calloc(want.connections, sizeof *all);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(want.port)};
    if (inet_pton(AF_INET, want.host, &address.sin_addr) != 1)
        die("--host must be an IPv4 address");
    for (int i = 0; i < want.connections; i++) {
        struct connection *c = &all[i];
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
            die("cannot connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->out = malloc((size_t)want.pipeline * (want.value_bytes * 2 + 1024));
        c->in_size = (size_t)want.pipeline * (want.value_bytes * 2 + 8192);
        c->in = malloc(c->in_size + 1);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event))
            die("epoll_ctl");
    }
    return all;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void report(double seconds, double accepted, double cpu) {
    printf("{\"mode\": \"%s\", \"connections\": %d, \"pipeline\": %d, \"value_bytes\": %d, \"keys\": %llu, ", want.mode,
           want.connections, want.pipeline, want.value_bytes, (unsigned long long)want.keys);
    printf("\"all\": %llu, \"accepted_s\": %.3f, ", (unsigned long long)finished, accepted < 0 ? -1 : accepted);
    printf("\"count\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, ", (unsigned long long)answered, seconds,
           answered / seconds);
    printf("\"mean_us\": %.2f, \"p50_us\": %.2f, \"p95_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, ",
           answered ? sum_ns / 1e3 / answered : 0.0, quantile_us(0.5), quantile_us(0.95), quantile_us(0.99),
           max_ns / 1000.0);
    printf("\"generator_cpu_s\": %.3f, \"errors\": {", cpu);
    for (int i = 0; i < ERROR_KINDS && errors[i].count; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", errors[i].kind, (unsigned long long)errors[i].count);
    printf("}}\n");
}

static void parse(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *text = argv[i + 1];
        if (!strcmp(name, "--mode")) want.mode = text;
        else if (!strcmp(name, "--host")) want.host = text;
        else if (!strcmp(name, "--port")) want.port = atoi(text);
        else if (!strcmp(name, "--connections")) want.connections = atoi(text);
        else if (!strcmp(name, "--pipeline")) want.pipeline = atoi(text);
        else if (!strcmp(name, "--value-bytes")) want.value_bytes = atoi(text);
        else if (!strcmp(name, "--replicas")) want.replicas = atoi(text);
        else if (!strcmp(name, "--fill")) want.fill = atoi(text);
        else if (!strcmp(name, "--seconds")) want.seconds = atof(text);
        else if (!strcmp(name, "--warm-up")) want.warm_up = atof(text);
        else if (!strcmp(name, "--keys")) want.keys = strtoull(text, NULL, 10);
        else { fprintf(stderr, "load: unknown option %s\n", name); exit(2); }
    }
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(want.mode, modes[i].name))
            mode = &modes[i];
    if (argc % 2 == 0 || !mode || want.connections < 1 || want.pipeline < 1 || want.value_bytes < 0 || !want.keys) {
        fprintf(stderr, "load: a mode that is not known, or a number that is not possible\n");
        exit(2);
    }
}

static void run(int poll_fd, struct connection *all) {
    struct epoll_event events[256];
    int64_t opened = now_ns(), now, all_heard = 0, begin = opened + ACCEPT_NS + (int64_t)(want.warm_up * 1e9);
    int64_t end = (want.fill ? opened : begin) + (int64_t)(want.seconds * 1e9);
    double cpu_before = cpu_seconds();
    measuring = want.fill;
    for (int i = 0; i < want.connections && !(want.fill && sent >= want.keys); i++)
        next_request(&all[i]);
    while ((now = now_ns()) < end && !(want.fill && finished >= sent)) {
        if (!all_heard && heard_from == want.connections) { /* a server may take long to accept them all */
            all_heard = now;
            begin = now + (int64_t)(want.warm_up * 1e9);
        }
        if (!measuring && now >= begin) {
            measuring = 1;
            begin = now;
            end = now + (int64_t)(want.seconds * 1e9);
            cpu_before = cpu_seconds();
        }
        int count = epoll_wait(poll_fd, events, 256, 20);
        for (int i = 0; i < count; i++) {
            flush_out(events[i].data.ptr);
            if (events[i].events & ~EPOLLOUT)
                receive(events[i].data.ptr);
        }
    }
    if (want.fill && finished < want.keys)
        count_error("not finished in time", 20);
    report((now - (want.fill ? opened : begin)) / 1e9, (all_heard - opened) / 1e9, cpu_seconds() - cpu_before);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    value = malloc(want.value_bytes + 1);
    encoded = malloc(want.value_bytes * 2 + 8);
    for (int i = 0; i < want.value_bytes; i++)
        value[i] = 'a' + (i * 7 + i / 26) % 26;
    int poll_fd = epoll_create1(0);
    run(poll_fd, open_connections(poll_fd));
    return 0;
}
