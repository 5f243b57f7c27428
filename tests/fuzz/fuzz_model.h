/* fuzz_model.h -- a model out of an input, for the targets that need one.
 *
 * Tables are descriptions; or, by hand, the frequencies as they are (2 bytes each, at most 64 tables), which need not
 * make sense. */
#ifndef Z4_FUZZ_MODEL_H
#define Z4_FUZZ_MODEL_H

#include "fuzz.h"
#include "z4_model.h"

typedef struct {
    const uint8_t *at;
    size_t left;
} reader;

static uint64_t take(reader *r, size_t nbytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < nbytes; i++) {
        value |= (uint64_t)(r->left > 0 ? *r->at : 0) << 8 * i;
        r->at += r->left > 0;
        r->left -= r->left > 0;
    }
    return value;
}

/* Frequencies of tables that `src` describes, or holds; -> how many, 0 if it does not. */
static unsigned tables_of(const uint8_t *src, size_t nbytes, int by_hand, uint16_t (*freqs)[256])
{
    static z4_rans_model described;
    unsigned count;
    if (by_hand) {
        count = (unsigned)(nbytes / 512 < Z4_RANS_CONTEXTS ? nbytes / 512 : Z4_RANS_CONTEXTS);
        if (count > 0)
            memcpy(freqs, src, count * sizeof *freqs);
        return count;
    }
    if (z4_rans_model_read(src, nbytes, &described) != Z4_OK)
        return 0;
    Z4_FUZZ_CHECK(described.count >= 1 && described.count <= Z4_RANS_CONTEXTS);
    for (unsigned k = 0; k < described.count; k++) {
        z4_rans_model_freqs(&described, k, freqs[k]);
        Z4_FUZZ_CHECK(z4_rans_check(freqs[k]) == Z4_OK);
    }
    return described.count;
}

/* The model that the input asks for, exactly as large as it must be; NULL if there is none. */
static z4_model *model_of(reader *r, const z4_model *head, const size_t nbytes[3], int by_hand, size_t columns)
{
    static uint16_t freqs[Z4_RANS_CONTEXTS + 2][256], side[Z4_RANS_CONTEXTS][256];
    z4_model *m;
    uint8_t *classes;
    unsigned count = 0;
    size_t size;
    for (int part = 0; part < 3; part++) {
        uint8_t *src;
        unsigned got;
        if (nbytes[part] > r->left)
            return NULL;
        if (part > 0 && nbytes[part] == 0) {
            memset(freqs[count + (unsigned)part - 1], 0, sizeof *freqs);
            continue;
        }
        src = z4_fuzz_copy(r->at, nbytes[part]);
        got = tables_of(src, nbytes[part], by_hand, part == 0 ? freqs : side);
        free(src);
        if (got == 0)
            return NULL;
        if (part == 0)
            count = got;
        else
            memcpy(freqs[count + (unsigned)part - 1], side[0], sizeof *freqs);
        r->at += nbytes[part];
        r->left -= nbytes[part];
    }
    if (columns > r->left)
        return NULL;
    size = z4_model_nbytes(count, head->period, head->has);
    m = z4_fuzz_alloc(size);
    memset(m, 0, size);
    *m = *head;
    m->count = count;
    m->nbytes = size;
    memcpy(m + 1, freqs, (count + 2) * sizeof *freqs);
    classes = (uint8_t *)(m + 1) + (count + 2) * sizeof *freqs;
    for (size_t i = 0; m->has & Z4_MODEL_COLUMNS && i < m->period; i++)
        classes[i] = columns == 0 ? 0 : r->at[i % columns] % Z4_MODEL_CLASSES;
    r->at += columns;
    r->left -= columns;
    if (!z4_model_ok(m, size)) {
        free(m);
        return NULL;
    }
    return m;
}

#endif
