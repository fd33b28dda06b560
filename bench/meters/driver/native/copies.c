/* Copies and fills. Device memory is a file that is mapped nowhere in this process: it is read and written by calls. */
#include "stand_in.h"

static off_t offset_of(const void *pointer) { return (off_t)((uintptr_t)pointer - base); }

/* Memory that cannot be read kills here as it does where it is copied: a mapped file that was cut, say. */
static void touch(const char *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 4096) (void)*(const volatile char *)(from + at);
}

static cudaError_t move_row(char *to, const char *from, size_t bytes) {
    int to_device = device_of(to) >= 0, from_device = device_of(from) >= 0, fd = (int)card.memory_fd;
    if (!to_device && !from_device) {
        memmove(to, from, bytes);
        return cudaSuccess;
    }
    char bounce[65536];
    while (bytes) {
        size_t step = to_device && from_device && bytes > sizeof bounce ? sizeof bounce : bytes;
        ssize_t count;
        if (to_device && from_device) {
            count = pread(fd, bounce, step, offset_of(from));
            if (count > 0) count = pwrite(fd, bounce, (size_t)count, offset_of(to));
        } else if (to_device) {
            count = pwrite(fd, from, step, offset_of(to));
            if (count < 0 && errno == EFAULT) touch(from, step);
        } else {
            count = pread(fd, to, step, offset_of(from));
        }
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return cudaErrorInvalidValue;
        to += count, from += count, bytes -= (size_t)count;
    }
    return cudaSuccess;
}

static cudaError_t fill_row(char *to, int value, size_t bytes) {
    if (device_of(to) < 0) {
        memset(to, value, bytes);
        return cudaSuccess;
    }
    char values[65536];
    memset(values, value, bytes < sizeof values ? bytes : sizeof values);
    while (bytes) {
        ssize_t count = pwrite((int)card.memory_fd, values, bytes < sizeof values ? bytes : sizeof values, offset_of(to));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return cudaErrorInvalidValue;
        to += count, bytes -= (size_t)count;
    }
    return cudaSuccess;
}

cudaError_t transfer(const Transfer *one) {
    for (size_t row = 0; row < one->height; row++) {
        char *to = (char *)one->to + row * one->to_pitch;
        const char *from = one->from ? (const char *)one->from + row * one->from_pitch : NULL;
        int to_device = device_of(to) >= 0, from_device = from && device_of(from) >= 0;
        if (to_device && !is_on_device((uintptr_t)to, one->width)) return cudaErrorIllegalAddress;
        if (from_device && !is_on_device((uintptr_t)from, one->width)) return cudaErrorIllegalAddress;
        cudaError_t error = cudaSuccess;
        if (card.discards && (to_device || from_device)) {
            if (!to_device) memset(to, 0, one->width);
        } else {
            error = from ? move_row(to, from, one->width) : fill_row(to, one->value, one->width);
        }
        if (error) return error;
    }
    return cudaSuccess;
}

/* May a copy be done after the call has returned? Memory that is not page-locked is read or written by then. */
static int may_be_late(const Transfer *one) {
    if (device_of(one->to) < 0 && !is_page_locked(one->to)) return 0;
    return !one->from || device_of(one->from) >= 0 || is_page_locked(one->from);
}

static cudaError_t asked(Transfer one, cudaStream_t handle, int wait) {
    WITH_CONTEXT;
    if (!one.width || !one.height) return cudaSuccess;
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    cudaError_t error = enqueue(stream, &one);
    if (!error && (wait || !may_be_late(&one))) error = finish(stream);
    pthread_mutex_unlock(&lock);
    return noted(error);
}

static Transfer whole(void *to, const void *from, size_t bytes) { return (Transfer){to, from, bytes, 1, bytes, bytes, 0}; }

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    (void)kind;
    return asked(whole(to, from, bytes), NULL, 1);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)kind;
    return asked(whole(to, from, bytes), stream, 0);
}
cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
    (void)to_device, (void)from_device;
    return asked(whole(to, from, bytes), stream, 0);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)kind;
    return asked((Transfer){to, from, width, height, to_pitch, from_pitch, 0}, stream, 0);
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return asked((Transfer){to, NULL, bytes, 1, bytes, bytes, value}, NULL, 1);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    return asked((Transfer){to, NULL, bytes, 1, bytes, bytes, value}, stream, 0);
}
