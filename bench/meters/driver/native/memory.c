/* Memory of the devices, by both of CUDA's ways to it, and page-locked memory of the host. */
#include "stand_in.h"

static Spans allocated[MOST_DEVICES], reserved[MOST_DEVICES], mapped[MOST_DEVICES], page_locked;
static uint64_t next_offset[MOST_DEVICES];

/* What cuMemCreate gives: memory without an address. */
typedef struct { uint64_t bytes; int device, maps, released; } Physical;
/* Marks page-locked memory that cudaHostAlloc made; that of cudaHostRegister has no owner. */
static char host_allocated;

static uint64_t in_granules(uint64_t bytes) { return (bytes + GRANULE - 1) / GRANULE * GRANULE; }

int device_of(const void *pointer) {
    uintptr_t at = (uintptr_t)pointer;
    return base && at >= base && at < base + (uint64_t)card.device_span * (uint64_t)card.devices ? (int)((at - base) / (uint64_t)card.device_span) : -1;
}

int is_on_device(uintptr_t at, uint64_t bytes) {
    int device = device_of((void *)at);
    for (uintptr_t end = at + bytes; device >= 0 && at < end;) {
        Span *span = span_at(&allocated[device], at);
        if (!span) span = span_at(&mapped[device], at);
        if (!span) return 0;
        at = span->at + span->bytes;
    }
    return device >= 0;
}

int is_page_locked(const void *pointer) { return span_at(&page_locked, (uintptr_t)pointer) != NULL; }

/* Addresses of a device: such as nobody had before, so that no use of freed memory goes unseen, as long as there are
 * any; then the first that are free. 0: there are none. */
static uintptr_t new_addresses(int device, uint64_t bytes) {
    uintptr_t start = (base + (uint64_t)card.device_span * (uint64_t)device + GRANULE - 1) / GRANULE * GRANULE;
    uintptr_t end = base + (uint64_t)card.device_span * (uint64_t)(device + 1), at = start + next_offset[device];
    if (at + bytes <= end) {
        next_offset[device] += bytes;
        return at;
    }
    for (at = start; at + bytes <= end;) {
        Span *taken = span_within(&allocated[device], at, bytes);
        if (!taken) taken = span_within(&reserved[device], at, bytes);
        if (!taken) return at;
        at = taken->at + taken->bytes;
    }
    return 0;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    *pointer = NULL;
    WITH_CONTEXT;
    if (!bytes) return cudaSuccess;
    uint64_t takes = in_granules(bytes);
    int device = current_device;
    pthread_mutex_lock(&lock);
    cudaError_t error = take(device, takes);
    uintptr_t at = error ? 0 : new_addresses(device, takes);
    if (!error && !at) error = cudaErrorMemoryAllocation;
    if (at && !(error = fill_pages(at, takes))) {
        span_add(&allocated[device], (Span){at, takes, NULL});
        *pointer = (void *)at;
    } else if (at) {
        give_back(device, takes);
    }
    pthread_mutex_unlock(&lock);
    return noted(error);
}

cudaError_t cudaFree(void *pointer) {
    WITH_CONTEXT;
    if (!pointer) return cudaSuccess;
    int device = device_of(pointer);
    if (device < 0) return noted(cudaErrorInvalidValue);
    pthread_mutex_lock(&lock);
    cudaError_t error = finish_all(); /* CUDA waits for the device here, too. */
    Span *span = span_at(&allocated[device], (uintptr_t)pointer);
    if (!span || span->at != (uintptr_t)pointer) {
        error = cudaErrorInvalidValue;
    } else {
        drop_pages(span->at, span->bytes);
        give_back(device, span->bytes);
        span_remove(&allocated[device], span);
    }
    pthread_mutex_unlock(&lock);
    return noted(error);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = 0;
    BEGIN;
    *total = (size_t)card.memory_bytes[current_device];
    WITH_CONTEXT;
    uint64_t used = used_bytes(current_device);
    *free_bytes = used < *total ? *total - used : 0;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *told, const void *pointer) {
    BEGIN;
    memset(told, 0, sizeof *told);
    int device = device_of(pointer);
    pthread_mutex_lock(&lock);
    int locked = is_page_locked(pointer);
    pthread_mutex_unlock(&lock);
    told->type = device >= 0 ? cudaMemoryTypeDevice : locked ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    told->device = device >= 0 ? device : locked ? current_device : cudaInvalidDeviceId;
    told->devicePointer = device >= 0 || locked ? (void *)pointer : NULL;
    told->hostPointer = device < 0 ? (void *)pointer : NULL;
    return cudaSuccess;
}

/* ---- Page-locked memory. It is shared memory, as the driver's, and resident at once. */
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    (void)flags;
    *pointer = NULL;
    WITH_CONTEXT;
    if (!bytes) return cudaSuccess;
    size_t takes = (bytes + 4095) / 4096 * 4096;
    void *memory = mmap(NULL, takes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return noted(cudaErrorMemoryAllocation);
    pthread_mutex_lock(&lock);
    span_add(&page_locked, (Span){(uintptr_t)memory, takes, &host_allocated});
    pthread_mutex_unlock(&lock);
    *pointer = memory;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
    (void)flags;
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    int taken = span_within(&page_locked, (uintptr_t)pointer, bytes) != NULL;
    if (!taken) span_add(&page_locked, (Span){(uintptr_t)pointer, bytes, NULL});
    pthread_mutex_unlock(&lock);
    return noted(taken ? cudaErrorHostMemoryAlreadyRegistered : cudaSuccess);
}

