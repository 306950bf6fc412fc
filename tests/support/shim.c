/* A PKCS#11 module that hands every call on to another one, and fails, sleeps or hangs where a file says so.
 *
 * Compiled by tests/shim/module.py with -DMODULE="..." (the other module's path). SHIM_FOLDER names a folder:
 *
 *     orders    one a line: FUNCTION[/signer] ACTION NUMBER PID ONCE
 *               ACTION is `fail` (answer CKR NUMBER), `sleep` (NUMBER milliseconds, then do it), `hang` or `note`;
 *               PID is the process that it is for, 0 for all; ONCE is 1 when one call in all processes takes it.
 *               `/signer`: only with a key that has no label, as signers' keys are.
 *     claimed   made by the call that takes an order with ONCE
 *     log       one line for each call that an order was for, and for each C_Login: PID FUNCTION ACTION
 *
 * As in a real module, a C_Sign or C_Decrypt that fails ends its operation. Layouts are those of PKCS#11 v2.40.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long ulong;
struct function_list {
    unsigned char version[2];
    void *functions[68];
};
struct attribute {
    ulong type;
    void *value;
    ulong length;
};
enum { LABEL = 3, GENERAL_ERROR = 5 };
enum {
    OPEN_SESSION = 12, LOGIN = 18, GET_ATTRIBUTE_VALUE = 24, FIND_OBJECTS_INIT = 26, FIND_OBJECTS = 27,
    DECRYPT_INIT = 33, DECRYPT = 34, SIGN_INIT = 42, SIGN = 43, GENERATE_KEY_PAIR = 59
};

static struct function_list ours;
static struct function_list *theirs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ulong by_signers_key[64]; /* sessions whose signature is by a key without label */

static void place(char *path, size_t size, const char *name) {
    const char *folder = getenv("SHIM_FOLDER");
    snprintf(path, size, "%s/%s", folder != NULL ? folder : "/nonexistent", name);
}

static void note(const char *function, const char *action) {
    char path[512], line[128];
    place(path, sizeof path, "log");
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0) return;
    int length = snprintf(line, sizeof line, "%d %s %s\n", (int)getpid(), function, action);
    if (write(file, line, (size_t)length) < 0) abort();
    close(file);
}

/* Returns 0 when the call goes on, else the code to answer. */
static ulong obey(const char *function, int by_signer) {
    char path[512], line[256], name[64], action[16];
    ulong number;
    int pid, once, found = 0;
    place(path, sizeof path, "orders");
    FILE *orders = fopen(path, "re");
    if (orders == NULL) return 0;
    while (!found && fgets(line, sizeof line, orders) != NULL) {
        if (sscanf(line, "%63s %15s %lx %d %d", name, action, &number, &pid, &once) != 5) continue;
        char *suffix = strchr(name, '/');
        if (suffix != NULL) *suffix = 0;
        found = strcmp(name, function) == 0 && (suffix == NULL || by_signer) && (pid == 0 || pid == getpid());
        if (found && once) {
            char claimed[512];
            place(claimed, sizeof claimed, "claimed");
            int file = open(claimed, O_WRONLY | O_CREAT | O_EXCL, 0600);
            found = file >= 0;
            if (found) close(file);
        }
    }
    fclose(orders);
    if (!found) return 0;
    note(function, action);
    if (strcmp(action, "fail") == 0) return number;
    if (strcmp(action, "hang") == 0) for (;;) pause();
    if (strcmp(action, "sleep") == 0) {
        struct timespec left = {(time_t)(number / 1000), (long)(number % 1000) * 1000000};
        while (nanosleep(&left, &left) != 0) {}
    }
    return 0;
}

static int is_signers(ulong session, ulong key) {
    ulong (*ask)(ulong, ulong, struct attribute *, ulong) = theirs->functions[GET_ATTRIBUTE_VALUE];
    struct attribute label = {LABEL, NULL, 0};
    return ask(session, key, &label, 1) == 0 && label.length == 0;
}

static void remember(ulong session, int signers) {
    pthread_mutex_lock(&lock);
    int free_place = -1;
    for (int i = 0; i < 64; i++) {
        if (by_signers_key[i] == session) by_signers_key[i] = 0;
        if (by_signers_key[i] == 0) free_place = i;
    }
    if (signers && free_place >= 0) by_signers_key[free_place] = session;
    pthread_mutex_unlock(&lock);
}

