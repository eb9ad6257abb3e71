/* What the two ends of a benchmark agree on: every reply and message, so that the loader can check
 * each octet. */

#ifndef BENCHMARKS_POP3_H
#define BENCHMARKS_POP3_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING "+OK stub ready <1.1@stub.invalid>\r\n"
#define OK "+OK\r\n"
#define STAT_REPLY "+OK 2 20000000\r\n"
#define RETR_REPLY "+OK message follows\r\n"
#define QUIT_REPLY "+OK bye\r\n"

/* Octets of a message's text, a few more or less: the last line is never cut. */
#define MESSAGE_OCTETS 10000000

/* A TLS record with one octet in it: what the client sends after STLS to be given one opaque message. */
#define OPAQUE_REQUEST "\x16\x03\x03\x00\x01\x01"
#define OPAQUE_REQUEST_OCTETS 6

struct blob {
    const char *data;
    size_t size;
};

struct text {
    char *data;
    size_t size;
    uint32_t seed;
};

/* A fixed sequence, so that both ends build the same messages in every run. */
static inline uint32_t draw(struct text *text, uint32_t below)
{
    text->seed = text->seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)text->seed * below) >> 32);
}

static inline void put(struct text *text, const char *piece, size_t size)
{
    memcpy(text->data + text->size, piece, size);
    text->size += size;
}

static inline void put_string(struct text *text, const char *piece)
{
    put(text, piece, strlen(piece));
}

static inline struct text new_text(void)
{
    /* The last line and the status line stay far below the margin. */
    struct text text = {.data = malloc(MESSAGE_OCTETS + 4096), .size = 0, .seed = 1};
    if (text.data == NULL) {
        perror("malloc");
        exit(1);
    }
    return text;
}

static inline void put_base64_line(struct text *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 76; i++)
        text->data[text->size++] = letters[draw(text, 64)];
    put_string(text, "\r\n");
}

/* A line of sentences of about 90 letters; one line in 200 starts with a dot, and so is stuffed. */
static inline void put_prose_line(struct text *text)
{
    static const char *const words[] = {
        "the", "mail", "of", "a", "server", "and", "to", "message", "in", "was", "that", "reader",
        "it", "letter", "for", "answered", "is", "yesterday", "on", "meeting", "with", "we", "as", "number",
    };
    size_t start = text->size;
    if (draw(text, 200) == 0)
        put_string(text, ".... ");
    while (text->size - start < 66) {
        put_string(text, words[draw(text, sizeof words / sizeof *words)]);
        put_string(text, draw(text, 18) == 0 ? ". " : " ");
    }
    text->size--;
    put_string(text, "\r\n");
}

/* The whole answer to a RETR: status line, headers, body, final dot. */
static inline struct blob retr_answer(const char *encoding, void (*put_line)(struct text *))
{
    struct text text = new_text();
    put_string(&text, RETR_REPLY "From: a@stub.invalid\r\nSubject: benchmark\r\nContent-Transfer-Encoding: ");
    put_string(&text, encoding);
    put_string(&text, "\r\n\r\n");
    while (text.size < MESSAGE_OCTETS)
        put_line(&text);
    put_string(&text, ".\r\n");
    return (struct blob){text.data, text.size};
}

static inline struct blob base64_answer(void)
{
    return retr_answer("base64", put_base64_line);
}

static inline struct blob prose_answer(void)
{
    return retr_answer("7bit", put_prose_line);
}

/* What stands for TLS: one record's first octets, then octets of any value. */
static inline struct blob opaque_answer(void)
{
    struct text text = new_text();
    put(&text, "\x16\x03\x03", 3);
    while (text.size < MESSAGE_OCTETS)
        text.data[text.size++] = (char)draw(&text, 256);
    return (struct blob){text.data, text.size};
}

#endif
