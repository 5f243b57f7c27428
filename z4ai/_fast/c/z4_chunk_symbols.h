/* z4_chunk_symbols.h -- what encoder and decoder of chunks of symbols share. */
#ifndef Z4_CHUNK_SYMBOLS_H
#define Z4_CHUNK_SYMBOLS_H

#include "z4_chunk.h"
#include "z4_model.h"

/* Symbols restored, merged and hashed at a time: what one tile fetches should not crowd tables out of the caches. */
#define Z4_SYMBOLS_TILE ((size_t)2048)

/* Contexts of the elements [first, first + n) of a frame; rows: the class of each row they touch. */
Z4_INLINE void z4_contexts_of(const z4_symbols_impl *impl, const z4_model *m, const uint8_t *rows, uint64_t first,
                              size_t n, uint8_t *contexts)
{
    const uint8_t *columns = z4_model_columns(m);
    size_t column = (size_t)(first % m->period);
    for (size_t i = 0; i < n;) {
        const size_t left = m->period - column, k = left < n - i ? left : n - i;
        impl->contexts(rows == NULL ? 0 : *rows++, columns == NULL ? NULL : columns + column, k, m->shift,
                       m->count - 1, contexts + i);
        i += k;
        column = 0;
    }
}

#endif
