#include "stand_in.h"

/* The number of the first span that ends after an address. */
static size_t place_of(Spans *in, uintptr_t address) {
    size_t low = 0, high = in->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (in->spans[middle].at + in->spans[middle].bytes <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

Span *span_at(Spans *in, uintptr_t address) {
    size_t place = place_of(in, address);
    return place < in->count && in->spans[place].at <= address ? &in->spans[place] : NULL;
}

int span_overlaps(Spans *in, uintptr_t at, uint64_t bytes) {
    size_t place = place_of(in, at);
    return place < in->count && in->spans[place].at < at + bytes;
}

void span_add(Spans *in, Span span) {
    if (in->count == in->room) {
        in->room = in->room * 2 + 64;
        in->spans = realloc(in->spans, in->room * sizeof(Span));
        if (!in->spans) abort();
    }
    size_t place = place_of(in, span.at);
    memmove(in->spans + place + 1, in->spans + place, (in->count++ - place) * sizeof(Span));
    in->spans[place] = span;
}

void span_remove(Spans *in, Span *span) {
    size_t place = (size_t)(span - in->spans);
    memmove(in->spans + place, in->spans + place + 1, (--in->count - place) * sizeof(Span));
}