static int remembered(ulong session) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 64; i++) found |= by_signers_key[i] == session;
    pthread_mutex_unlock(&lock);
    return found;
}

typedef ulong (*five)(ulong, void *, ulong, void *, ulong *);

/* Ends the operation of a call that is to fail: its result goes nowhere. */
static ulong end_with(int position, ulong code, ulong session, void *data, ulong length) {
    unsigned char thrown_away[8192];
    ulong size = sizeof thrown_away;
    ((five)theirs->functions[position])(session, data, length, thrown_away, &size);
    return code;
}

static ulong sign_init(ulong session, void *mechanism, ulong key) {
    int signers = is_signers(session, key);
    ulong code = obey("C_SignInit", signers);
    if (code != 0) return code;
    remember(session, signers);
    return ((ulong(*)(ulong, void *, ulong))theirs->functions[SIGN_INIT])(session, mechanism, key);
}

static ulong sign(ulong session, void *data, ulong length, void *signature, ulong *size) {
    ulong code = obey("C_Sign", remembered(session));
    if (code != 0) return end_with(SIGN, code, session, data, length);
    return ((five)theirs->functions[SIGN])(session, data, length, signature, size);
}

static ulong decrypt_init(ulong session, void *mechanism, ulong key) {
    ulong code = obey("C_DecryptInit", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, void *, ulong))theirs->functions[DECRYPT_INIT])(session, mechanism, key);
}

static ulong decrypt(ulong session, void *data, ulong length, void *plaintext, ulong *size) {
    ulong code = obey("C_Decrypt", 0);
    if (code != 0) return end_with(DECRYPT, code, session, data, length);
    return ((five)theirs->functions[DECRYPT])(session, data, length, plaintext, size);
}

static ulong find_objects_init(ulong session, void *template, ulong count) {
    ulong code = obey("C_FindObjectsInit", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, void *, ulong))theirs->functions[FIND_OBJECTS_INIT])(session, template, count);
}

static ulong find_objects(ulong session, void *objects, ulong most, ulong *count) {
    ulong code = obey("C_FindObjects", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, void *, ulong, ulong *))theirs->functions[FIND_OBJECTS])(session, objects, most, count);
}

static ulong open_session(ulong slot, ulong flags, void *application, void *notify, ulong *session) {
    ulong code = obey("C_OpenSession", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, ulong, void *, void *, ulong *))theirs->functions[OPEN_SESSION])(
        slot, flags, application, notify, session);
}

static ulong log_in(ulong session, ulong user, void *pin, ulong length) {
    note("C_Login", "called");
    ulong code = obey("C_Login", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, ulong, void *, ulong))theirs->functions[LOGIN])(session, user, pin, length);
}

static ulong generate_key_pair(ulong session, void *mechanism, void *public_template, ulong public_count,
                               void *private_template, ulong private_count, ulong *public, ulong *private) {
    ulong code = obey("C_GenerateKeyPair", 0);
    if (code != 0) return code;
    return ((ulong(*)(ulong, void *, void *, ulong, void *, ulong, ulong *, ulong *))theirs->functions[GENERATE_KEY_PAIR])(
        session, mechanism, public_template, public_count, private_template, private_count, public, private);
}

ulong C_GetFunctionList(struct function_list **list) {
    pthread_mutex_lock(&lock);
    if (theirs == NULL) {
        void *module = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
        ulong (*get)(struct function_list **) = module != NULL ? dlsym(module, "C_GetFunctionList") : NULL;
        if (get == NULL || get(&theirs) != 0) {
            pthread_mutex_unlock(&lock);
            return GENERAL_ERROR;
        }
        ours = *theirs;
        ours.functions[3] = C_GetFunctionList;
        ours.functions[OPEN_SESSION] = open_session;
        ours.functions[LOGIN] = log_in;
        ours.functions[FIND_OBJECTS_INIT] = find_objects_init;
        ours.functions[FIND_OBJECTS] = find_objects;
        ours.functions[DECRYPT_INIT] = decrypt_init;
        ours.functions[DECRYPT] = decrypt;
        ours.functions[SIGN_INIT] = sign_init;
        ours.functions[SIGN] = sign;
        ours.functions[GENERATE_KEY_PAIR] = generate_key_pair;
    }
    pthread_mutex_unlock(&lock);
    *list = &ours;
    return 0;
}
