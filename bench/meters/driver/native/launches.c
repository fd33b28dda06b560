/* Kernels do nothing here: who asked for one has its values computed beside, see `kernels.py`. cuBLAS is stood in for
 * because it brings a runtime of its own, which looks for a GPU. */
#include "stand_in.h"

int stand_in_lacks(const char *name);

/* Are kernels' values computed in this process, and is this thread in an operation whose values are? */
static int computing;
static __thread int operations;
void stand_in_computes(void) { computing = 1; }
void stand_in_within(int change) { operations += change; }

cudaError_t launched(void) {
    WITH_CONTEXT;
    return computing && !operations ? (cudaError_t)stand_in_lacks("values for a kernel of this operation") : cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    (void)kernel, (void)grid, (void)block, (void)arguments, (void)shared, (void)stream;
    return launched();
}
cudaError_t cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
    (void)config, (void)kernel, (void)arguments;
    return launched();
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel((const void *)kernel, grid, block, arguments, shared, stream);
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)(uintptr_t)function;
    return cudaSuccess;
}

static void *module[64];
void **__cudaRegisterFatBinary(void *binary) {
    (void)binary;
    return module;
}
char __cudaInitModule(void **handle) {
    (void)handle;
    return 1;
}

/* What `<<<...>>>` leaves between the two calls that a compiler makes of it. */
typedef struct { dim3 grid, block; size_t shared; cudaStream_t stream; } Call;
static __thread Call calls[16];
static __thread unsigned depth;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    calls[depth++ % 16] = (Call){grid, block, shared, stream};
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    Call *call = &calls[--depth % 16];
    *grid = call->grid, *block = call->block, *shared = call->shared, *(cudaStream_t *)stream = call->stream;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *told, const void *kernel) {
    (void)kernel;
    memset(told, 0, sizeof *told);
    told->maxThreadsPerBlock = 1024, told->numRegs = 32, told->maxDynamicSharedSizeBytes = 232448;
    told->binaryVersion = told->ptxVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *kernel, int block, size_t shared, unsigned flags) {
    (void)kernel, (void)block, (void)shared, (void)flags;
    *count = 2;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *kernel, int block, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, kernel, block, shared, 0);
}
/* Of variables on a device: kernels that would read them do nothing. */
cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol) {
    (void)symbol;
    static void *variables;
    cudaError_t error = variables ? cudaSuccess : cudaMalloc(&variables, GRANULE);
    *pointer = variables;
    return error;
}

/* ---- cuBLAS: handles are there, products are computed beside. */
static int made(void **handle) {
    *handle = calloc(1, 256);
    return *handle ? 0 : 3; /* CUBLAS_STATUS_ALLOC_FAILED */
}
static int gone(void *handle) {
    free(handle);
    return 0;
}
int cublasCreate_v2(void **handle) { return made(handle); }
int cublasDestroy_v2(void *handle) { return gone(handle); }
int cublasLtCreate(void **handle) { return made(handle); }
int cublasLtDestroy(void *handle) { return gone(handle); }
int cublasLtMatmulDescCreate(void **description) { return made(description); }
int cublasLtMatmulDescDestroy(void *description) { return gone(description); }
int cublasLtMatmulPreferenceCreate(void **preference) { return made(preference); }
int cublasLtMatmulPreferenceDestroy(void *preference) { return gone(preference); }
int cublasLtMatrixLayoutCreate(void **layout) { return made(layout); }
int cublasLtMatrixLayoutDestroy(void *layout) { return gone(layout); }
int cublasGetMathMode(void *handle, int *mode) {
    (void)handle;
    *mode = 0;
    return 0;
}
int cublasGetPointerMode_v2(void *handle, int *mode) { return cublasGetMathMode(handle, mode); }
size_t cublasLtGetVersion(void) { return 130000; }
/* One algorithm, which takes no workspace: zeros are that, and the state of success. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *description, void *a, void *b, void *c, void *d, void *preference, int wanted, void *results, int *count) {
    (void)handle, (void)description, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)wanted;
    memset(results, 0, 64);
    *count = 1;
    return 0;
}
