/* z4_model.h -- what the chunks of a frame share that are coded as symbols: tables, and how contexts follow from rows
 * and columns, or from rows and a reference. Formats: docs/format/codecs/symbols.md, docs/format/codecs/difference.md.
 *
 * A model is one block of memory: this struct, then frequencies of count + 2 tables (the contexts, the rare symbols,
 * the classes), then the classes of the columns.
 */
#ifndef Z4_MODEL_H
#define Z4_MODEL_H

#include "z4_rans.h"

enum { Z4_MODEL_ROWS = 1, Z4_MODEL_COLUMNS = 2, Z4_MODEL_RARE = 4, Z4_MODEL_FLOATS = 8 };
/* Largest `octave`. */
enum { Z4_MODEL_OCTAVE = 8 };

/* Largest class, and what a chunk holds at most. */
enum { Z4_MODEL_CLASSES = 128, Z4_MODEL_LEAST_PERIOD = 16, Z4_MODEL_ELEMENTS = 1 << 22, Z4_MODEL_RARES = 0xffff };
#define Z4_MODEL_MOST_ROWS ((size_t)Z4_MODEL_ELEMENTS / Z4_MODEL_LEAST_PERIOD + 2)

typedef struct {
    uint64_t nbytes; /* of the whole block */
    uint32_t count;  /* contexts */
    uint32_t period; /* elements of a row; 0 without rows and columns */
    uint16_t base; /* of differences: magnitude of class 0 */
    uint8_t has;   /* Z4_MODEL_ROWS, Z4_MODEL_COLUMNS, Z4_MODEL_RARE; of differences: Z4_MODEL_FLOATS */
    uint8_t shift;
    uint8_t escape;
    uint8_t floor;       /* encoder: symbols below count as this where rows are weighed */
    uint16_t least;      /* encoder: twice the mean weight of a row of class 0; of differences: its level */
    uint8_t most;        /* encoder: highest class of a row */
    uint8_t folds;       /* encoder: `fold` is not the identity */
    uint8_t difference;  /* 1: of differences from a reference */
    uint8_t below;       /* of differences: bits of a magnitude below its class */
    uint8_t octave;      /* encoder of differences: log2 of the classes of an octave */
    uint8_t reserved[3];
    uint8_t fold[256];   /* encoder: what a symbol weighs */
} z4_model;

Z4_INLINE const uint16_t *z4_model_freqs(const z4_model *m, unsigned context)
{
    return (const uint16_t *)(const void *)(m + 1) + (size_t)context * 256;
}
Z4_INLINE const uint16_t *z4_model_rare(const z4_model *m) { return z4_model_freqs(m, m->count); }
Z4_INLINE const uint16_t *z4_model_classes(const z4_model *m) { return z4_model_freqs(m, m->count + 1); }
Z4_INLINE const uint8_t *z4_model_columns(const z4_model *m)
{
    return m->has & Z4_MODEL_COLUMNS ? (const uint8_t *)z4_model_freqs(m, m->count + 2) : NULL;
}
Z4_INLINE size_t z4_model_nbytes(unsigned count, uint64_t period, unsigned has)
{
    return sizeof(z4_model) + ((size_t)count + 2) * 512 + (has & Z4_MODEL_COLUMNS ? (size_t)period : 0);
}

/* Contexts must have something to follow from; rows and columns a length. */
Z4_INLINE int z4_model_sides_ok(const z4_model *m)
{
    if (m->difference)
        return m->difference == 1 && !(m->has & Z4_MODEL_COLUMNS) && m->octave <= Z4_MODEL_OCTAVE &&
               (!(m->has & Z4_MODEL_ROWS) || m->period >= Z4_MODEL_LEAST_PERIOD);
    return !(m->has & Z4_MODEL_FLOATS) && (!(m->has & (Z4_MODEL_ROWS | Z4_MODEL_COLUMNS)) || m->period >= 1) &&
           (!(m->has & Z4_MODEL_ROWS) || m->period >= Z4_MODEL_LEAST_PERIOD) &&
           (m->has & (Z4_MODEL_ROWS | Z4_MODEL_COLUMNS) || m->count == 1);
}

/* Whether a block of memory is a model that the kernels may use: its sizes, not its tables, which are checked as they
 * are built. */
Z4_INLINE int z4_model_ok(const z4_model *m, size_t nbytes)
{
    return nbytes >= sizeof *m && m->nbytes == nbytes && m->count >= 1 && m->count <= Z4_RANS_CONTEXTS &&
           m->shift < 8 && z4_model_sides_ok(m) && z4_model_nbytes(m->count, m->period, m->has) == nbytes;
}

/* Rows that the elements [first, first + n) touch. */
Z4_INLINE size_t z4_model_rows(const z4_model *m, uint64_t first, size_t n)
{
    return m->has & Z4_MODEL_ROWS && n > 0 ? (size_t)((first % m->period + n + m->period - 1) / m->period) : 0;
}

#endif
