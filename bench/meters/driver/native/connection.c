/* The connection of a process to the card, see `card.py`: requests of fixed size, one at a time. */
#include "stand_in.h"

CardFacts card;
uintptr_t base;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
__thread int current_device;

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER, talking = PTHREAD_MUTEX_INITIALIZER;
static int begun, forked, card_socket = -1, contexts[MOST_DEVICES];
static const volatile int64_t *levels; /* Bytes used of every device: the card writes them. */

enum { HELLO, TAKE, GIVE_BACK, FILL, DROP, HOLDERS };
typedef struct { int64_t kind, device, at, bytes; } Request;
/* Answers of TAKE and FILL. */
enum { DONE, DEVICE_IS_FULL, MACHINE_IS_FULL };

static int send_all(const void *data, size_t bytes) {
    for (const char *at = data; bytes;) {
        ssize_t count = send(card_socket, at, bytes, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return 0;
        at += count, bytes -= (size_t)count;
    }
    return 1;
}

static int receive_all(void *data, size_t bytes) {
    for (char *at = data; bytes;) {
        ssize_t count = recv(card_socket, at, bytes, 0);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return 0;
        at += count, bytes -= (size_t)count;
    }
    return 1;
}

/* Messages are framed as `multiprocessing.connection` frames them: their length, big-endian, comes first. */
static int64_t ask(Request request, void *answer, size_t room) {
    struct { uint32_t bytes; Request request; } __attribute__((packed)) message = {htobe32(sizeof request), request};
    uint32_t bytes = 0;
    pthread_mutex_lock(&talking);
    int fine = send_all(&message, sizeof message) && receive_all(&bytes, sizeof bytes);
    bytes = be32toh(bytes);
    fine = fine && bytes <= room && receive_all(answer, bytes);
    pthread_mutex_unlock(&talking);
    return fine ? (int64_t)bytes : -1;
}

static cudaError_t asked(Request request) {
    int64_t answer;
    if (ask(request, &answer, sizeof answer) != sizeof answer) return (cudaError_t)NO_CARD;
    if (answer == MACHINE_IS_FULL) return (cudaError_t)MACHINE_FULL;
    return answer == DEVICE_IS_FULL ? cudaErrorMemoryAllocation : cudaSuccess;
}

static int connected(void) {
    const char *name = getenv("WEIGHT_LOADING_STAND_IN");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!name || strlen(name) + 1 > sizeof address.sun_path) return 0;
    memcpy(address.sun_path + 1, name, strlen(name)); /* The name starts with a zero: it is in no file system. */
    card_socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    if (card_socket < 0 || connect(card_socket, (struct sockaddr *)&address, length)) return 0;
    if (ask((Request){HELLO, 0, getpid(), 0}, &card, sizeof card) != sizeof card) return 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)card.pid, (int)card.memory_fd);
    int memory_fd = open(path, O_RDWR | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)card.pid, (int)card.levels_fd);
    int levels_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (memory_fd < 0 || levels_fd < 0) return 0;
    card.memory_fd = memory_fd;
    void *shown = mmap(NULL, 4096, PROT_READ, MAP_SHARED, levels_fd, 0);
    close(levels_fd);
    /* Device addresses are reserved, and cannot be read: who does so dies, as with a GPU. */
    size_t span = (uint64_t)card.device_span * (size_t)card.devices;
    void *region = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shown == MAP_FAILED || region == MAP_FAILED) return 0;
    levels = shown;
    base = (uintptr_t)region;
    return 1;
}

/* As with CUDA: a child of a process that has begun cannot use the devices. */
static void in_child(void) {
    if (!begun) return;
    close(card_socket);
    forked = 1, begun = 0;
}

cudaError_t begin(void) {
    if (forked) return cudaErrorInitializationError;
    if (begun) return cudaSuccess;
    pthread_mutex_lock(&starting);
    if (!begun && connected()) {
        pthread_atfork(NULL, NULL, in_child);
        begun = 1;
    }
    pthread_mutex_unlock(&starting);
    return begun ? cudaSuccess : (cudaError_t)NO_CARD;
}

cudaError_t use_device(int device) {
    BEGIN;
    if (contexts[device]) return cudaSuccess;
    cudaError_t error = cudaSuccess;
    pthread_mutex_lock(&starting);
    if (!contexts[device] && !(error = take(device, (uint64_t)card.context_bytes))) {
        contexts[device] = 1;
        size_t bytes = (size_t)card.context_host_bytes;
        if (bytes) mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    }
    pthread_mutex_unlock(&starting);
    return error;
}

int has_context(int device) { return begun && contexts[device]; }

cudaError_t take(int device, uint64_t bytes) { return asked((Request){TAKE, device, 0, (int64_t)bytes}); }
void give_back(int device, uint64_t bytes) { asked((Request){GIVE_BACK, device, 0, (int64_t)bytes}); }
cudaError_t fill_pages(uintptr_t at, uint64_t bytes) {
    return card.discards ? cudaSuccess : asked((Request){FILL, 0, (int64_t)(at - base), (int64_t)bytes});
}
void drop_pages(uintptr_t at, uint64_t bytes) {
    if (!card.discards) asked((Request){DROP, 0, (int64_t)(at - base), (int64_t)bytes});
}
uint64_t used_bytes(int device) { return (uint64_t)levels[device]; }

int holders_of(int device, Holder *holders, int room) {
    int64_t bytes = ask((Request){HOLDERS, device, 0, room}, holders, (size_t)room * sizeof *holders);
    return bytes < 0 ? 0 : (int)((size_t)bytes / sizeof *holders);
}
