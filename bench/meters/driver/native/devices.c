/* Devices, their properties, errors, the driver's entry points and NVML. */
#include "stand_in.h"
#include <dlfcn.h>

static __thread cudaError_t last_error;
static const char *lacking = "";

cudaError_t noted(cudaError_t error) {
    if (error) last_error = error;
    return error;
}

/* What a function returns that is not here, see `build.py`. */
int stand_in_lacks(const char *name) {
    lacking = name;
    last_error = (cudaError_t)LACKS;
    return LACKS;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

const char *cudaGetErrorString(cudaError_t error) {
    static __thread char text[256];
    switch ((int)error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInitializationError: return "initialization error";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorHostMemoryAlreadyRegistered: return "part or all of the requested memory range is already mapped";
    case cudaErrorHostMemoryNotRegistered: return "pointer does not correspond to a registered memory region";
    case NO_CARD: return "the process of the stand-in for a GPU has ended; start the run again";
    case MACHINE_FULL: return "the stand-in for a GPU needs more memory than this machine has free; use --device sim";
    case LACKS:
        snprintf(text, sizeof text, "the stand-in for a GPU has no %s; use --device sim or a GPU", lacking);
        return text;
    default:
        snprintf(text, sizeof text, "CUDA error %d", (int)error);
        return text;
    }
}
const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }

static int device_count(void) {
    const char *memory = getenv("WEIGHT_LOADING_STAND_IN_MEMORY");
    int count = memory && *memory;
    for (; memory && *memory; memory++) count += *memory == ',';
    return count;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    BEGIN;
    *count = (int)card.devices;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    BEGIN;
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    BEGIN;
    if (device < 0 || device >= card.devices) return noted(cudaErrorInvalidDevice);
    current_device = device;
    return noted(use_device(device));
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *told, int device) {
    BEGIN;
    if (device < 0 || device >= card.devices) return noted(cudaErrorInvalidDevice);
    memset(told, 0, sizeof *told);
    strcpy(told->name, "stand-in for a GPU");
    told->uuid.bytes[0] = (char)device;
    told->totalGlobalMem = (size_t)card.memory_bytes[device];
    /* Those of an H100 or H200. */
    told->major = 9, told->minor = 0;
    told->multiProcessorCount = 132, told->maxBlocksPerMultiProcessor = 32, told->warpSize = 32;
    told->maxThreadsPerBlock = 1024, told->maxThreadsPerMultiProcessor = 2048;
    told->maxThreadsDim[0] = told->maxThreadsDim[1] = 1024, told->maxThreadsDim[2] = 64;
    told->maxGridSize[0] = 2147483647, told->maxGridSize[1] = told->maxGridSize[2] = 65535;
    told->regsPerBlock = told->regsPerMultiprocessor = 65536;
    told->sharedMemPerBlock = 49152, told->sharedMemPerBlockOptin = 232448;
    told->sharedMemPerMultiprocessor = 233472, told->reservedSharedMemPerBlock = 1024;
    told->totalConstMem = 65536, told->memPitch = 2147483647, told->textureAlignment = 512;
    told->l2CacheSize = 60 << 20, told->memoryBusWidth = 6144, told->asyncEngineCount = 3;
    told->canMapHostMemory = told->concurrentKernels = told->unifiedAddressing = told->streamPrioritiesSupported = 1;
    told->managedMemory = told->cooperativeLaunch = told->hostRegisterSupported = told->memoryPoolsSupported = 1;
    told->pciBusID = device + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp told;
    cudaError_t error = cudaGetDeviceProperties(&told, device);
    if (error) return error;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = told.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = told.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = told.multiProcessorCount; break;
    case cudaDevAttrWarpSize: *value = told.warpSize; break;
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = told.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimZ: *value = told.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = told.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = told.maxGridSize[1]; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = told.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)told.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)told.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)told.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = told.regsPerBlock; break;
    case cudaDevAttrL2CacheSize: *value = told.l2CacheSize; break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrHostRegisterSupported: *value = 1; break;
    default: *value = 0;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int room, int device) {
    snprintf(text, (size_t)room, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int other) {
    *can = device != other;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

/* ---- The driver, as far as PyTorch asks it by itself. */
static CUresult initialized(void) {
    cudaError_t error = begin();
    return error == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}
CUresult cuInit(unsigned flags) {
    (void)flags;
    return initialized();
}
CUresult cuDriverGetVersion(int *version) { return (CUresult)cudaDriverGetVersion(version); }
CUresult cuDeviceGetCount(int *count) {
    *count = device_count();
    return initialized();
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    return (CUresult)cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)attribute, device);
}
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    *flags = 0, *active = has_context(device);
    return CUDA_SUCCESS;
}
/* A context is the number of its device, and one. */
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)(uintptr_t)(device + 1);
    return use_device(device) ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = has_context(current_device) ? (CUcontext)(uintptr_t)(current_device + 1) : NULL;
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
    if (context) current_device = (int)(uintptr_t)context - 1;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = cudaGetErrorString((cudaError_t)error);
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char **text) { return cuGetErrorString(error, text); }

static CUresult unsupported(void) { return CUDA_ERROR_NOT_SUPPORTED; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    (void)version, (void)flags;
    char later[128];
    *function = dlsym(RTLD_DEFAULT, name);
    for (int number = 2; !*function && number < 5; number++) {
        snprintf(later, sizeof later, "%s_v%d", name, number);
        *function = dlsym(RTLD_DEFAULT, later);
    }
    if (!*function) *function = (void *)unsupported;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    return cudaGetDriverEntryPointByVersion(name, function, 0, flags, result);
}

/* ---- NVML, which tells without a context. A device is its number, and one. */
int nvmlInit_v2(void) { return 0; }
int nvmlInit(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)device_count();
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(uintptr_t)(index + 1);
    return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *text, void **device) {
    unsigned bus = 1;
    sscanf(text, "%*x:%x", &bus);
    *device = (void *)(uintptr_t)bus;
    return 0;
}
/* There is no fabric: zeros, which PyTorch has put there, say so. An error would be a warning in every process. */
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) {
    (void)device, (void)info;
    return 0;
}
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute_instance; } NvmlProcess;
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, NvmlProcess *told) {
    Holder holders[64];
    unsigned room = *count < 64 ? *count : 64;
    *count = 0;
    if (begin()) return 999; /* NVML_ERROR_UNKNOWN */
    int found = holders_of((int)(uintptr_t)device - 1, holders, (int)room);
    for (; *count < (unsigned)found; ++*count) {
        told[*count] = (NvmlProcess){(unsigned)holders[*count].pid, (unsigned long long)holders[*count].bytes, ~0u, ~0u};
    }
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, NvmlProcess *told) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, told);
}
