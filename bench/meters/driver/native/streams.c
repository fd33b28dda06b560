/* Streams and events. With a late card, work is done when somebody waits for it, and no sooner: who does not wait, or
 * lets go of page-locked memory too early, finds wrong values. Else it is done at once. */
#include "stand_in.h"
#include <time.h>

typedef struct { Transfer transfer; Stream *other; uint64_t until; } Work; /* `other`: wait for that stream instead. */
struct CUstream_st {
    Work *queue;
    size_t room;
    uint64_t first, done, asked; /* Numbers of works: of queue[0], of the next to be done, of the next to be asked for. */
    int device, prompt;          /* Prompt: also waited for by the default stream, so never late. */
    Stream *next;
};
struct CUevent_st { Stream *stream; uint64_t until; double seconds; int told; };

static Stream defaults[MOST_DEVICES], *streams;

static Stream *stream_on(int device, cudaStream_t handle) {
    return handle == NULL || handle == cudaStreamLegacy || handle == cudaStreamPerThread ? &defaults[device] : handle;
}
Stream *stream_of(cudaStream_t handle) { return stream_on(current_device, handle); }

static cudaError_t finish_until(Stream *stream, uint64_t until) {
    cudaError_t error = cudaSuccess;
    while (stream->done < until && !error) {
        Work work = stream->queue[stream->done++ - stream->first];
        error = work.other ? finish_until(work.other, work.until) : transfer(&work.transfer);
    }
    if (stream->done == stream->asked) stream->first = stream->done;
    return error;
}

static cudaError_t add(Stream *stream, Work work) {
    if (stream->asked - stream->first == stream->room) {
        stream->room = stream->room * 2 + 16;
        stream->queue = realloc(stream->queue, stream->room * sizeof(Work));
        if (!stream->queue) abort();
    }
    stream->queue[stream->asked++ - stream->first] = work;
    return card.late && !stream->prompt ? cudaSuccess : finish(stream);
}

cudaError_t enqueue(Stream *stream, const Transfer *one) { return add(stream, (Work){*one, NULL, 0}); }
cudaError_t finish(Stream *stream) { return finish_until(stream, stream->asked); }

cudaError_t finish_all(void) {
    cudaError_t error = cudaSuccess;
    for (int device = 0; device < card.devices && !error; device++) error = finish(&defaults[device]);
    for (Stream *stream = streams; stream && !error; stream = stream->next) error = finish(stream);
    return error;
}

/* For who computes in Python what a kernel was to: have done all that its stream was asked for before. */
int stand_in_arrive(int device, cudaStream_t handle) {
    pthread_mutex_lock(&lock);
    cudaError_t error = finish(stream_on(device, handle));
    pthread_mutex_unlock(&lock);
    return (int)noted(error);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority) {
    (void)priority;
    WITH_CONTEXT;
    Stream *stream = calloc(1, sizeof *stream);
    if (!stream) abort();
    stream->device = current_device, stream->prompt = !(flags & cudaStreamNonBlocking);
    pthread_mutex_lock(&lock);
    stream->next = streams, streams = stream;
    pthread_mutex_unlock(&lock);
    *handle = stream;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

/* What it was asked for is still to be done, so it stays. */
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}

static cudaError_t waited(cudaStream_t handle, int for_all) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    cudaError_t error = for_all ? finish_all() : finish(stream_of(handle));
    pthread_mutex_unlock(&lock);
    return noted(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return waited(stream, 0); }
cudaError_t cudaDeviceSynchronize(void) { return waited(NULL, 1); }
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    cudaError_t error = stream->done < stream->asked ? cudaErrorNotReady : cudaSuccess;
    if (error) finish(stream); /* By the next query it is done. */
    pthread_mutex_unlock(&lock);
    return noted(error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
    (void)flags;
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    cudaError_t error = cudaSuccess;
    if (event->stream && event->stream->done < event->until) error = add(stream_of(handle), (Work){.other = event->stream, .until = event->until});
    pthread_mutex_unlock(&lock);
    return noted(error);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    (void)stream;
    *priority = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *data) {
    cudaError_t error = waited(stream, 0);
    if (!error) call(data);
    return error;
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t call, void *data, unsigned flags) {
    (void)flags;
    cudaError_t error = waited(stream, 0);
    call(stream, error, data);
    return error;
}

/* ---- Events. */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    WITH_CONTEXT;
    *event = calloc(1, sizeof **event);
    return *event ? cudaSuccess : noted(cudaErrorMemoryAllocation);
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    *event = (struct CUevent_st){stream, stream->asked, now(), 0};
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    (void)flags;
    return cudaEventRecord(event, stream);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    cudaError_t error = event->stream ? finish_until(event->stream, event->until) : cudaSuccess;
    pthread_mutex_unlock(&lock);
    return noted(error);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    cudaError_t error = cudaSuccess;
    if (event->stream && event->stream->done < event->until) {
        /* Not by the first time that somebody asks, but by the second. */
        if (event->told) error = finish_until(event->stream, event->until);
        else event->told = 1, error = cudaErrorNotReady;
    }
    pthread_mutex_unlock(&lock);
    return noted(error);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!from->stream || !to->stream) return noted(cudaErrorInvalidResourceHandle);
    *milliseconds = (float)(1e3 * (to->seconds - from->seconds));
    return cudaSuccess;
}

/* ---- Nothing is ever captured: there are no graphs. */
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    (void)stream;
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
    (void)edges;
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **nodes, size_t *count) {
#endif
    (void)stream, (void)graph, (void)nodes;
    *status = cudaStreamCaptureStatusNone;
    if (id) *id = 0;
    if (count) *count = 0;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    *mode = cudaStreamCaptureModeGlobal;
    return cudaSuccess;
}
