/* An NFS client for the tests: one mount, kept, and files that stay open as long as the test wants.
 *
 *   nfs-client URL-OF-THE-EXPORT
 *
 * Takes a command a line from stdin and answers each with a line:
 *   list PATH          ok COUNT
 *   read PATH          opens, reads to the end, closes:  ok BYTES
 *   append PATH TEXT   ok BYTES
 *   open PATH          and keeps it open:                ok 0
 *   again              reads all kept files from their beginning: ok BYTES
 *   close              closes all kept files:            ok COUNT
 *   stat PATH          ok SIZE
 *   rename FROM TO     ok 0
 *   chmod PATH         to 0640:                          ok 0
 * What fails is answered with: error ERRNO WORDS
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <nfsc/libnfs.h> /* after what it forgets to include */

enum { KEPT_MAX = 256 };

static struct nfs_context *nfs;
static struct nfsfh *kept[KEPT_MAX];
static int kept_count;

static long read_all(struct nfsfh *file) {
    char buffer[65536];
    long bytes = 0;
    int n = nfs_lseek(nfs, file, 0, SEEK_SET, NULL);
    while (n >= 0 && (n = nfs_read(nfs, file, sizeof buffer, buffer)) > 0) bytes += n;
    return n < 0 ? n : bytes;
}

static long read_path(const char *path) {
    struct nfsfh *file;
    int opened = nfs_open(nfs, path, O_RDONLY, &file);
    if (opened < 0) return opened;
    long bytes = read_all(file);
    nfs_close(nfs, file);
    return bytes;
}

static long append(const char *path, const char *text) {
    struct nfsfh *file;
    struct nfs_stat_64 st;
    int n = nfs_stat64(nfs, path, &st);
    if (n < 0) return n;
    if ((n = nfs_open(nfs, path, O_WRONLY, &file)) < 0) return n;
    n = nfs_pwrite(nfs, file, st.nfs_size, strlen(text), (void *)text);
    nfs_close(nfs, file);
    return n;
}

static long list(const char *path) {
    struct nfsdir *dir;
    long count = 0;
    int n = nfs_opendir(nfs, path, &dir);
    if (n < 0) return n;
    /* Some servers name the directory itself and the one above, others do not. */
    for (struct nfsdirent *entry; (entry = nfs_readdir(nfs, dir));) count += entry->name[0] != '.';
    nfs_closedir(nfs, dir);
    return count;
}

static long keep_open(const char *path) {
    if (kept_count == KEPT_MAX) return -EMFILE;
    int n = nfs_open(nfs, path, O_RDONLY, &kept[kept_count]);
    if (n >= 0) kept_count++;
    return n;
}

static long read_kept(void) {
    long bytes = 0;
    for (int i = 0; i < kept_count; i++) {
        long n = read_all(kept[i]);
        if (n < 0) return n;
        bytes += n;
    }
    return bytes;
}

static long close_kept(void) {
    long count = kept_count;
    while (kept_count > 0) nfs_close(nfs, kept[--kept_count]);
    return count;
}

static long size_of(const char *path) {
    struct nfs_stat_64 st;
    int n = nfs_stat64(nfs, path, &st);
    return n < 0 ? n : (long)st.nfs_size;
}

int main(int count, char **arguments) {
    static char line[8192];
    nfs = nfs_init_context();
    if (count != 2 || !nfs) return 2;
    struct nfs_url *url = nfs_parse_url_dir(nfs, arguments[1]);
    if (!url || nfs_mount(nfs, url->server, url->path) < 0) {
        printf("error 0 %s\n", nfs_get_error(nfs));
        return 1;
    }
    nfs_set_dircache(nfs, 0);
    printf("ok 0\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *verb = strtok(line, " "), *path = strtok(NULL, " "), *rest = strtok(NULL, "");
        if (!verb) continue;
        if (!path) path = "/";
        if (!rest) rest = "";
        long n = !strcmp(verb, "list")     ? list(path)
                 : !strcmp(verb, "read")   ? read_path(path)
                 : !strcmp(verb, "append") ? append(path, rest)
                 : !strcmp(verb, "open")   ? keep_open(path)
                 : !strcmp(verb, "again")  ? read_kept()
                 : !strcmp(verb, "close")  ? close_kept()
                 : !strcmp(verb, "stat")   ? size_of(path)
                 : !strcmp(verb, "rename") ? nfs_rename(nfs, path, rest)
                 : !strcmp(verb, "chmod")  ? nfs_chmod(nfs, path, 0640)
                                           : -EINVAL;
        if (n < 0)
            printf("error %ld %s\n", -n, nfs_get_error(nfs));
        else
            printf("ok %ld\n", n);
        fflush(stdout);
    }
    close_kept();
    nfs_destroy_context(nfs);
    return 0;
}
