/* z4_rans_types.h -- what the parts of the context coder share. */
#ifndef Z4_RANS_TYPES_H
#define Z4_RANS_TYPES_H

#include "z4_portable.h"
#include "z4_status.h"

enum {
    Z4_RANS_BITS = 12,                 /* of a probability */
    Z4_RANS_TOTAL = 1 << Z4_RANS_BITS, /* sum of the frequencies of a table */
    Z4_RANS_SYMBOLS = 256,
    Z4_RANS_CONTEXTS = 64,           /* most tables of one stream */
    Z4_RANS_LANES = 64,              /* most states of one stream */
    Z4_RANS_LOW = 1 << 15,           /* a state at rest is at least this, and below 2^31 */
    Z4_RANS_ROOM = 2 * Z4_RANS_LANES /* bytes that a group of symbols reads or writes at most */
};

/* A way through whole groups, a symbol of each lane; advanced by who walks it. */
typedef struct {
    uint32_t *state;
    const uint8_t *in, *limit; /* a group is read while Z4_RANS_ROOM bytes lie between the two */
    const uint8_t *contexts;   /* one a symbol, or NULL: one table */
    const uint32_t *tables;    /* Z4_RANS_TOTAL elements a context */
    uint8_t *dst;
    size_t groups; /* left */
} z4_rans_reading;

/* The same backwards: the pointers are ends, and move down. */
typedef struct {
    uint32_t *state;
    const uint8_t *symbols, *contexts;
    const uint32_t *codes;       /* Z4_RANS_SYMBOLS elements a context */
    const uint64_t *reciprocals; /* likewise */
    uint8_t *out, *floor; /* a group is written while Z4_RANS_ROOM bytes lie between the two */
    size_t groups;        /* left */
    int strange;          /* met a symbol that has no frequency */
} z4_rans_writing;

typedef struct {
    const char *name;
    void (*read)(z4_rans_reading *r, unsigned lanes);
    void (*write)(z4_rans_writing *w, unsigned lanes);
} z4_rans_impl;

/* Tables to encode with, of `count` contexts. */
typedef struct {
    const uint32_t *codes;
    const uint64_t *reciprocals;
    unsigned count;
} z4_rans_codes;

/* A stream on its way; starts with z4_rans_begin(). About 600 bytes. */
typedef struct {
    const uint32_t *tables;
    unsigned count, lanes;
    size_t left;             /* symbols */
    const uint8_t *in, *end; /* words not read yet */
    int in_tail;             /* they are in `tail` by now */
    uint32_t state[Z4_RANS_LANES];
    uint8_t tail[2 * Z4_RANS_ROOM]; /* the last words, and zeros to run into */
} z4_rans_decoder;

/* States of a stream of n symbols: each costs about three bytes that say nothing. */
static inline unsigned z4_rans_lanes(size_t n)
{
    return n >= (size_t)1 << 18 ? 64 : n >= 1 << 14 ? 16 : n >= 1 << 11 ? 4 : 1;
}

#endif
