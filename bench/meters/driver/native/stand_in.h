/* Shared declarations of the stand-in: what a process knows of the devices, and of its connection to the card. */
#pragma once
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define GRANULE (2 * MIB)        /* The driver hands out memory in multiples of it. */
#define MOST_DEVICES 8

/* Errors of the stand-in itself, beyond those of CUDA: cudaGetErrorString has their texts. */
enum { NO_CARD = 9001, MACHINE_FULL = 9002, LACKS = 9003 };

/* ---- connection.c: the card, a process that owns the memory of all devices. */
typedef struct {
    int64_t pid, memory_fd, levels_fd, devices, late, discards, context_bytes, context_host_bytes;
    int64_t device_span; /* Addresses of one device. */
    int64_t memory_bytes[MOST_DEVICES];
} CardFacts;
typedef struct { int64_t pid, bytes; } Holder;

extern CardFacts card;
extern uintptr_t base;          /* The address of byte 0 of `memory_fd`. */
extern pthread_mutex_t lock;    /* Held by every call that changes what follows. */

cudaError_t begin(void);        /* Connect on first use. An error in a process that was forked after that. */
cudaError_t use_device(int device);                             /* Create the context of a device on first use. */
int has_context(int device);
cudaError_t take(int device, uint64_t bytes);                   /* Count memory of a device as used; */
void give_back(int device, uint64_t bytes);                     /* and no longer. */
cudaError_t fill_pages(uintptr_t at, uint64_t bytes);           /* Have the card create the pages; */
void drop_pages(uintptr_t at, uint64_t bytes);                  /* and remove them. */
uint64_t used_bytes(int device);                                /* By all processes. */
int holders_of(int device, Holder *holders, int room);
extern __thread int current_device;

/* ---- launches.c */
cudaError_t launched(void);     /* What becomes of a kernel: an error if nobody computes its values. */

/* Remember an error as CUDA does, and return it. */
cudaError_t noted(cudaError_t error);

#define BEGIN do { cudaError_t error_ = begin(); if (error_) return noted(error_); } while (0)
#define WITH_CONTEXT do { cudaError_t error_ = use_device(current_device); if (error_) return noted(error_); } while (0)

/* ---- spans.c: sorted tables of address ranges. */
typedef struct { uintptr_t at; uint64_t bytes; void *owner; } Span;
typedef struct { Span *spans; size_t count, room; } Spans;
Span *span_at(Spans *in, uintptr_t address);                    /* The span that covers an address; NULL. */
Span *span_within(Spans *in, uintptr_t at, uint64_t bytes);    /* The first that has any of these bytes; NULL. */
void span_add(Spans *in, Span span);
void span_remove(Spans *in, Span *span);

/* ---- memory.c */
int device_of(const void *pointer);                             /* -1: of the host. */
int is_on_device(uintptr_t at, uint64_t bytes);                 /* All of it allocated? */
int is_page_locked(const void *pointer);

/* ---- copies.c: copies and fills, to be done at once or when somebody waits for them. */
typedef struct { void *to; const void *from; size_t width, height, to_pitch, from_pitch; int value; } Transfer;
cudaError_t transfer(const Transfer *one);                      /* Do it; `from` NULL: fill with `value`. */

/* ---- streams.c */
typedef struct CUstream_st Stream;
Stream *stream_of(cudaStream_t handle);
cudaError_t enqueue(Stream *stream, const Transfer *one);
cudaError_t finish(Stream *stream);                             /* Do all that a stream was asked for. */
cudaError_t finish_all(void);
