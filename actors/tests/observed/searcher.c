/* Looks for files as it is told: each argument is an operation and a path, with a colon between them. Says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path;

static void say(const char *what, int result) {
    printf("%s %s: %s\n", what, path, result < 0 ? strerror(errno) : "there");
}

static int open_and_close(void) {
    int fd = open(path, O_RDONLY | O_NOCTTY);
    if (fd >= 0) close(fd);
    return fd;
}

static void *on_a_thread(void *unused) {
    (void)unused;
    say("thread", open_and_close());
    return NULL;
}

static void on_a_signal(int number) {
    (void)number;
    say("signal", open_and_close());
}

static int is_interposer(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    return strstr(info->dlpi_name, "zccache-interposer") != NULL;
}

#ifdef __x86_64__
/* Opens by a system call with nothing in the registers but what is left there. */
static long open_raw(void) {
    register long number __asm__("rax") = SYS_openat;
    register long directory __asm__("rdi") = AT_FDCWD;
    register const char *name __asm__("rsi") = path;
    register long flags __asm__("rdx") = O_RDONLY;
    register long mode __asm__("r10") = 0;
    __asm__ volatile("syscall" : "+r"(number) : "r"(directory), "r"(name), "r"(flags), "r"(mode) : "rcx", "r11", "memory");
    return number;
}
#else
static long open_raw(void) {
    return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
}
#endif

static void many(long count) {
    static char name[4096];
    for (long i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s%ld", path, i);
        if (open(name, O_RDONLY) >= 0) abort();
    }
}

/* Looks for files that nobody else looks for, as fast as it can. */
static void *race(void *number) {
    char name[4096];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "%s%ld-%d", path, (long)number, i);
        if (open(name, O_RDONLY) >= 0) abort();
    }
    return NULL;
}

int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        char *what = words[i], *colon = strchr(what, ':');
        struct stat s;
        char real[4097] = "";
        *colon = 0;
        path = colon + 1;
        errno = 0;
        if (!strcmp(what, "open")) say(what, open_and_close());
        else if (!strcmp(what, "access")) say(what, access(path, R_OK));
        else if (!strcmp(what, "stat")) {
            int result = stat(path, &s);
            say(what, result);
            if (result == 0) printf("%o %ld %ld %ld\n", s.st_mode, (long)s.st_ino, (long)s.st_size, (long)s.st_mtim.tv_nsec);
        } else if (!strcmp(what, "fstat")) {
            int fd = open(path, O_RDONLY), result = fstat(fd, &s);
            say(what, result);
            if (result == 0) printf("%o %ld %ld %ld\n", s.st_mode, (long)s.st_ino, (long)s.st_size, (long)s.st_mtim.tv_nsec);
            close(fd);
        } else if (!strcmp(what, "realpath")) {
            char *found = realpath(path, real);
            say(what, found ? 0 : -1);
            if (found) puts(real);
            found = realpath(path, NULL);
            if (found) puts(found);
            free(found);
        } else if (!strcmp(what, "resolve")) {
            say(what, realpath(path, real) ? 0 : -1);
        } else if (!strcmp(what, "content")) {
            int fd = open(path, O_RDONLY);
            ssize_t bytes = read(fd, real, sizeof real);
            say(what, fd);
            if (fd >= 0) printf("%ld: %.20s\n", (long)bytes, real);
            close(fd);
        } else if (!strcmp(what, "write")) {
            int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
            say(what, fd);
            if (fd >= 0 && write(fd, "written", 7) == 7) close(fd);
        } else if (!strcmp(what, "remove")) say(what, unlink(path));
        else if (!strcmp(what, "chdir")) say(what, chdir(path));
        else if (!strcmp(what, "die")) raise(SIGKILL);
        else if (!strcmp(what, "null")) say(what, open(NULL, O_RDONLY));
        else if (!strcmp(what, "nofollow")) say(what, open(path, O_RDONLY | O_NOFOLLOW));
        else if (!strcmp(what, "many")) many(3000);
        else if (!strcmp(what, "raw")) {
            open("d/absent.h", O_RDONLY);
            printf("raw %s\n", open_raw() < 0 ? "nothing" : "there");
        } else if (!strcmp(what, "race")) {
            pthread_t others[3];
            for (int t = 0; t < 3; t++) pthread_create(&others[t], NULL, race, (void *)(long)t);
            race((void *)3L);
            for (int t = 0; t < 3; t++) pthread_join(others[t], NULL);
        }
        else if (!strcmp(what, "fork")) {
            fflush(stdout);
            if (fork() == 0) { say(what, open_and_close()); fflush(stdout); _exit(0); }
            wait(NULL);
        } else if (!strcmp(what, "away")) {
            fflush(stdout);
            if (fork() == 0) { if (chdir(path) == 0) { path = "child.h"; say(what, open_and_close()); } fflush(stdout); _exit(0); }
            wait(NULL);
        } else if (!strcmp(what, "vfork")) {
            if (vfork() == 0) _exit(open_and_close() < 0);
            wait(NULL);
        } else if (!strcmp(what, "thread")) {
            pthread_t thread;
            pthread_create(&thread, NULL, on_a_thread, NULL);
            pthread_join(thread, NULL);
        } else if (!strcmp(what, "signal")) {
            signal(SIGUSR1, on_a_signal);
            raise(SIGUSR1);
        } else if (!strcmp(what, "hello")) {
            puts("hello");
            fflush(stdout);
        } else if (!strcmp(what, "step")) {
            char byte;
            puts("step");
            fflush(stdout);
            if (read(0, &byte, 1) != 1) abort();
        } else if (!strcmp(what, "interposed")) printf("interposed: %d\n", dl_iterate_phdr(is_interposer, NULL));
        else abort();
    }
    return 0;
}
