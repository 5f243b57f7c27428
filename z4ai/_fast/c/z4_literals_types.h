/* z4_literals_types.h -- what encoder, decoder and the table of variants share. */
#ifndef Z4_LITERALS_TYPES_H
#define Z4_LITERALS_TYPES_H

#include "z4_huffman.h"

enum {
    Z4_LIT_BLOCK = 1 << 17,  /* most content of a block */
    Z4_LIT_BLOCK_LEAST = 1 << 12, /* least content of a block that the encoder is asked for */
    Z4_LIT_GROUP = 16,       /* blocks counted before a tree is chosen */
    Z4_LIT_FOUR = 1024,      /* from here on a block has four streams; below, one */
    Z4_LIT_MARGIN = 11,      /* a choice that is quicker to decode may take 1/2048 more */
    Z4_LIT_SINGLE = 6,       /* bits a symbol above which one symbol a look-up is quicker */
    Z4_LIT_WIDE = 1024       /* from here on the table of several symbols a look-up repays itself */
};

/* Literals need no window, but what declares a larger one is not for this format. */
#define Z4_LIT_MAX_WINDOW ((uint64_t)1 << 27)

#define Z4_LIT_NEVER UINT32_MAX /* size of what cannot be written */

enum { Z4_LIT_RAW = 0, Z4_LIT_RLE = 1, Z4_LIT_COMPRESSED = 2, Z4_LIT_TREELESS = 3 };

typedef struct {
    uint8_t length[Z4_HUF_SYMBOLS]; /* 0: no code */
    uint8_t description[Z4_HUF_MAX_TREE];
    uint32_t nbytes; /* of the description, or Z4_LIT_NEVER */
    unsigned log;    /* longest code */
} z4_lit_tree;

/* Scratch of one call of z4_lit_encode(); nothing in it outlives the call. About 36 KiB. */
typedef struct {
    size_t block;                                     /* content of every block but the last */
    uint16_t counts[Z4_LIT_GROUP][4][Z4_HUF_SYMBOLS]; /* by block and stream; one stream is the first */
    uint32_t nbytes[Z4_LIT_GROUP];                    /* content of each block */
    uint32_t own[Z4_LIT_GROUP];                       /* what it takes with a tree of its own */
    uint8_t constant[Z4_LIT_GROUP];                   /* one symbol throughout */
    z4_lit_tree tree, draft;                          /* in use; on trial */
    int live;                                         /* the decoder knows `tree` by now */
    uint64_t entry[Z4_HUF_SYMBOLS];                   /* codes of `tree` */
} z4_lit_encoder;

/* Memory that the caller reads or writes as soon as a block is decoded. The loops of a block wait for
 * table look-ups and leave the memory system idle, so they fetch it meanwhile. A hint, no more: any
 * address will do. */
enum { Z4_LIT_RANGES = 9 };
typedef struct {
    struct {
        const uint8_t *at, *end;
    } range[Z4_LIT_RANGES];
    unsigned n;    /* ranges left, the last one first */
    unsigned rate; /* lines a round, set for each block */
} z4_lit_fetch;

/* A decoder and its tables, about 37 KiB; starts with z4_lit_begin(). */
typedef struct {
    z4_lit_fetch *fetch;            /* set by the caller after z4_lit_begin(), or NULL */
    const uint8_t *src, *end;       /* what is not read yet */
    size_t content_left, block_max; /* bytes */
    int last;                       /* the last block has been read */
    int has_tree, has_wide;
    int single; /* this block: use `one` alone */
    unsigned n_symbols, log; /* of the tree */
    uint8_t weight[Z4_HUF_SYMBOLS];
    /* By the next `log` bits: bits, and symbol << 8. */
    uint16_t one[1 << Z4_HUF_LOG];
    /* By the next r bits, from element 2^r on, r <= 11: all symbols that these bits complete, six at
     * most. Byte 0: bits; bytes 1..6: symbols; byte 7: how many. Reading uses r = 11, the upper
     * half; the lower half builds it. */
    uint64_t wide[2 << Z4_HUF_LOG];
} z4_lit_decoder;

/* One stream of a block: nbytes from src on become the bytes dst..end-1. */
typedef struct {
    const uint8_t *src;
    size_t nbytes;
    uint8_t *dst, *end;
} z4_lit_stream;

typedef struct {
    const char *name;
    void (*count)(const uint8_t *src, size_t n, uint16_t counts[4][Z4_HUF_SYMBOLS]);
    void (*encode4)(const uint8_t *src, size_t n, uint8_t *dst, const uint32_t nbytes[4],
                    const uint64_t *entry);
    int (*decode)(const z4_lit_decoder *d, const z4_lit_stream *streams, unsigned n_streams,
                  const uint8_t *limit);
} z4_literals_impl;

#endif