static cudaError_t unlock_pages(void *pointer, int made_here) {
    WITH_CONTEXT;
    pthread_mutex_lock(&lock);
    cudaError_t error = finish_all();
    Span *span = span_at(&page_locked, (uintptr_t)pointer);
    if (!span || span->at != (uintptr_t)pointer || (span->owner == &host_allocated) != made_here) {
        error = made_here ? cudaErrorInvalidValue : cudaErrorHostMemoryNotRegistered;
    } else {
        if (made_here) munmap(pointer, span->bytes);
        span_remove(&page_locked, span);
    }
    pthread_mutex_unlock(&lock);
    return noted(error);
}
cudaError_t cudaFreeHost(void *pointer) { return pointer ? unlock_pages(pointer, 1) : cudaSuccess; }
cudaError_t cudaHostUnregister(void *pointer) { return unlock_pages(pointer, 0); }
cudaError_t cudaHostGetDevicePointer(void **on_device, void *host, unsigned flags) {
    (void)flags;
    *on_device = host;
    return cudaSuccess;
}

/* ---- Virtual memory, which expandable segments are made of. */
CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags option) {
    (void)prop, (void)option;
    *bytes = GRANULE;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *pointer, size_t bytes, size_t alignment, CUdeviceptr wanted, unsigned long long flags) {
    (void)alignment, (void)wanted, (void)flags;
    if (use_device(current_device)) return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&lock);
    uintptr_t at = new_addresses(current_device, in_granules(bytes));
    if (at) span_add(&reserved[current_device], (Span){at, in_granules(bytes), NULL});
    pthread_mutex_unlock(&lock);
    *pointer = at;
    return at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAddressFree(CUdeviceptr pointer, size_t bytes) {
    (void)bytes;
    int device = device_of((void *)pointer);
    if (device < 0) return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Span *span = span_at(&reserved[device], pointer);
    if (span) span_remove(&reserved[device], span);
    pthread_mutex_unlock(&lock);
    return span ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop, unsigned long long flags) {
    (void)flags;
    int device = prop->location.id;
    if (bytes % GRANULE || device < 0 || device >= card.devices) return CUDA_ERROR_INVALID_VALUE;
    if (use_device(device)) return CUDA_ERROR_NOT_INITIALIZED;
    cudaError_t error = take(device, bytes);
    if (error) return (CUresult)error; /* 2 is out of memory in both. */
    Physical *one = calloc(1, sizeof *one);
    if (!one) abort();
    one->bytes = bytes, one->device = device;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)one;
    return CUDA_SUCCESS;
}

static void let_go(Physical *one) {
    if (!one->released || one->maps) return;
    give_back(one->device, one->bytes);
    free(one);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    pthread_mutex_lock(&lock);
    Physical *one = (Physical *)(uintptr_t)handle;
    one->released = 1;
    let_go(one);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr pointer, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags) {
    (void)flags;
    Physical *one = (Physical *)(uintptr_t)handle;
    int device = device_of((void *)pointer);
    if (device < 0 || offset || bytes != one->bytes) return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Span *inside = span_at(&reserved[device], pointer);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (inside && pointer + bytes <= inside->at + inside->bytes && !span_within(&mapped[device], pointer, bytes)) {
        result = (CUresult)fill_pages(pointer, bytes);
        if (!result) one->maps++, span_add(&mapped[device], (Span){pointer, bytes, one});
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemUnmap(CUdeviceptr pointer, size_t bytes) {
    int device = device_of((void *)pointer);
    if (device < 0) return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (CUdeviceptr end = pointer + bytes; pointer < end && !result;) {
        Span *span = span_at(&mapped[device], pointer);
        if (!span || span->at != pointer || span->at + span->bytes > end) {
            result = CUDA_ERROR_INVALID_VALUE;
            break;
        }
        Physical *one = span->owner;
        pointer += span->bytes;
        drop_pages(span->at, span->bytes);
        span_remove(&mapped[device], span);
        one->maps--;
        let_go(one);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemSetAccess(CUdeviceptr pointer, size_t bytes, const CUmemAccessDesc *access, size_t count) {
    (void)pointer, (void)bytes, (void)access, (void)count;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr *start, size_t *bytes, CUdeviceptr pointer) {
    int device = device_of((void *)pointer);
    if (device < 0) return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Span *span = span_at(&allocated[device], pointer);
    if (!span) span = span_at(&reserved[device], pointer);
    if (span && start) *start = span->at;
    if (span && bytes) *bytes = span->bytes;
    pthread_mutex_unlock(&lock);
    return span ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* For who computes in Python what a kernel was to: where a device address lies in the card's memory; -1: nowhere. */
int64_t stand_in_offset(uintptr_t address) { return device_of((void *)address) < 0 ? -1 : (int64_t)(address - base); }
