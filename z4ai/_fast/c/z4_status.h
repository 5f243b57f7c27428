/* z4_status.h -- what a kernel returns. Sizes are >= 0, so a ptrdiff_t can carry either. */
#ifndef Z4_STATUS_H
#define Z4_STATUS_H

enum {
    Z4_OK = 0,
    Z4_CORRUPT = -1,     /* breaks the rules of its format */
    Z4_TRUNCATED = -2,   /* ends before what it declares */
    Z4_UNSUPPORTED = -3, /* legal, but not for this decoder */
    Z4_CAPACITY = -4,    /* does not fit where it was told to go */
    Z4_CHECKSUM = -5,    /* decoded, but not to what was hashed */
    Z4_MISSING = -6      /* not in the file it should be read from */
};

#endif
