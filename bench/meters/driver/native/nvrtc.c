/* Kernels that PyTorch compiles while it runs: the compiler wants a driver, so there is none, and they do nothing. */
#include "stand_in.h"
#include <dlfcn.h>

/* PyTorch takes these functions from the compiler's own library, by name: they are given the ones here. */
void *dlsym(void *restrict library, const char *restrict name) {
    static void *(*found)(void *, const char *);
    static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"};
    for (int i = 0; !found && i < 3; i++) found = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    if (!found) return NULL;
    return found(strncmp(name, "nvrtc", 5) ? library : RTLD_DEFAULT, name);
}

static char one[] = "kernel";

int nvrtcVersion(int *major, int *minor) {
    *major = CUDART_VERSION / 1000, *minor = CUDART_VERSION % 1000 / 10;
    return 0;
}
int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers, const char *const *texts, const char *const *names) {
    (void)source, (void)name, (void)headers, (void)texts, (void)names;
    *program = one;
    return 0;
}
static int is_one_byte(void *program, size_t *bytes) {
    (void)program;
    *bytes = 1;
    return 0;
}
int nvrtcGetPTXSize(void *program, size_t *bytes) { return is_one_byte(program, bytes); }
int nvrtcGetCUBINSize(void *program, size_t *bytes) { return is_one_byte(program, bytes); }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { return is_one_byte(program, bytes); }
static int is_empty(void *program, char *text) {
    (void)program;
    *text = 0;
    return 0;
}
int nvrtcGetPTX(void *program, char *text) { return is_empty(program, text); }
int nvrtcGetCUBIN(void *program, char *text) { return is_empty(program, text); }
int nvrtcGetProgramLog(void *program, char *text) { return is_empty(program, text); }
int nvrtcGetLoweredName(void *program, const char *expression, const char **name) {
    (void)program, (void)expression;
    *name = one;
    return 0;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    (void)image;
    *module = (CUmodule)one;
    return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    (void)module, (void)name;
    *function = (CUfunction)one;
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *count, CUfunction function, int block, size_t shared) {
    (void)function, (void)block, (void)shared;
    *count = 2;
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z, unsigned shared, CUstream stream, void **arguments, void **extra) {
    (void)function, (void)grid_x, (void)grid_y, (void)grid_z, (void)x, (void)y, (void)z;
    (void)shared, (void)stream, (void)arguments, (void)extra;
    return (CUresult)launched();
}
