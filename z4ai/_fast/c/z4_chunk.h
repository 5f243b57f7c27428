/* z4_chunk.h -- one chunk: its job, and what encoder and decoder of it share.
 *
 * A job says where the content of a chunk lies and where its streams lie; the caller (the frame layer) knows
 * the format around them. Jobs arrive as an array that Python mirrors field by field (JOB in chunks.pyx).
 */
#ifndef Z4_CHUNK_H
#define Z4_CHUNK_H

#include "z4_difference.h"
#include "z4_literals.h"
#include "z4_planes.h"
#include "z4_portable.h"
#include "z4_rans.h"
#include "z4_status.h"
#include "z4_symbols.h"
#include "z4_xxh3.h"

/* Largest content of one chunk: sizes of streams then fit in 32 bits with room to spare. */
#define Z4_MAX_CHUNK ((uint64_t)1 << 26)

/* Planes are coded in blocks, and decoded in tiles, of this many elements: 256 KiB of content, so that a tile, its
 * planes and what the next one needs share a second-level cache; a block of zstd holds 128 KiB at most. */
#define Z4_TILE_MOST ((size_t)Z4_LIT_BLOCK)
Z4_INLINE size_t z4_tile(size_t width) { return width <= 2 ? Z4_TILE_MOST : ((size_t)1 << 18) / width; }

enum z4_codec {
    Z4_CODEC_STORE = 0,
    Z4_CODEC_CONSTANT = 1,
    Z4_CODEC_ZSTD = 2,
    Z4_CODEC_CONTEXTS = 3,
    /* Never on the wire: n bytes, one an element, that a library has decoded. */
    Z4_CODEC_PLAIN = 254
};

/* The bytes of the stream are those of the plane. */
Z4_INLINE int z4_is_plain(int codec) { return codec == Z4_CODEC_STORE || codec == Z4_CODEC_PLAIN; }

typedef struct {
    uint64_t content_offset;               /* of the chunk in the content buffer */
    uint64_t content_nbytes;               /* 1 .. Z4_MAX_CHUNK */
    uint64_t seed;                         /* of the checksum: offset of the chunk in the content of the frame */
    uint64_t checksum;                     /* XXH3 of the content: written by the encoder, read by the decoder */
    uint64_t encoded_offset;               /* of the chunk (encode: header gap first) in the encoded buffer */
    uint64_t encoded_nbytes;               /* whole chunk with its gap */
    uint64_t stream_offset[Z4_MAX_PLANES]; /* in the encoded buffer */
    uint64_t tail_offset;                  /* of the bytes behind the last whole element */
    uint64_t reference_offset;             /* of what the chunk differs from, in the reference; see z4_is_beside() */
    uint32_t stream_nbytes[Z4_MAX_PLANES];
    uint8_t stream_codec[Z4_MAX_PLANES];
    uint32_t lead;                         /* encode: bytes to leave in front of the chunk, for what lies between */
    uint32_t model;                        /* 1 + number of the model in the run's list; 0: none */
    uint32_t rows_nbytes;                  /* parameters of a chunk of symbols, as in docs/format/codecs/symbols.md */
    uint32_t rare_nbytes;
    uint16_t n_rare;
    uint16_t n_raw;
    uint16_t params_nbytes;
    uint8_t doubtful;                      /* encode: planes might be as small */
    uint8_t params_reserved;
    uint32_t saved;                        /* encode: bytes, against planes */
    uint8_t layout;                        /* transform: a number of docs/format/ids.md */
    uint8_t swap;                          /* elements of the content are big-endian */
    uint8_t n_streams;                     /* planes of the layout */
    int8_t status;                         /* result: Z4_OK or why not */
    uint8_t stream;                        /* the stream that `status` speaks of */
    uint8_t other_layout;                  /* encode: planes taken where they promise less; same width */
    uint8_t dtype;                         /* of the frame: a code of docs/format/ids.md */
    uint8_t planes;                        /* encode: layout taken where symbols do not fit or pay */
    uint8_t reserved[4];
} z4_chunk_job;

/* The kernels of one instruction set, chosen once a call. */
typedef struct {
    const z4_planes_impl *planes;
    const z4_literals_impl *literals;
    const z4_xxh3_impl *xxh3;
    const z4_rans_impl *rans;
    const z4_symbols_impl *symbols;
    const z4_difference_impl *difference;
} z4_kernels;

/* What chunks may differ from; at may be NULL where nbytes is 0. */
typedef struct {
    const uint8_t *at;
    size_t nbytes;
} z4_reference;

Z4_INLINE z4_kernels z4_kernels_pick(int isa)
{
    z4_kernels k;
    k.planes = z4_planes_pick(isa);
    k.literals = z4_literals_pick(isa);
    k.xxh3 = z4_xxh3_pick(isa);
    k.rans = z4_rans_pick(isa);
    k.symbols = z4_symbols_pick(isa);
    k.difference = z4_difference_pick(isa);
    return k;
}

/* Transforms of symbols follow those of planes. */
#define Z4_SYMBOLS_FIRST ((int)Z4_LAYOUT_COUNT)

Z4_INLINE int z4_is_symbols(int transform)
{
    return transform >= Z4_SYMBOLS_FIRST && transform < Z4_SYMBOLS_FIRST + (int)Z4_SYMBOLS_COUNT;
}

/* Transforms that need a reference. */
enum { Z4_SAME = 24, Z4_DIFFERENCE_FIRST = 28, Z4_DIFFERENCE_LAST = 31 };

Z4_INLINE int z4_is_difference(int transform)
{
    return transform >= Z4_DIFFERENCE_FIRST && transform <= Z4_DIFFERENCE_LAST;
}
Z4_INLINE int z4_is_beside(int transform) { return transform == Z4_SAME || z4_is_difference(transform); }

Z4_INLINE int z4_transform_known(int transform)
{
    return transform < Z4_SYMBOLS_FIRST + (int)Z4_SYMBOLS_COUNT || z4_is_beside(transform);
}

Z4_INLINE size_t z4_transform_width(int transform)
{
    return z4_is_symbols(transform)      ? z4_symbols_width(transform - Z4_SYMBOLS_FIRST)
           : z4_is_difference(transform) ? (size_t)1 << (transform - Z4_DIFFERENCE_FIRST)
           : transform == Z4_SAME        ? 1
                                         : z4_layout_width(transform);
}

/* Reverse the bytes of n elements. */
Z4_INLINE void z4_swap_elements(const z4_kernels *k, size_t width, const uint8_t *src, size_t n, uint8_t *dst)
{
    k->planes->swap[width == 8 ? 3 : width >> 1](src, n, dst);
}

Z4_INLINE size_t z4_align64(size_t n) { return (n + 63) & ~(size_t)63; }

#endif
